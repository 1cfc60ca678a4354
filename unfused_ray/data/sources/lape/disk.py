"""Reads a data set in the layout of its publisher: its lists and its audio files."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from unfused_ray import storage
from unfused_ray.audio.formats import SUFFIXES
from unfused_ray.data.parts.rejects import Reject
from unfused_ray.data.sources.items import Listing
from unfused_ray.data.sources.notes import first_of


class Entry(NamedTuple):
    """A clip of a task."""

    path: str
    """Path of its file, relative to the folder that holds the data set."""
    label: str
    split: str
    """train, valid, test, ``test-<part>`` if parts of the test clips are also reported by themselves, or fold1, fold2
    …"""
    group: str = ""
    """Group of the clip, such as its speaker; clips of one group stay in one split. "" if the clip stands alone."""
    start: float = 0.0
    """Start of the clip in its file, in seconds."""
    seconds: float | None = None
    """Length of the clip in seconds; None if it lasts to the end of the file."""

    @property
    def key(self) -> str:
        """The path; for a clip that is a part of its file, followed by the second at which it starts."""
        return self.path if self.seconds is None else f"{self.path}@{self.start:.6f}"


@dataclass(frozen=True)
class Disk:
    """A folder that holds a data set in the layout of its publisher.

    Args:
        root: path or URI of that folder.
        name: name of the data set in messages.
        origin: address to download it from, in messages.
        requires: paths, relative to ``root``, of files and folders that must be there.
    """

    root: str
    name: str
    origin: str
    requires: tuple[str, ...]

    @classmethod
    def at(cls, root: str, name: str, origin: str, requires: tuple[str, ...]) -> Disk:
        """Return the data set in ``root``, which may also be the data set's own folder."""
        own_folders = {path.partition("/")[0] for path in requires}
        return cls(storage.parent(root) if storage.name(root) in own_folders else root, name, origin, requires)

    def missing(self) -> list[str]:
        """List the required files and folders that are not there."""
        return [path for path in self.requires if not storage.exists(self.uri(path))]

    def check(self) -> None:
        """Refuse an incomplete data set.

        Raises:
            FileNotFoundError: names the missing files, their folder, and the address to download them from.
        """
        if missing := self.missing():
            raise FileNotFoundError(
                f"{self.name} is incomplete in {self.root}: {len(missing)} of {len(self.requires)} files and folders "
                f"of its publisher's layout are missing ({first_of(missing)}). Get it from {self.origin}, extract "
                "its archives, and name the folder that holds the extracted files"
            )

    def uri(self, path: str) -> str:
        """Return the URI of a path relative to the root."""
        return storage.join(self.root, path)

    def text(self, path: str, encoding: str = "utf-8-sig") -> str:
        """Read a text file.

        Raises:
            ValueError: the file is not in this encoding.
        """
        try:
            return storage.read_bytes(self.uri(path)).decode(encoding)
        except UnicodeDecodeError as error:
            raise self.damaged(path, f"it is no {encoding} text ({error})") from error

    def lines(self, path: str) -> list[str]:
        """Read the lines of a text file, without empty ones."""
        return [line.strip() for line in self.text(path).splitlines() if line.strip()]

    def rows(self, path: str, columns: Sequence[str]) -> list[dict[str, str]]:
        """Read the rows of a CSV file.

        Raises:
            ValueError: a column is missing, or has no value in some row.
        """
        reader = csv.DictReader(io.StringIO(self.text(path), newline=""))
        found = list(reader.fieldnames or [])
        if lacking := [column for column in columns if column not in found]:
            raise self.damaged(path, f"its columns are {', '.join(found)}, without {', '.join(lacking)}")
        rows = list(reader)
        for number, row in enumerate(rows, start=1):
            if empty := [column for column in columns if not row[column]]:
                raise self.damaged(path, f"its row {number} has no {', '.join(empty)}")
        return rows

    def audio(self, folder: str) -> dict[str, str]:
        """List the URIs of the audio files in a folder, at any depth, by their paths relative to the root."""
        uris = storage.list_files(self.uri(folder), recursive=True)
        return {
            storage.relative(uri, self.root): uri
            for uri in uris
            if storage.name(uri).lower().endswith(SUFFIXES) and not storage.name(uri).startswith(".")
        }

    def damaged(self, path: str, what: str) -> ValueError:
        """Make the error that refuses a file of the data set which differs from the publisher's layout."""
        return ValueError(f"{self.uri(path)} is not as in {self.name}: {what}. Get it again from {self.origin}")

    def listing(
        self, entries: Iterable[Entry], files: Mapping[str, str], named_by: str, others: Iterable[Reject] = ()
    ) -> Listing:
        """List the clips that have a file; set aside the others.

        An entry without a file is set aside as missing, an entry that was named before as a duplicate, and a file that
        no entry names as unlisted.

        Args:
            entries: the task's clips.
            files: URIs of the files on the disk, by path.
            named_by: name, in messages, of the list that names the clips.
            others: files that were set aside before.

        Raises:
            FileNotFoundError: more than half of the entries' files are missing.
        """
        rows: list[dict[str, Any]] = []
        rejects: list[Reject] = []
        missing: list[str] = []
        keys: set[str] = set()
        named: set[str] = set()
        for entry in entries:
            named.add(entry.path)
            if entry.key in keys:
                rejects.append(Reject(entry.key, "duplicate", f"{named_by} names it again, in split {entry.split}"))
            elif entry.path not in files:
                missing.append(entry.path)
            else:
                rows.append(_row(entry, files[entry.path]))
            keys.add(entry.key)
        if len(missing) > len(rows):
            raise FileNotFoundError(
                f"{self.name} is incomplete in {self.root}: {len(missing):,} of the {len(missing) + len(rows):,} files "
                f"that {named_by} names are missing ({first_of(missing)}). Get it from {self.origin}"
            )
        rejects += [Reject(path, "missing", f"{named_by} names it, and it is not there") for path in missing]
        unlisted = sorted(files.keys() - named)
        rejects += [Reject(path, "unlisted", f"{files[path]} is not named by {named_by}") for path in unlisted]
        return Listing.from_rows(rows, [*rejects, *others])


def _row(entry: Entry, uri: str) -> dict[str, Any]:
    place = {} if entry.seconds is None else {"start": entry.start, "seconds": entry.seconds}
    labels = {"labels": [entry.label], "split": entry.split, "group": entry.group}
    return {"key": entry.key, "uri": uri, **labels, **place}
