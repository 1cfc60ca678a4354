"""The ledger of the finished parts of an output: with it, the same command resumes after an interruption."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Generic, Protocol, TypeVar

from pydantic import TypeAdapter

from unfused_ray import storage
from unfused_ray.data.parts.rejects import Reject, Warned

_BEGUN = "plan.json"
_MARKS = {
    "manifest.json": "a prepared source, or the vectors of an embedding",
    "_ingest/plan.json": "an unfinished prepared source",
    "_embed/plan.json": "an unfinished embedding",
    "index.json": "a search index",
    "run.json": "a run",
    "sweep.json": "a sweep",
    "evaluation.json": "an evaluation",
    "export.json": "an export",
}
"""Jobs whose folder is known by a file."""
_FORMAT_VERSION = 2
"""Version of the plan file and of the reports that belong to it."""


class PartFile(Protocol):
    """A file that a part has written; a dataclass of plain values."""

    @property
    def file(self) -> str:
        """Name within the output."""
        ...

    @property
    def sha256(self) -> str:
        """SHA-256 of its bytes as hex digits."""
        ...

    @property
    def num_clips(self) -> int:
        """Clips that it holds."""
        ...


FileT = TypeVar("FileT", bound=PartFile)


@dataclass(frozen=True)
class PartReport(Generic[FileT]):
    """The outcome of one part."""

    file: FileT | None
    """None if every clip was set aside and nothing was written."""
    rejects: tuple[Reject, ...]
    warnings: tuple[Warned, ...] = ()


@dataclass(frozen=True)
class Ledger:
    """Keeps a report of every finished part in a folder of the output, until the output has its manifest.

    Several processes write to the folder, each the reports of its own parts.
    """

    output: str
    folder: str
    """Name of the reports' folder."""
    source: str
    """Name of the source in messages."""
    settings: Mapping[str, Any]
    """Settings that decide the bytes of the output, as JSON."""
    plan: str
    """Digest of the settings and of the source's contents, as far as they are known before they are read."""

    def check_begun(self) -> bool:
        """Return True if an interrupted job has begun this plan in the output.

        Raises:
            ValueError: another plan has begun there, or this plan was begun by another version of the project.
        """
        uri = self._uri(_BEGUN)
        if not storage.exists(uri):
            return False
        begun = storage.read_json(uri, _FORMAT_VERSION, f"delete {self.output}, or name another output")
        refuse_difference(self.output, begun["config"], self.settings)
        if begun["plan"] != self.plan:
            raise changed(self.source, self.output, is_finished=False)
        return True

    def begin(self) -> None:
        """Record in the output that this plan has begun; if it had begun before, delete its half-written files.

        Raises:
            ValueError: another plan has begun there.
        """
        if self.check_begun():
            storage.delete_unfinished(self.output)
            storage.delete_unfinished(self._uri())
            return
        storage.write_json(self._uri(_BEGUN), {"plan": self.plan, "config": self.settings}, _FORMAT_VERSION)

    def num_finished(self) -> int:
        """Count the parts that an interrupted job has finished, without checking their bytes."""
        return sum(storage.name(uri) != _BEGUN for uri in storage.list_files(self._uri()))

    def finished(self, number: int, file_type: type[FileT]) -> PartReport[FileT] | None:
        """Return the report of part ``number`` if it belongs to this plan and the part's file is whole."""
        uri = self._uri(f"{number:05d}.json")
        if not storage.exists(uri):
            return None
        entry = storage.read_json(uri)
        if entry["plan"] != self.plan:
            return None
        file = None
        if entry["file"] is not None:
            file = TypeAdapter(file_type).validate_python(entry["file"])
            part = storage.join(self.output, file.file)
            if not storage.exists(part) or storage.sha256_file(part) != file.sha256:
                return None
        rejects = tuple(Reject(*reject) for reject in entry["rejects"])
        return PartReport(file, rejects, tuple(Warned(*warned) for warned in entry["warnings"]))

    def finish(self, number: int, report: PartReport[FileT]) -> None:
        """Write the report of part ``number`` atomically: from then on the part counts as finished."""
        storage.write_bytes(self._uri(f"{number:05d}.json"), json.dumps({"plan": self.plan, **asdict(report)}).encode())

    def delete(self) -> None:
        """Delete all reports, and half-written files of killed processes."""
        delete_reports(self.output, self.folder)

    def _uri(self, *names: str) -> str:
        return storage.join(self.output, self.folder, *names)


def delete_reports(output: str, folder: str) -> None:
    """Delete the reports in a ledger's folder, and half-written files of killed processes."""
    storage.delete(storage.join(output, folder))
    storage.delete_unfinished(output)


def refuse_occupied(output: str) -> None:
    """Refuse to begin in a folder in which a job has begun: the files of both would be mixed.

    Raises:
        ValueError: names the file that is found, and the kind of job that wrote it.
    """
    for mark, kind in _MARKS.items():
        if storage.exists(storage.join(output, mark)):
            raise ValueError(
                f"output={output} holds {mark}: it is {kind}, whose files would be mixed with others. Give another "
                "--output"
            )


def refuse_difference(output: str, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Refuse an output that was written or begun with other settings.

    Raises:
        ValueError: names the settings that differ, with both values.
    """
    if differences := _differences(before, now):
        raise ValueError(
            f"{output} was made with other settings ({'; '.join(differences)}): "
            "name another output, or delete that folder to make it again"
        )


def _differences(before: Mapping[str, Any], now: Mapping[str, Any], group: str = "", absent: Any = None) -> list[str]:
    """Describe the settings that differ, those of a group one by one; a group may be missing if none of it is set."""
    lines = []
    for name in sorted(before.keys() | now.keys()):
        there, asked = before.get(name, absent), now.get(name, absent)
        if isinstance(there, Mapping) or isinstance(asked, Mapping):
            lines += _differences(there or {}, asked or {}, f"{group}{name}.", absent="")
        elif there != asked:
            lines.append(f"{group}{name}: {_shown(there)} there, {_shown(asked)} asked for")
    return lines


def _shown(value: Any) -> str:
    return "nothing" if value == "" else str(value)


def changed(source: str, output: str, is_finished: bool = True) -> ValueError:
    """Make the error that refuses an output made or begun from other clips than ``source`` has now.

    Args:
        source: name of the source.
        output: folder of the output.
        is_finished: the output has its manifest.
    """
    found = f"the clips of {source} have changed since {output} was begun, or this version lists them in another way"
    remedy = "delete that folder, or name another output"
    if is_finished:
        remedy = f"it is finished and can be used as it is; to make it again from the present source, {remedy}"
    return ValueError(f"{found}: {remedy}")
