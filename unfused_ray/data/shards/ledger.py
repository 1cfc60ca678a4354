"""What a job has finished of its output, part by part: so the same command goes on after an interruption."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from unfused_ray import storage

_BEGUN = "plan.json"
_FORMAT_VERSION = 1
"""Version of the plan, and of the reports that name it."""


@dataclass(frozen=True)
class Ledger:
    """A report of every finished part, in a folder of the output that is there until the manifest says it all.

    Several processes write to it, each the reports of its own parts.
    """

    output: str
    folder: str
    """Name of the reports' folder."""
    source: str
    """What the parts are made of, to tell a person."""
    settings: Mapping[str, Any]
    """What a person decided about the bytes; JSON."""
    plan: str
    """Digest of all that decides the bytes: of the settings, and of the source's contents as far as they are known."""

    def check_begun(self) -> bool:
        """Whether an interrupted job has begun this plan in the output.

        Raises:
            ValueError: what was begun there is another plan.
        """
        uri = self._uri(_BEGUN)
        if not storage.exists(uri):
            return False
        begun = storage.read_json(uri, _FORMAT_VERSION, f"delete {self.output}, or name another output")
        refuse_difference(self.output, begun["config"], self.settings)
        if begun["plan"] != self.plan:
            raise changed(self.source, self.output)
        return True

    def begin(self) -> None:
        """Note in the output that this plan is begun; where it was already, clear what the interruption left.

        Raises:
            ValueError: another plan has begun there.
        """
        if self.check_begun():
            storage.delete_unfinished(self.output)
            storage.delete_unfinished(self._uri())
            return
        storage.write_json(self._uri(_BEGUN), {"plan": self.plan, "config": self.settings}, _FORMAT_VERSION)

    def num_finished(self) -> int:
        """Parts that an interrupted job has left finished; their bytes are not checked."""
        return sum(storage.name(uri) != _BEGUN for uri in storage.list_files(self._uri()))

    def finished(self, number: int) -> dict[str, Any] | None:
        """The report of part ``number``, where it is of this plan and the part's file is whole."""
        uri = self._uri(f"{number:05d}.json")
        if not storage.exists(uri):
            return None
        entry = storage.read_json(uri)
        if entry["plan"] != self.plan:
            return None
        if entry["file"] is not None:
            part = storage.join(self.output, entry["file"])
            if not storage.exists(part) or storage.sha256_file(part) != entry["sha256"]:
                return None
        return entry["report"]

    def finish(self, number: int, file: str | None, sha256: str | None, report: Mapping[str, Any]) -> None:
        """Write the report of part ``number``, atomically: from then on the part counts as finished.

        Args:
            number: of the part.
            file: its name in the output; None where there is none.
            sha256: of that file.
            report: what is worth knowing of it; JSON.
        """
        entry = {"plan": self.plan, "file": file, "sha256": sha256, "report": report}
        storage.write_bytes(self._uri(f"{number:05d}.json"), json.dumps(entry).encode())

    def delete(self) -> None:
        """Remove all reports, and what killed processes of an interrupted job wrote after :meth:`begin`."""
        delete_reports(self.output, self.folder)

    def _uri(self, *names: str) -> str:
        return storage.join(self.output, self.folder, *names)


def delete_reports(output: str, folder: str) -> None:
    """What :meth:`Ledger.delete` does, where no ledger is made any more."""
    storage.delete(storage.join(output, folder))
    storage.delete_unfinished(output)


def refuse_difference(output: str, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Refuse an output that was written, or begun, with other settings.

    Raises:
        ValueError: names the settings that differ, with both values.
    """
    differences = [
        f"{name}: {before.get(name)} there, {now.get(name)} asked for"
        for name in sorted(before.keys() | now.keys())
        if before.get(name) != now.get(name)
    ]
    if differences:
        raise ValueError(
            f"{output} was made differently ({'; '.join(differences)}): "
            "name another output, or delete that folder to make it again"
        )


def changed(source: str, output: str) -> ValueError:
    """The error that refuses an output which was made, or begun, of other clips than ``source`` now holds."""
    return ValueError(
        f"the clips of {source} have changed since {output} was begun: delete that folder, or name another output"
    )
