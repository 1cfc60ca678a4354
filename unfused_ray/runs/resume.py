"""The checkpoint that a training continues from."""

from __future__ import annotations

from dataclasses import dataclass

from unfused_ray.runs.checkpoints import Checkpoint, CheckpointStore, Position
from unfused_ray.runs.watched import without_looks


@dataclass(frozen=True)
class ResumePoint:
    """A verified checkpoint, and what of it a training takes over."""

    checkpoint: Checkpoint
    position: Position
    """Position to continue from; of a fork, the start of the checkpoint's epoch."""
    bank_uri: str | None
    """Folder of the label source's state; None if labels are made anew, as for a fork with other settings."""

    is_fork: bool = False
    """True if the checkpoint is another run's."""

    @property
    def history(self) -> list[dict[str, float]]:
        """Metrics of the finished epochs; of a fork, without looks, by which the other run was judged."""
        history: list[dict[str, float]] = self.checkpoint.details["history"]
        return without_looks(history) if self.is_fork else history

    @property
    def threads(self) -> int | None:
        """Torch threads of a worker that the checkpoint was written with; None if it does not say."""
        return self.checkpoint.details.get("threads")


def find_resume_point(run_uri: str) -> ResumePoint | None:
    """The newest whole checkpoint of a run; every file of it is hashed.

    Raises:
        ValueError: there are checkpoints, but none verifies.
    """
    newest = CheckpointStore(run_uri).newest()
    return ResumePoint(newest, newest.position, newest.bank_uri) if newest else None


def find_fork_point(source_uri: str) -> ResumePoint:
    """The newest whole checkpoint of another run, without its bank and labels: they may not fit the new settings.

    Raises:
        FileNotFoundError: the run has none.
        ValueError: there are checkpoints, but none verifies.
    """
    newest = CheckpointStore(source_uri).newest()
    if newest is None:
        raise FileNotFoundError(f"fork={source_uri} holds no checkpoint: give the folder of a run")
    return ResumePoint(newest, Position(newest.position.epoch, 0), None, is_fork=True)
