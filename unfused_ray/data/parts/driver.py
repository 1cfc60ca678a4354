"""Drives a job that writes its output part by part, from the lease on the output to the manifest that signs it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from unfused_ray import storage
from unfused_ray.data.parts.executor import Executor, TaskEndedError
from unfused_ray.data.parts.ledger import FileT, Ledger, PartReport
from unfused_ray.data.parts.rejects import REJECTS, WARNINGS, Reject, count_reasons, in_words, write_rejects
from unfused_ray.lease import Lease, refuse_lost
from unfused_ray.machine.threads import one_thread
from unfused_ray.progress import Progress


class Saved(Protocol):
    """A manifest that can be written to its output."""

    def save(self) -> None:
        """Write the manifest, atomically: it signs the output."""
        ...


PartT = TypeVar("PartT")
ManifestT = TypeVar("ManifestT", bound=Saved)


@dataclass(frozen=True)
class PartedJob(Generic[PartT, FileT]):
    """A planned job that writes its output part by part.

    The parts and ``write`` travel to other processes.
    """

    name: str
    """Title of the progress bar."""
    ledger: Ledger
    parts: Iterable[PartT]
    """Descriptions of the parts, in order; each is made only when its task starts."""
    clips_of_parts: Sequence[int]
    """Source clips of each part."""
    rejects: Sequence[Reject]
    """Clips that were set aside before the parts were planned."""
    write: Callable[[int, PartT], PartReport[FileT]]
    """Writes part ``number`` atomically; equal arguments give equal bytes."""
    file_type: type[FileT]


def write_parts(
    job: PartedJob[PartT, FileT],
    executor: Executor,
    finished: Callable[[], ManifestT | None],
    manifest_of: Callable[[tuple[FileT, ...], dict[str, int], dict[str, int]], ManifestT],
) -> ManifestT:
    """Write the parts of an output that are not finished, then its rejects and warnings, then its manifest.

    Args:
        job: the planned job.
        executor: runs the parts.
        finished: returns the manifest if another process has finished the output since it was checked, else None.
        manifest_of: makes the manifest from the written files, the rejects by reason, and the warnings by reason. It
            may take minutes, and writes nothing.

    Raises:
        InUseError: another process works on the output, or has taken it over.
        ValueError: the output was begun differently, or none of the clips can be used.
        OSError: the source's or the output's storage does not answer.
    """
    ledger, lost = job.ledger, threading.Event()
    with Lease(ledger.output, on_loss=lost.set), executor.open():
        if (manifest := finished()) is not None:
            return manifest
        ledger.begin()
        reports = run_parts(job, executor, lost)
        files = tuple(report.file for report in reports if report.file is not None)
        rejects = [*job.rejects, *(reject for report in reports for reject in report.rejects)]
        warnings = [warned for report in reports for warned in report.warnings]
        refuse_lost(ledger.output, lost)
        write_rejects(storage.join(ledger.output, REJECTS), rejects)
        if warnings:
            write_rejects(storage.join(ledger.output, WARNINGS), warnings)
        if not any(file.num_clips for file in files):
            ledger.delete()  # or repaired files would be rejected by these again
            last = "".join(f"; {reject.key}: {reject.detail}" for reject in rejects[-1:])
            raise ValueError(
                f"none of the {sum(job.clips_of_parts)} clips of {ledger.source} can be used{in_words(rejects)}{last}; "
                f"see {storage.join(ledger.output, REJECTS)}"
            )
        manifest = manifest_of(files, count_reasons(rejects), count_reasons(warnings))
        refuse_lost(ledger.output, lost)
        manifest.save()
        ledger.delete()  # the manifest now says all that the reports did
    return manifest


def run_parts(job: PartedJob[PartT, FileT], executor: Executor, lost: threading.Event) -> list[PartReport[FileT]]:
    """Write the parts that are not finished; return the reports of all parts in order.

    Args:
        job: its output is leased, and its ledger has begun.
        executor: runs the parts, and is open.
        lost: set when another process has taken the lease over.

    Raises:
        InUseError: another process has taken it over.
        TaskEndedError: a part was ended from outside, or never begun.
    """
    task = _Task(job.ledger, job.write, job.file_type)
    reports: dict[int, PartReport[FileT]] = {}
    done = num_rejects = 0
    with (
        Progress(job.name, sum(job.clips_of_parts), "clips") as bar,
        executor.run(task, enumerate(job.parts)) as results,
    ):
        try:
            for number, report in results:
                refuse_lost(job.ledger.output, lost)
                reports[number] = report
                done += job.clips_of_parts[number]
                num_rejects += len(report.rejects)
                bar.update(done, rejected=num_rejects)
        except TaskEndedError as error:
            raise TaskEndedError(f"{error}. The same command resumes from the parts that are finished") from error
    return [reports[number] for number in range(len(job.clips_of_parts))]


@dataclass(frozen=True)
class _Task(Generic[PartT, FileT]):
    """Writes one part unless an earlier process has finished it."""

    ledger: Ledger
    write: Callable[[int, PartT], PartReport[FileT]]
    file_type: type[FileT]

    def __call__(self, number: int, part: PartT) -> PartReport[FileT]:
        if (finished := self.ledger.finished(number, self.file_type)) is not None:
            return finished
        with one_thread():  # a task has one CPU; and the last bits depend on the number of threads
            report = self.write(number, part)
        self.ledger.finish(number, report)
        return report
