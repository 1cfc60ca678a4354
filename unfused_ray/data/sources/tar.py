"""Lists the clips of WebDataset tars."""

from __future__ import annotations

import io
import json
import tarfile
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from unfused_ray import storage
from unfused_ray.audio.decode import AudioError
from unfused_ray.audio.formats import FIRST_BYTES, SUFFIXES, begins_as_audio, stand_in
from unfused_ray.config import ColumnsConfig
from unfused_ray.data.parts.rejects import Reject
from unfused_ray.data.sources.columns import BY_NAME, Columns, describe
from unfused_ray.data.sources.fetch import as_reason
from unfused_ray.data.sources.items import Listing
from unfused_ray.data.sources.labels import label_name
from unfused_ray.data.sources.notes import Note, Notes
from unfused_ray.data.sources.sniff import hidden_as, is_worth_a_look, may_hold_out, suffix

_TAR_BUFFER_BYTES = 1 << 20  # one request to an object store fetches many headers
_MAX_METADATA_BYTES = 1 << 20
_MAX_READ_BYTES = 2 << 20  # limit of one read by tarfile, which reads headers that may claim any size
_COMPANIONS = (".txt", ".cls", ".json")
_REPLACED = Note("skipped on purpose", "members replaced by a later one of the name", "files")
_DAMAGED_TAR = (tarfile.TarError, ValueError, OverflowError, RecursionError)  # tarfile's exceptions on damaged headers


def list_tar(uri: str, split: str = "", columns: ColumnsConfig = BY_NAME, folder: str = "") -> Listing:
    """List the clips of a WebDataset tar, and read their small ``.json``, ``.cls`` and ``.txt`` companions.

    A key is a member's name up to its *last* dot (AudioSet's keys hold dots). Its companions have the same name up to
    their last dot, or, by WebDataset's rule, up to the first dot of the base name (``0.left.flac`` and ``0.json``). If
    a clip that is a part of a sample has a companion of its own, another part's companion (``0.right.json``) is shared
    with no clip. A clip that is the whole sample (``0.flac``) has all of the sample's companions (``0.txt``,
    ``0.meta.json``). Nothing is extracted and no link is followed, so names such as ``../x`` are only names. In a
    damaged tar, the clips before the damage are listed.

    Args:
        uri: URI of the tar.
        split: split of clips whose companions give none.
        columns: the configured fields of the JSON.
        folder: folder of the source; unused, because the clips lie in the tar alone.

    Raises:
        ValueError: no JSON has a configured field.
        OSError: an object store does not answer.
    """
    members = _Members()
    try:
        with as_reason(uri), storage.open_input(uri) as file, _TarReader(file, _TAR_BUFFER_BYTES) as buffered:
            if found := stand_in(buffered.read(tarfile.BLOCKSIZE)):
                raise AudioError("unreadable", f"tar file: {found}")
            buffered.seek(0)
            try:
                members.read(buffered)
            except _DAMAGED_TAR as error:
                raise AudioError("unreadable", f"tar file: {error}") from error
    except AudioError as error:
        members.rejects.append(Reject(storage.name(uri), error.reason, error.detail))
    clips = members.good_clips()
    records, notes = members.records(clips)
    rows: list[dict[str, Any]] = []
    if clips:
        joined = Counter() if columns.label else _join_label_fields(records)
        names = list(dict.fromkeys(name for record in records for name in record))
        rows, more = describe(records, Columns.of(names, columns, uri), [], split)
        notes += more + joined
    return Listing.from_rows(
        [{**clip, **row, "uri": uri} for clip, row in zip(clips, rows, strict=True)], members.rejects, notes
    )


class _Members:
    """The clips of a tar by member, the fields of companions by name without suffix, and the rejects."""

    def __init__(self) -> None:
        self.clips: dict[str, dict[str, Any]] = {}
        self.rejects: list[Reject] = []
        self._companions: dict[str, dict[str, dict[str, Any]]] = {}
        self._broken: dict[str, dict[str, str]] = {}
        self._may_hold_out: dict[str, str] = {}
        self._skipped: Notes = Counter()

    def read(self, buffered: _TarReader) -> None:
        """Read the headers of all members, and the companions."""
        tar = tarfile.open(fileobj=buffered, mode="r:")  # noqa: SIM115 - it does not own the file
        for member in tar:
            buffered.refuse_outside(member, tar)
            if member.isreg():
                self._add(member, tar)
            elif not member.isdir():
                self._skipped[Note("skipped on purpose", "links and devices in tars", "members")] += 1
        buffered.seek(tar.offset)  # tarfile takes a broken header for the end; the true end is a block of zeros
        if buffered.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise tarfile.ReadError(f"damaged from byte {tar.offset}")

    def _add(self, member: tarfile.TarInfo, tar: tarfile.TarFile) -> None:
        name = member.name.removeprefix("./")
        ending = suffix(name)
        if not name:
            raise tarfile.ReadError("a member has no name")
        key = name[: len(name) - len(ending)]
        if may_hold_out(name) and not hidden_as(name):
            self._may_hold_out[key] = name
        if hidden := hidden_as(name):
            self._skipped[Note("skipped on purpose", hidden, "files")] += 1
        elif ending in _COMPANIONS and member.size <= _MAX_METADATA_BYTES:
            self._add_companion(key, ending, _content(member, tar))
        elif ending in _COMPANIONS:
            text = f"companions of more than {_MAX_METADATA_BYTES:,} bytes were not read"
            self._skipped[Note("look again", text, "files")] += 1
        elif ending not in SUFFIXES and not self._begins_as_audio(name, member, tar):
            self._skipped[Note("not read", ending or "no suffix", "files")] += 1
        elif member.issparse():
            self.rejects.append(Reject(key, "unreadable", "it is sparse: its bytes do not lie in the tar as they are"))
        else:
            if member.name in self.clips:
                self._skipped[_REPLACED] += 1
            self.clips[member.name] = {"key": key, "offset": member.offset_data, "num_bytes": member.size}

    def _add_companion(self, key: str, ending: str, content: bytes) -> None:
        """Read a companion; like a clip, it replaces an earlier one of the name, as ``tar --update`` appends it."""
        for earlier in (self._companions, self._broken):
            if ending in earlier.get(key, ()):
                self._skipped[_REPLACED] += 1
                del earlier[key][ending]
            if not earlier.get(key, True):
                del earlier[key]
        try:
            self._companions.setdefault(key, {})[ending] = _companion(ending, content)
        except (ValueError, RecursionError) as error:
            self._broken.setdefault(key, {})[ending] = f"its {ending}: {error}"

    @staticmethod
    def _begins_as_audio(name: str, member: tarfile.TarInfo, tar: tarfile.TarFile) -> bool:
        return is_worth_a_look(name) and begins_as_audio(_content(member, tar, FIRST_BYTES))

    def good_clips(self) -> list[dict[str, Any]]:
        """Return the clips whose companions can be read; others, and broken companions without a clip, become
        rejects."""
        details = {key: "; ".join(of_key.values()) for key, of_key in self._broken.items()}
        broken = dict(details)
        good = []
        for clip in self.clips.values():
            if name := next((name for name in (clip["key"], _sample(clip["key"])) if name in details), None):
                broken.pop(name, None)
                self.rejects.append(Reject(clip["key"], "unreadable", details[name]))
            else:
                good.append(clip)
        self.rejects += [Reject(key, "unreadable", detail) for key, detail in broken.items()]
        return good

    def records(self, clips: Sequence[Mapping[str, Any]]) -> tuple[list[dict[str, Any]], Notes]:
        """Return the fields of each clip's companions, and notes on companions without a clip and on other files."""
        keys = {clip["key"] for clip in self.clips.values()}
        samples = {_sample(key) for key in keys}
        owned = {key for key in keys if key in self._companions or key in self._broken}
        of_one_clip = {_sample(key) for key in owned if key != _sample(key)}  # a whole sample may have several
        by_sample: dict[str, list[str]] = {}
        lost = 0
        for key in self._companions.keys() - keys:
            sample = _sample(key)
            if sample in samples and (key == sample or sample not in of_one_clip):
                by_sample.setdefault(sample, []).append(key)
            else:
                lost += 1
        notes = Counter(self._skipped)
        for key, name in self._may_hold_out.items():
            if _sample(key) not in samples:
                notes[Note("not read", name, held_out=True)] += 1
        if lost:
            text = "companions (.json, .cls, .txt) without a clip of their name, or of that name up to the first dot"
            notes[Note("look again", text, "files")] += lost
        records = []
        for clip in clips:
            of_sample = sorted(by_sample.get(_sample(clip["key"]), []))
            found = [self._companions[key] for key in of_sample]
            record: dict[str, Any] = {}
            for companions in (*found, self._companions.get(clip["key"], {})):
                for ending in _COMPANIONS:
                    record |= companions.get(ending, {})
            records.append(record)
        return records, notes


def _join_label_fields(records: Sequence[dict[str, Any]]) -> Notes:
    """Put all labels into one field: some clips of a tar may have them in ``labels``, others in a ``.cls`` file.

    Returns:
        Notes on the fields whose values were put into it.
    """
    first = label_name(dict.fromkeys(name for record in records for name in record))
    joined: Notes = Counter()
    for record in records:
        own = label_name(record)
        if first and own and own != first:
            record[first] = record.pop(own)
            joined[Note("columns used", f"labels ← {own}, where {first} is missing", "clips")] += 1
    return joined


def _sample(key: str) -> str:
    """Return the name of a sample by WebDataset's rule: up to the first dot of the base name."""
    folder, slash, name = key.rpartition("/")
    return f"{folder}{slash}{name.partition('.')[0]}"


class _TarReader(io.BufferedReader):
    """Reads a tar for ``tarfile``, which trusts every size in a header; refuses sizes that cannot be true."""

    raw: pa.NativeFile

    def read(self, size: int | None = -1) -> bytes:
        """Read ``size`` bytes.

        Raises:
            tarfile.ReadError: no header has this many bytes.
        """
        if size is None or not 0 <= size <= _MAX_READ_BYTES:
            raise tarfile.ReadError(f"a header claims {size} bytes")
        return super().read(size)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to ``offset``.

        Raises:
            tarfile.ReadError: it lies outside of the file.
        """
        if whence == io.SEEK_SET and not 0 <= offset <= self.raw.size():
            raise tarfile.ReadError(f"byte {offset} lies outside of the file, which is cut off or damaged")
        return super().seek(offset, whence)

    def refuse_outside(self, member: tarfile.TarInfo, tar: tarfile.TarFile) -> None:
        """Refuse a member that does not end within the file, or after which ``tarfile`` would seek backwards.

        Raises:
            tarfile.ReadError: names it.
        """
        end = member.offset_data + (member.size if member.isreg() and not member.issparse() else 0)
        if not (0 <= member.offset_data <= end <= self.raw.size() and tar.offset >= member.offset_data):
            raise tarfile.ReadError(f"{member.name!r}, of {member.size} bytes, does not end within the file")


def _content(member: tarfile.TarInfo, tar: tarfile.TarFile, num_bytes: int = _MAX_METADATA_BYTES) -> bytes:
    file = tar.extractfile(member)
    assert file is not None  # it is a regular file
    return file.read(num_bytes)


def _companion(ending: str, content: bytes) -> dict[str, Any]:
    """Read the fields of a clip's companion in a tar; plain text is the clip's label."""
    text = content.decode("utf-8-sig")  # Windows writes a byte order mark first
    if ending != ".json":
        return {ending: [text.strip()]}
    record = json.loads(text)
    if not isinstance(record, dict):
        raise ValueError(f"JSON of an object is expected, this is {type(record).__name__}")
    return record
