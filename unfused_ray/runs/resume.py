"""The checkpoint that a training continues from."""

from __future__ import annotations

from dataclasses import dataclass

from unfused_ray.runs.checkpoints import Checkpoint, CheckpointStore, Position
from unfused_ray.runs.watched import without_looks


@dataclass(frozen=True)
class ResumePoint:
    """A verified checkpoint, and the parts of it that a training takes over."""

    checkpoint: Checkpoint
    position: Position
    """Position to continue from; for a fork, the start of the checkpoint's epoch."""
    bank_uri: str | None
    """Folder of the label source's state; None if labels are made anew, as in a fork with other settings."""

    is_fork: bool = False
    """True if the checkpoint belongs to another run."""

    @property
    def history(self) -> list[dict[str, float]]:
        """Metrics of the finished epochs; for a fork, without looks, because those judged the other run."""
        history: list[dict[str, float]] = self.checkpoint.details["history"]
        return without_looks(history) if self.is_fork else history

    @property
    def threads(self) -> int | None:
        """Number of torch threads of a worker that wrote the checkpoint; None if unknown."""
        return self.checkpoint.details.get("threads")


def find_resume_point(run_uri: str) -> ResumePoint | None:
    """Return the newest whole checkpoint of a run, verified by the hashes of its files; None if there is none.

    Raises:
        ValueError: there are checkpoints, but none verifies.
    """
    newest = CheckpointStore(run_uri).newest()
    return ResumePoint(newest, newest.position, newest.bank_uri) if newest else None


def find_fork_point(source_uri: str) -> ResumePoint:
    """Return another run's newest whole checkpoint, without bank and labels, which may not fit the new settings.

    Raises:
        FileNotFoundError: the run has none.
        ValueError: there are checkpoints, but none verifies.
    """
    newest = CheckpointStore(source_uri).newest()
    if newest is None:
        raise FileNotFoundError(f"fork={source_uri} holds no checkpoint: give the folder of a run")
    return ResumePoint(newest, Position(newest.position.epoch, 0), None, is_fork=True)
