"""The picture of nearest clips: the choice of test clips, of different classes, and the clips that a cell names."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from support.tasks import write_task

from unfused_ray.config import FrontEndConfig
from unfused_ray.evaluation.tasks import load_task
from unfused_ray.figures import nearest
from unfused_ray.figures.nearest import NearestRow, ask, draw_nearest


@pytest.fixture
def task(tmp_path: Path) -> Any:
    return load_task(write_task(tmp_path / "tones", 16, 8, 12))


def cell_of(rows: np.ndarray) -> Any:
    return SimpleNamespace(results=[{"nearest": rows.tolist()}])


def test_questions_are_test_clips_of_different_classes_and_answers_are_those_of_the_cell(task: Any) -> None:
    test, train = (np.flatnonzero(task.splits == split) for split in ("test", "train"))
    rows = np.stack([np.roll(train, shift)[:4] for shift in range(len(test))])
    rows[:, 3] = -1  # as for a damaged clip
    questions = ask(task, {"mine": rows})
    assert len(questions.asked) == 3
    assert len({task.class_ids[each.clip_id] for each in questions.asked}) == 3
    for each in questions.asked:
        place = int(np.flatnonzero(test == each.clip_id)[0])
        assert each.found == {"mine": rows[place][:3].tolist()}
    assert questions == ask(task, {"mine": rows})
    assert questions.why == "Shown: up to 3 classes, a clip of each, drawn by chance among all."


def test_questions_are_clips_for_which_the_last_system_finds_more_and_both_are_counted(task: Any) -> None:
    test, train = (np.flatnonzero(task.splits == split) for split in ("test", "train"))
    of_class = {label: train[task.class_ids[train] == label] for label in np.unique(task.class_ids)}
    same = np.stack([of_class[label][:2] for label in task.class_ids[test]])
    other = np.stack([np.setdiff1d(train, of_class[label])[:2] for label in task.class_ids[test]])
    more, fewer = np.zeros(len(test), bool), np.zeros(len(test), bool)
    more[::2], fewer[3::4] = True, True
    last = np.where(more[:, None], same, np.where(fewer[:, None], -1, other))  # -1 as an index would find a class
    first = np.where(more[:, None] | ~fewer[:, None], other, same)
    questions = ask(task, {"random": first, "between": other, "mine{0}": last})  # braces in a name are no format
    chosen = [each.clip_id for each in questions.asked]
    assert len(chosen) == len({task.class_ids[clip] for clip in chosen}) == 3
    assert set(chosen) <= set(test[more].tolist())
    assert all(list(each.found) == ["random", "between", "mine{0}"] for each in questions.asked)
    counted = f"for {more.sum()} of {len(test)} test clips, fewer for {fewer.sum()}."
    finds = "Among the 2 nearest, mine{0} finds more of the same class than one network of random"
    assert questions.why.startswith(f"{finds} {counted}")
    assert questions.why.endswith(f"drawn by chance among the {more.sum()}.")


def test_questions_are_any_clips_where_the_last_system_never_finds_more_and_that_is_told(task: Any) -> None:
    test, train = (np.flatnonzero(task.splits == split) for split in ("test", "train"))
    rows = np.stack([np.roll(train, shift)[:4] for shift in range(len(test))])
    nothing = np.full_like(rows, -1)
    right = (task.class_ids[rows] == task.class_ids[test][:, None]).any(1)
    questions = ask(task, {"random": rows, "mine": nothing})
    assert [each.clip_id for each in questions.asked] == [each.clip_id for each in ask(task, {"mine": rows}).asked]
    assert f"for 0 of {len(test)} test clips, fewer for {right.sum()}." in questions.why
    assert questions.why.endswith("drawn by chance among all.")


def test_a_picture_of_a_task_is_written_from_its_clips(task: Any, tmp_path: Path) -> None:
    train, num_test = np.flatnonzero(task.splits == "train"), int((task.splits == "test").sum())
    uri = nearest.write(str(tmp_path / "out"), task, {"mine": cell_of(np.tile(train[:4], (num_test, 1)))})
    assert uri.endswith("tones/nearest.png")
    assert Path(uri).read_bytes()[:4] == b"\x89PNG"
    assert nearest.write(str(tmp_path / "out"), task, {}) == ""
    assert not Path(uri).exists()  # it would show rows that the table no longer has


def test_a_frame_is_green_where_the_class_is_that_of_the_test_clip() -> None:
    images = [np.random.default_rng(n).normal(size=(64, 20)) for n in range(3)]
    figure = draw_nearest("title", [NearestRow("mine", images, ["tom", "tom", "kick"])], FrontEndConfig())
    (axis,) = figure.axes
    frames = [patch for patch in axis.patches if not patch.get_fill()]
    assert [frame.get_xy()[0] for frame in frames] == [0, 23, 46]
    colours = [frame.get_edgecolor() for frame in frames]
    assert colours[1][1] > max(colours[1][0], colours[1][2])  # green
    assert colours[2][0] == colours[2][1] == colours[2][2]  # grey
    assert [text.get_text() for text in axis.texts] == ["tom", "tom", "kick"]
    assert axis.get_ylabel() == "mine"
