"""Draws a few test clips with the training clips whose vectors are nearest, for several systems."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from unfused_ray import storage
from unfused_ray.audio import randomness
from unfused_ray.audio.log_mel import LogMel
from unfused_ray.config import FrontEndConfig
from unfused_ray.embedding.clips import read_clips
from unfused_ray.evaluation.cells import Cell
from unfused_ray.evaluation.tasks import Task
from unfused_ray.figures.canvas import new_figure, save, shortened, width_of
from unfused_ray.figures.spectrograms import CAPTION_LETTERS, colour_range, draw_row

PICTURE = "nearest.png"
"""Name of the picture in a task's folder."""
_QUESTIONS = 3
_SECONDS = 2.0
_SAME, _OTHER = "tab:green", "0.75"


@dataclass(frozen=True)
class NearestRow:
    """A test clip and the clips that one system finds nearest to it."""

    title: str
    """Name of the system."""
    log_mels: Sequence[np.ndarray]
    """(F, T) log-mels of the test clip, then of the other clips."""
    labels: Sequence[str]
    """Class of each clip."""


def draw_nearest(title: str, rows: Sequence[NearestRow], front_end: FrontEndConfig) -> Figure:
    """Draw a row of spectrograms per test clip and system; a green frame marks clips of the test clip's class."""
    num_columns = max(len(row.log_mels) for row in rows)
    colours = colour_range([image for row in rows for image in row.log_mels])
    size = front_end.num_mels, max(image.shape[1] for row in rows for image in row.log_mels)
    titles = [shortened(row.title) for row in rows]
    figure = new_figure(title, 1.9 * num_columns + max(2.2, 0.8 + width_of(titles, 9)), 1.05 * len(rows) + 0.9)
    for axis, row, name in zip(figure.subplots(len(rows), squeeze=False)[:, 0], rows, titles, strict=True):
        axis.set_ylabel(name, rotation=0, ha="right", va="center", fontsize=9, labelpad=8)
        axis.set_xticks([])
        empty = [None] * (num_columns - len(row.log_mels))
        firsts = draw_row(axis, [*row.log_mels, *empty], size, colours)
        for place, (first, label) in enumerate(zip(firsts, row.labels, strict=False)):
            _frame(axis, first, size, label, "0.25" if place == 0 else _colour(row, place))
    return figure


def _colour(row: NearestRow, place: int) -> str:
    return _SAME if row.labels[place] == row.labels[0] else _OTHER


def _frame(axis: Axes, first: int, size: tuple[int, int], label: str, colour: str) -> None:
    height, width = size
    axis.text(
        first, height + 4, shortened(label, CAPTION_LETTERS), fontsize=8, color="0.25" if colour != _SAME else _SAME
    )
    thickness = 2.5 if colour == _SAME else 1.0
    border = Rectangle((first, 0), width, height, fill=False, edgecolor=colour, linewidth=thickness, clip_on=False)
    axis.add_patch(border)


@dataclass(frozen=True)
class Question:
    """A test clip of a task, and the clips that each system finds nearest to it."""

    clip_id: int
    found: Mapping[str, Sequence[int]]
    """clip_ids of training clips, the nearest first, by system."""


@dataclass(frozen=True)
class Questions:
    """Test clips chosen from a task, and the reason for the choice."""

    asked: Sequence[Question]
    why: str
    """How they were chosen, in words."""


def ask(task: Task, nearest: Mapping[str, np.ndarray]) -> Questions:
    """Choose a few test clips of different classes, and look up what the first network of each system finds.

    They are drawn by chance from the clips for which the last system finds more clips of the same class than the first.
    If there is no such clip, or only one system, they are drawn from all test clips.

    Args:
        task: the task whose test clips are used; in a task with folds, those of the first fold.
        nearest: by system, the clips that its first network finds: (test clips, K) int64 clip_ids, -1 for none.
    """
    round_ = task.rounds[0]
    test = np.flatnonzero(round_.splits == "test")
    classes = round_.class_ids[test]
    right = {
        name: ((round_.class_ids[rows] == classes[:, None]) & (rows >= 0)).sum(1) for name, rows in nearest.items()
    }
    names = list(nearest)
    first, last = names[0], names[-1]
    more, fewer = right[last] > right[first], right[last] < right[first]
    drawn_among = f"the {more.sum():,}" if more.any() else "all"
    why = f"Shown: up to {_QUESTIONS} classes, a clip of each, drawn by chance among {drawn_among}."
    if first != last:
        finds = f"Among the {nearest[first].shape[1]} nearest, {last} finds more of the same class"
        counted = f"for {more.sum():,} of {len(test):,} test clips, fewer for {fewer.sum():,}"
        why = f"{finds} than one network of {first} {counted}. {why}"
    order = randomness.generator(0, f"nearest clips of {task.name}").permutation(len(test))
    order = order[more[order]] if more.any() else order
    _, places = np.unique(classes[order], return_index=True)
    chosen = order[np.sort(places)[:_QUESTIONS]]
    asked = [
        Question(int(test[place]), {name: rows[place][rows[place] >= 0].tolist() for name, rows in nearest.items()})
        for place in chosen.tolist()
    ]
    return Questions(asked, why)


def write(output: str, task: Task, cells: Mapping[str, Cell]) -> str:
    """Draw the answers of some systems into an evaluation's folder; return the picture's URI, or "" without clips."""
    picture = storage.join(output, task.name, PICTURE)
    storage.delete(picture)  # it may show other systems
    if not cells:
        return ""
    questions = ask(task, {name: np.array(cell.results[0]["nearest"]) for name, cell in cells.items()})
    front_end = task.index.manifests[0].front_end
    waves = read(task, questions.asked)
    log_mel = LogMel(front_end)
    rows = []
    for question in questions.asked:
        for name, found in question.found.items():
            shown = [clip for clip in (question.clip_id, *found) if clip in waves]
            images = [log_mel(torch.from_numpy(waves[clip])[None])[0].numpy() for clip in shown]
            if images:
                rows.append(NearestRow(name, images, [task.class_names[task.class_ids[clip]] for clip in shown]))
    if not rows:
        return ""
    title = f"{task.name}: test clips (left), and the training clips found nearest. {questions.why}"
    return save(draw_nearest(title, rows, front_end), picture)


def clips_of(questions: Sequence[Question]) -> np.ndarray:
    """Return the clip_ids of all questions and answers, each once, in ascending order: (N,) int64."""
    return np.unique([clip for each in questions for clip in (each.clip_id, *chain(*each.found.values()))])


def read(task: Task, questions: Sequence[Question]) -> dict[int, np.ndarray]:
    """Read all clips of questions and answers, without damaged ones: (samples,) int16 by clip_id, cut to two
    seconds."""
    ids = clips_of(questions)
    length = round(_SECONDS * task.index.manifests[0].front_end.sample_rate)
    return {int(ids[place]): wave[:length] for clips in read_clips(task.index, ids) for place, wave in clips}
