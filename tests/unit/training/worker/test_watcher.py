"""A watched run has the scores of an evaluation, trains as if unwatched, and ends and exports by its settings."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from io import StringIO
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from support.runs import STEPS, exported, history, tracked, train, weights
from support.sources import write_source
from support.tasks import SMALL, audio_of, replace_columns, write_task

from unfused_ray.config import QUICK_MEASURES, FrontEndConfig, PretrainConfig, WatchConfig
from unfused_ray.embedding.cache import EmbeddingCache
from unfused_ray.evaluation.probes.clips import Labelled
from unfused_ray.evaluation.probes.probe import validate
from unfused_ray.evaluation.protocol import load_protocol
from unfused_ray.evaluation.systems import RandomNetwork, System, TrainedModel
from unfused_ray.evaluation.tasks import load_task
from unfused_ray.evaluation.watch import Watch
from unfused_ray.evaluation.watched_clips import choose_clips, watched_tasks
from unfused_ray.models.encoder import AudioNTT2020
from unfused_ray.models.export import read_description
from unfused_ray.runs.watched import has_ended_early, names, watched_curves
from unfused_ray.training.coordinator import Coordinator
from unfused_ray.training.driver.launch import check, describe
from unfused_ray.training.worker.watcher import Watcher


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A task without its test clips, which a watch must not read; a third of its labels are random."""
    folder = tmp_path_factory.mktemp("tasks") / "tones & co"
    rng = np.random.default_rng(0)
    labels = [[str(rng.integers(4) if clip % 3 == 0 else clip % 4)] for clip in range(64)]
    write_task(folder, 40, 20, 4, labels=labels)
    (folder / "00002.parquet").unlink()
    return str(folder)


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> Callable[[list[float]], None]:
    """Return a function that sets the accuracies of a run's looks, by all measures; random networks have 0.5."""

    def script(accuracies: list[float]) -> None:
        left: Iterator[float] = iter(accuracies)

        def scores(self: Watcher, encoder: AudioNTT2020) -> list[float]:
            half = len(self._names) // 2
            return [next(left)] * half + [0.5] * half

        monkeypatch.setattr(Watcher, "_scores", scores)

    return script


def without_looks(run: Path) -> list[dict[str, float]]:
    return [{name: value for name, value in e.items() if not name.startswith("watch/")} for e in history(run)]


def scores(system: System, uri: str, tmp_path: Path) -> dict[str, float]:
    """Return the validation scores of an evaluation, as means over a system's networks."""
    task, protocol = load_task(uri, ("train", "valid")), load_protocol().config
    labelled = Labelled(task.class_ids, task.splits, task.groups, len(task.class_names))
    found = [
        validate(vectors, labelled, protocol.probes)
        for vectors in system.vectors(task, protocol, EmbeddingCache(str(tmp_path / "cache")))
    ]
    return {measure: float(np.mean([each.accuracy(measure) for each in found])) for measure in QUICK_MEASURES}


def test_the_last_look_is_what_an_evaluation_says_of_the_export_on_the_same_clips(
    config: Callable[..., PretrainConfig],
    undisturbed: Callable[[str], Path],
    task: str,
    tmp_path: Path,
    tracking_uri: str,
) -> None:
    job = config("run", ema_decay=0.9, watch__data=(task,), watch__every=1, tracking__uri=tracking_uri)
    assert train(job).state == "finished"
    run = Path(job.output)
    looks = [{name: value for name, value in e.items() if name.startswith("watch/")} for e in history(run)]
    assert [list(look) for look in looks] == [names(["tones & co"])] * 2
    network = scores(TrainedModel("run", job.output), task, tmp_path)
    random = RandomNetwork(job.encoder, job.encoder, job.front_end, seeds=(0, 1, 2))
    beside = scores(random, task, tmp_path)
    for measure in QUICK_MEASURES:
        assert looks[1][f"watch/tones & co/{measure}"] == pytest.approx(network[measure], abs=1e-9)
        assert looks[1][f"watch/tones & co/{measure}/random"] == pytest.approx(beside[measure], abs=1e-9)
    assert looks[0] != looks[1]

    # Watching changes nothing else.
    unwatched = undisturbed("average")
    assert without_looks(run) == history(unwatched)
    ours, theirs = weights(run), weights(unwatched)
    assert all(np.array_equal(ours[name], theirs[name]) for name in theirs)
    assert exported(run) == exported(unwatched)
    metrics = tracked(tracking_uri, job.output).data.metrics
    assert metrics["watch/tones _ co/headline"] == pytest.approx(looks[1]["watch/tones & co/headline"])
    assert metrics["watch/tones _ co/headline/random"] == pytest.approx(looks[1]["watch/tones & co/headline/random"])


def test_a_watched_run_that_was_stopped_has_the_looks_of_one_that_was_not(
    config: Callable[..., PretrainConfig],
    task: str,
    stop_after: Callable[[int], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    at_random, shapes = Watch.look_at_random, []
    monkeypatch.setattr(Watch, "look_at_random", lambda self, shape: (shapes.append(shape), at_random(self, shape))[1])
    watched = {"watch__data": (task,), "watch__every": 2, "watch__clips": 20, "epochs": 4}
    whole, job = config("whole", **watched), config("run", **watched)
    train(whole)
    assert len(shapes) == 1  # only once for all looks
    for steps in (STEPS, 2 * STEPS + 1):  # after an epoch with a look, and within an epoch
        stop_after(steps)
        assert train(job).state == "stopped"
    stop_after(-1)
    assert train(job).state == "finished"
    (curve, *_) = watched_curves(history(Path(job.output)))
    assert list(curve.epochs) == [1, 3, 4]
    assert history(Path(job.output)) == history(Path(whole.output))


def test_a_run_ends_when_its_looks_get_no_better_and_exports_the_best(
    config: Callable[..., PretrainConfig],
    task: str,
    scripted: Callable[[list[float]], None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    watched = {"watch__data": (task,), "watch__every": 1, "epochs": 9}
    scripted([0.5, 0.6, 0.55, 0.6])
    job = config("run", **watched, watch__patience=2, watch__export="best")
    status = train(job)
    assert (status.state, status.epoch, status.step) == ("finished", 4, 0)
    assert "2 looks in a row were no better than that after epoch 2, with a headline of 60.0% (random" in status.message
    about = read_description(job.output)["extra"]
    assert (about["epochs"], about["run_epochs"]) == (2, 4)
    seen = {"measure": "headline", "tasks": ["tones & co"], "clips": 400, "accuracy": ANY, "random": 0.5}
    assert about["watched"] == seen
    assert about["watched"]["accuracy"] == pytest.approx(0.6)
    other = config("other", epochs=9, stop_after=2)
    train(other)
    assert exported(Path(job.output)) == exported(Path(other.output))

    assert train(job).state == "finished"  # nothing was left to do
    assert "is ignored" not in caplog.text
    assert train(job.replace({"watch.export": "last"})).state == "finished"
    assert "watch.export=last is ignored: the run ended with best" in caplog.messages
    assert len(history(Path(job.output))) == 4
    scripted([0.7, 0.5])
    longer = config("run", **watched, watch__patience=3, watch__export="best", stop_after=6)
    assert train(longer).epoch == 6  # a later look was better, and patience is longer
    assert read_description(job.output)["extra"]["epochs"] == 5


@pytest.mark.parametrize("at_stop", [0.5, 0.9], ids=["no better", "better"])
def test_a_run_that_was_stopped_between_two_looks_ends_where_one_that_was_not_does(
    at_stop: float,
    config: Callable[..., PretrainConfig],
    task: str,
    scripted: Callable[[list[float]], None],
) -> None:
    watched = {"watch__data": (task,), "watch__every": 2, "watch__patience": 2, "epochs": 9}
    scripted([0.6, 0.5, 0.5])  # after epochs 1, 3 and 5
    whole = train(config("whole", **watched))
    scripted([0.6, 0.5, at_stop, 0.5])  # and after epoch 4
    stopped = train(config("run", **watched, stop_after=4))
    assert (stopped.state, stopped.epoch) == ("stopped", 4)
    resumed = train(config("run", **watched))
    assert (resumed.state, resumed.epoch, resumed.message) == (whole.state, whole.epoch, whole.message)
    assert (whole.state, whole.epoch) == ("finished", 5)


def test_a_look_where_a_run_was_stopped_does_not_choose_the_export(
    config: Callable[..., PretrainConfig], task: str, scripted: Callable[[list[float]], None]
) -> None:
    """A run that was not stopped has no such look, and must export the same network."""
    watched = {"watch__data": (task,), "watch__every": 2, "watch__export": "best", "epochs": 5}
    scripted([0.5, 0.6, 0.5])  # after epochs 1, 3 and 5
    whole = config("whole", **watched)
    train(whole)
    scripted([0.5, 0.9])  # and after epoch 2
    stopped = config("run", **watched, stop_after=2)
    train(stopped)
    assert read_description(stopped.output)["extra"]["epochs"] == 1
    scripted([0.6, 0.5])
    train(config("run", **watched))
    assert read_description(stopped.output)["extra"]["epochs"] == 3
    assert exported(Path(stopped.output)) == exported(Path(whole.output))


def test_a_fork_is_judged_by_looks_of_its_own(
    config: Callable[..., PretrainConfig], task: str, scripted: Callable[[list[float]], None]
) -> None:
    watched = {"watch__data": (task,), "watch__every": 1, "watch__patience": 1, "epochs": 9}
    scripted([0.6, 0.5])
    trunk = config("trunk", **watched)
    assert train(trunk).epoch == 2
    scripted([0.5, 0.55, 0.5])
    branch = config("branch", **watched, fork=trunk.output, optimizer__lr=1e-5, watch__export="best")
    assert train(branch).epoch == 5  # two epochs of the trunk, three of its own
    assert read_description(branch.output)["extra"]["epochs"] == 4
    (curve, *_) = watched_curves(history(Path(branch.output)))
    assert list(curve.epochs) == [3, 4, 5]


def test_an_export_that_is_not_of_the_best_look_says_so(
    config: Callable[..., PretrainConfig],
    task: str,
    scripted: Callable[[list[float]], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    notes: list[str] = []
    monkeypatch.setattr(Coordinator, "note", lambda self, text, rank=None: notes.append(text))
    watched = {"watch__data": (task,), "watch__every": 1, "epochs": 3}
    scripted([0.7])
    train(config("run", **watched, stop_after=1))
    scripted([0.5, 0.6])
    train(config("run", **watched, watch__export="best"))
    assert any("the best look, after epoch 1, was not kept; that after epoch 3 is exported" in note for note in notes)


def test_looks_of_a_run_that_begins_anew_are_forgotten(
    config: Callable[..., PretrainConfig], task: str, scripted: Callable[[list[float]], None]
) -> None:
    scripted([0.9, 0.5])
    job = config("run", watch__data=(task,), watch__every=1, watch__export="best")
    train(job)
    for folder in ("checkpoints", job.export):
        shutil.rmtree(Path(job.output, folder))
    scripted([0.6, 0.7])
    train(job)
    assert read_description(job.output)["extra"]["epochs"] == 2


def test_a_dry_run_says_which_clips_are_watched(config: Callable[..., PretrainConfig], task: str) -> None:
    console = Console(file=StringIO(), width=200)
    console.print(describe(check(config("run", watch__data=(task,), watch__clips=40))))
    assert re.search(r"watched: tones & co\W+20 of train and 20 of valid, every 5 epochs", console.file.getvalue())


def test_the_last_network_is_exported_unless_the_best_is_asked_for(
    config: Callable[..., PretrainConfig], task: str, scripted: Callable[[list[float]], None], tmp_path: Path
) -> None:
    scripted([0.6, 0.5])
    job = config("run", watch__data=(task,), watch__every=1)
    train(job)
    about = read_description(job.output)["extra"]
    assert about["epochs"] == about["run_epochs"] == 2
    assert "watched" not in about
    assert not (tmp_path / "run" / "best").exists()


def test_a_look_that_fails_is_said_and_holds_nothing_up(
    config: Callable[..., PretrainConfig], task: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: Watcher, encoder: AudioNTT2020) -> list[float]:
        raise OSError("the storage does not answer")

    notes: list[str] = []
    monkeypatch.setattr(Coordinator, "note", lambda self, text, rank=None: notes.append(text))
    monkeypatch.setattr(Watcher, "_scores", fail)
    job = config("run", watch__data=(task,), watch__every=1, watch__patience=1, watch__export="best")
    assert train(job).state == "finished"
    assert notes[:2] == [f"not watched after epoch {epoch}: the storage does not answer" for epoch in (1, 2)]
    assert "no network was looked at, the last one is exported" in notes[2]
    assert read_description(job.output)["extra"]["epochs"] == 2


@pytest.mark.parametrize(
    ("sizes", "columns", "message"),
    [
        ((8, 0, 4), {}, r"watch\.data=.*odd has no split valid, only train, test: .* test is never read"),
        ((0, 8, 4), {}, r"watch\.data=.*odd has no split train, only valid, test"),
        ((8, 4, 0), {"labels": [[]] * 12}, r"watch\.data=.*odd has 12 of 12 clips without exactly one label"),
        ((8, 4, 0), {"labels": [["a"]] * 12}, r"watch\.data=.*odd has clips of a single class, a"),
        ((4, 4, 0), {"labels": [["a"], ["b"]] * 3 + [["c"]] * 2}, r"watch\.data=.*odd: split valid of odd has classes"),
    ],
)
def test_what_cannot_be_watched_is_refused_before_anything_is_written(
    sizes: tuple[int, int, int],
    columns: dict[str, Any],
    message: str,
    config: Callable[..., PretrainConfig],
    tmp_path: Path,
) -> None:
    splits = [split for split, size in zip(("train", "valid", "test"), sizes, strict=True) if size]
    write_source(tmp_path / "odd", [[size] for size in sizes if size], (4_000,), splits)
    job = config("run", watch__data=(replace_columns(tmp_path / "odd", **columns),))
    with pytest.raises(ValueError, match=message):
        train(job)
    assert not Path(job.output).exists()


def test_settings_of_a_watch_that_watches_nothing_are_refused(config: Callable[..., PretrainConfig], task: str) -> None:
    with pytest.raises(ValueError, match=r"patience=3 needs watched clips, but data=\(\) names none"):
        config("run", watch__patience=3)
    with pytest.raises(ValueError, match=r"export=best needs watched clips"):
        config("run", watch__export="best")
    with pytest.raises(ValueError, match=r"several sources are called 'tones & co'"):
        check(config("run", watch__data=(task, task)))
    with pytest.raises(FileNotFoundError, match=r"nowhere holds no manifest"):
        check(config("run", watch__data=("/nowhere",)))
    with pytest.raises(ValueError, match="is at 16000 Hz, the encoder at 8000 Hz"):
        watched_tasks(WatchConfig(data=(task,)), FrontEndConfig(sample_rate=8000, f_max=4000.0))


def test_a_watch_draws_no_random_numbers_of_the_training(task: str) -> None:
    front_end = FrontEndConfig()
    torch.manual_seed(7)
    watch = Watch(watched_tasks(WatchConfig(data=(task,), clips=20), front_end), front_end, torch.device("cpu"))
    encoder = AudioNTT2020(SMALL, front_end.num_mels)
    before = torch.get_rng_state()
    watch.look_at_random(encoder.config)
    watch.look(encoder)
    assert torch.equal(torch.get_rng_state(), before)


@given(
    classes=st.lists(st.integers(0, 5), min_size=1, max_size=120),
    share=st.floats(0, 1),
    most=st.integers(20, 60),
)
def test_chosen_clips_are_of_train_and_valid_and_spread_over_the_classes(
    classes: list[int], share: float, most: int
) -> None:
    class_ids = np.array(classes)
    splits = np.where(np.random.default_rng(0).random(len(classes)) < share, "train", "valid")
    splits[::7] = "test"
    chosen = choose_clips(class_ids, splits, most, "task")
    assert len(set(chosen.tolist())) == len(chosen) <= most
    assert set(splits[chosen]) <= {"train", "valid"}
    assert np.array_equal(chosen, choose_clips(class_ids, splits, most, "task"))
    of_train = chosen[splits[chosen] == "train"]
    all_train = np.flatnonzero(splits == "train")
    counts = {c: int((class_ids[of_train] == c).sum()) for c in set(class_ids[all_train].tolist())}
    if counts:
        for class_id, count in counts.items():
            if count < (class_ids[all_train] == class_id).sum():  # a class not fully chosen: no other has two more
                assert count >= max(counts.values()) - 1
    known = set(class_ids[of_train].tolist())
    assert set(class_ids[chosen].tolist()) <= known
    if ((splits != "test").sum() <= most) and set(class_ids[splits == "valid"].tolist()) <= known:
        assert len(chosen) == (splits != "test").sum()


@given(
    accuracies=st.lists(st.sampled_from([0.25, 0.5, 0.75]), max_size=12),
    patience=st.integers(1, 4),
    every=st.integers(1, 3),
    others=st.sets(st.integers(0, 36)),
)
def test_patience_counts_looks_in_rhythm_behind_the_first_of_the_best(
    accuracies: list[float], patience: int, every: int, others: set[int]
) -> None:
    watch = WatchConfig(data=("tones",), patience=patience, every=every)
    scores = dict.fromkeys((epoch for epoch in others if epoch % every), 0.75)  # at earlier ends of the run
    scores |= {every * number: accuracy for number, accuracy in enumerate(accuracies)}
    entries = [{**dict.fromkeys(names(["tones"]), scores[epoch]), "epoch": epoch} for epoch in sorted(scores)]
    waited = len(accuracies) - 1 - accuracies.index(max(accuracies)) if accuracies else 0
    assert has_ended_early(entries, watch) == (bool(accuracies) and waited >= patience)
    assert not has_ended_early(entries, WatchConfig(data=("tones", "other"), patience=patience))


@pytest.mark.parametrize(("split", "rows"), [("train", range(24)), ("valid", range(24, 32))])
def test_a_task_whose_watched_clips_are_all_damaged_is_named(split: str, rows: range, tmp_path: Path) -> None:
    task = write_task(tmp_path / "tones", 24, 8, 0)
    replace_columns(tmp_path / "tones", audio=[b"?" if clip in rows else a for clip, a in enumerate(audio_of(task))])
    front_end = FrontEndConfig()
    tasks = watched_tasks(WatchConfig(data=(task,)), front_end)
    with pytest.raises(ValueError, match=f"watch.data={task}: all {len(rows)} watched {split} clips are damaged"):
        Watch(tasks, front_end, torch.device("cpu"))
