"""One trial: a student per task with one point's settings, scored on validation clips at every rung."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from unfused_ray import storage
from unfused_ray.config import DistillConfig, Measure
from unfused_ray.evaluation.protocol import ProtocolConfig
from unfused_ray.evaluation.tasks import VALIDATION_SPLITS, load_task
from unfused_ray.runs.run import Run
from unfused_ray.sweeps.score import Score, mean_accuracy, score
from unfused_ray.sweeps.space import LABELS, Point, apply, identity
from unfused_ray.training.driver import launch

RECORD = "trial.json"
FORMAT_VERSION = 2
"""Format version of all JSON files that a sweep writes."""
REMEDY = "begin a sweep in another folder, or use the version of unfused-ray that wrote this one"
# Fields that a trial reports at a rung.
METRIC = "accuracy"
EPOCH = "epoch"
State = Literal["running", "finished", "stopped early", "failed"]
PROCESS_DIED = "its process died"
"""Message of a trial that failed without an error of its own, as when its node died."""


class LostTrialError(RuntimeError):
    """A sweep that cannot be concluded, because the process of its default trial died in every attempt."""


@dataclass(frozen=True)
class Rung:
    """Scores of a trial after some epochs."""

    epoch: int
    accuracy: float
    """Mean accuracy over the tasks."""
    scores: list[Score]


@dataclass(frozen=True)
class Record:
    """State and scores of a trial; a resumed sweep needs nothing else about an ended trial."""

    point: dict[str, Any]
    state: State = "running"
    rungs: list[Rung] = field(default_factory=list)
    seconds: float = 0.0
    """Seconds of training and scoring, over all starts."""
    training_seconds: float = 0.0
    """Seconds of the training loops alone; the rest of ``seconds`` is overhead and scoring."""
    scoring_seconds: float = 0.0
    """Seconds of embedding the clips and probing."""
    message: str = ""

    @property
    def id(self) -> str:
        """Name of the trial."""
        return identity(self.point)

    @property
    def has_ended(self) -> bool:
        """True if the trial need not be started again."""
        return self.state in ("finished", "stopped early")

    @property
    def is_lost(self) -> bool:
        """True if its process died without an error of its own: it may resume from its checkpoint on another node."""
        return self.state == "failed" and self.message == PROCESS_DIED

    @property
    def accuracy(self) -> float:
        """Accuracy at the last rung."""
        return self.rungs[-1].accuracy

    def write(self, sweep_uri: str) -> None:
        """Write the record to the trial's folder."""
        storage.write_json(storage.join(trial_uri(sweep_uri, self.point), RECORD), asdict(self), FORMAT_VERSION)

    @classmethod
    def read(cls, uri: str) -> Record:
        """Read the record that :meth:`write` has written to the folder ``uri``."""
        values = storage.read_json(storage.join(uri, RECORD), FORMAT_VERSION, REMEDY)
        rungs = [Rung(r["epoch"], r["accuracy"], [Score(**each) for each in r["scores"]]) for r in values.pop("rungs")]
        # JSON has no tuples, and a search space no lists: the point must equal the choices it was made from.
        read = {name: tuple(value) if isinstance(value, list) else value for name, value in values.pop("point").items()}
        return cls(read, rungs=rungs, **values)


@dataclass(frozen=True)
class TrialPlan:
    """Settings that all trials of a sweep share. It holds only values, so it can be sent to a Ray actor."""

    uri: str
    """Folder of the sweep."""
    name: str
    distill: DistillConfig
    """Configuration in which a point changes a few fields."""
    tasks: tuple[str, ...]
    rungs: tuple[int, ...]
    """Epochs after which a trial is scored; the last is its end."""
    protocol: ProtocolConfig
    measure: Measure
    """Measure by which trials are judged."""
    by_folds: bool

    def config(self, point: Point, task: str, last_epoch: int) -> DistillConfig:
        """Return the distillation of a point on a task, up to an epoch."""
        changed = apply(self.distill, point)
        return changed.replace(
            data=(task,),
            output=storage.join(trial_uri(self.uri, point), storage.name(task)),
            name=f"{self.name}-{identity(point)}-{storage.name(task)}",
            labels_of=self.labels_uri(point, task),
            stop_after=last_epoch,
        )

    def labels_uri(self, point: Point, task: str) -> str:
        """Return the folder of the pseudo-labels that all trials with the same label settings share."""
        labels = {name: value for name, value in point.items() if name.startswith(LABELS)}
        return storage.join(self.uri, "labels", f"{storage.name(task)}-{identity(labels)}")


def run_trial(plan: TrialPlan, point: Point, report: Callable[[dict[str, Any]], object]) -> None:
    """Train and score a trial, resuming from its last state.

    Args:
        plan: plan of the sweep's trials.
        point: point of the trial.
        report: called with epoch and mean accuracy at every rung; it may end the trial by raising.
    """
    record = replace(read_record(plan.uri, point), state="running", message="")
    record.write(plan.uri)
    try:
        if record.rungs:  # it may not have been decided yet whether the trial continues
            _tell(record, report)
        for epoch in plan.rungs[len(record.rungs) :]:
            record = _advance(plan, record, epoch)
            record.write(plan.uri)
            _tell(record, report)
    except Exception as error:
        replace(record, message=f"{type(error).__name__}: {error}").write(plan.uri)
        raise
    replace(record, state="finished").write(plan.uri)


def read_record(sweep_uri: str, point: Point) -> Record:
    """Read the record of a point's trial; if the trial has not begun, make an empty one."""
    uri = trial_uri(sweep_uri, point)
    return Record.read(uri) if storage.exists(storage.join(uri, RECORD)) else Record(dict(point))


def read_records(sweep_uri: str) -> Sequence[Record]:
    """Read the records of all trials of a sweep that have begun."""
    folders = storage.list_folders(storage.join(sweep_uri, "trials"))
    return [Record.read(uri) for uri in folders if storage.exists(storage.join(uri, RECORD))]


def trial_uri(sweep_uri: str, point: Point) -> str:
    """Return the folder of a trial."""
    return storage.join(sweep_uri, "trials", identity(point))


def _tell(record: Record, report: Callable[[dict[str, Any]], object]) -> None:
    report({EPOCH: record.rungs[-1].epoch, METRIC: record.accuracy})


def _advance(plan: TrialPlan, record: Record, epoch: int) -> Record:
    """Train and score a trial up to a rung; return its new record."""
    started, scores, scoring, training = time.perf_counter(), [], 0.0, 0.0
    before = record.rungs[-1].epoch if record.rungs else 0
    for task in plan.tasks:
        config = plan.config(record.point, task, epoch)
        status = launch.run(launch.check(config), in_sweep=True)
        if status.epoch != epoch:
            raise RuntimeError(
                f"{config.output} is {status.state} after {status.epoch} of {epoch} epochs: {status.message}"
            )
        history = Run(config.output).history()
        training += sum(entry["seconds_train"] for entry in history[before:])
        trained = time.perf_counter()
        scores.append(
            score(load_task(task, VALIDATION_SPLITS), config.output, plan.protocol, plan.measure, plan.by_folds)
        )
        scoring += time.perf_counter() - trained
    return replace(
        record,
        rungs=[*record.rungs, Rung(epoch, mean_accuracy(scores), scores)],
        state="finished" if epoch == plan.rungs[-1] else "running",
        seconds=record.seconds + time.perf_counter() - started,
        training_seconds=record.training_seconds + training,
        scoring_seconds=record.scoring_seconds + scoring,
    )
