"""Lists the clips of WebDataset tars."""

from __future__ import annotations

import io
import json
import tarfile
from typing import Any

import pyarrow as pa

from unfused_ray import storage
from unfused_ray.audio.decode import AudioError
from unfused_ray.data.parts.rejects import Reject
from unfused_ray.data.sources.fetch import as_reason
from unfused_ray.data.sources.find import AUDIO_SUFFIXES
from unfused_ray.data.sources.items import Listing
from unfused_ray.data.sources.labels import label_name, to_labels

_TAR_BUFFER_BYTES = 1 << 20  # one request to an object store brings many headers
_MAX_METADATA_BYTES = 1 << 20
_MAX_READ_BYTES = 2 << 20  # of tarfile at a time: what is read is headers, which may claim to be of any size
_DAMAGED_TAR = (tarfile.TarError, ValueError, OverflowError, RecursionError)  # what tarfile raises on damaged headers


def list_tar(uri: str) -> Listing:
    """List the clips of a WebDataset tar, and read their small ``.json``, ``.txt`` and ``.cls`` companions.

    A key is a member's name up to its *last* dot (AudioSet's keys hold dots). Nothing is extracted and no link is
    followed, so names such as ``../x`` are only names. Of a damaged tar, the clips before the damage are listed.

    Raises:
        OSError: an object store does not answer.
    """
    clips: dict[str, dict[str, Any]] = {}
    labels: dict[str, dict[str, Any]] = {}
    rejects: list[Reject] = []
    try:
        with as_reason(uri), storage.open_input(uri) as file, _TarReader(file, _TAR_BUFFER_BYTES) as buffered:
            try:
                _list_members(buffered, clips, labels, rejects)
            except _DAMAGED_TAR as error:
                raise AudioError("unreadable", f"tar file: {error}") from error
    except AudioError as error:
        rejects.append(Reject(storage.name(uri), error.reason, error.detail))
    damaged = {reject.key for reject in rejects}
    rows = [
        {**clip, **labels.get(clip["key"], {}), "uri": uri} for clip in clips.values() if clip["key"] not in damaged
    ]
    return Listing.from_rows(rows, rejects)


def _list_members(
    buffered: _TarReader, clips: dict[str, dict[str, Any]], labels: dict[str, dict[str, Any]], rejects: list[Reject]
) -> None:
    """Add a tar's clips by name, its companions' fields by key, and its rejects."""
    tar = tarfile.open(fileobj=buffered, mode="r:")  # noqa: SIM115 - it does not own the file
    for member in tar:
        buffered.refuse_outside(member, tar)
        key, dot, suffix = member.name.removeprefix("./").rpartition(".")
        if not member.isreg() or not dot:
            continue
        if f".{suffix.lower()}" in AUDIO_SUFFIXES and member.issparse():
            rejects.append(Reject(key, "unreadable", "it is sparse: its bytes do not lie in the tar as they are"))
        elif f".{suffix.lower()}" in AUDIO_SUFFIXES:
            clips[member.name] = {"key": key, "offset": member.offset_data, "num_bytes": member.size}
        elif suffix in ("json", "txt", "cls") and member.size <= _MAX_METADATA_BYTES:
            content = tar.extractfile(member)
            assert content is not None  # a regular file
            try:
                labels.setdefault(key, {}).update(_companion(suffix, content.read()))
            except (ValueError, RecursionError) as error:
                rejects.append(Reject(key, "unreadable", f"its .{suffix}: {error}"))
    buffered.seek(tar.offset)  # tarfile takes a broken header for the end, which is a block of zeros
    if buffered.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise tarfile.ReadError(f"damaged from byte {tar.offset}")


class _TarReader(io.BufferedReader):
    """Reads a tar for ``tarfile``, which believes every size in a header; refuses those that cannot be true."""

    raw: pa.NativeFile

    def read(self, size: int | None = -1) -> bytes:
        """Read ``size`` bytes.

        Raises:
            tarfile.ReadError: no header has so many.
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
        """Refuse a member that does not end within the file, or after which ``tarfile`` would go backwards.

        Raises:
            tarfile.ReadError: names it.
        """
        end = member.offset_data + (member.size if member.isreg() and not member.issparse() else 0)
        if not (0 <= member.offset_data <= end <= self.raw.size() and tar.offset >= member.offset_data):
            raise tarfile.ReadError(f"{member.name!r}, of {member.size} bytes, does not end within the file")


def _companion(suffix: str, content: bytes) -> dict[str, Any]:
    """Read labels, split and group out of a file beside a clip in a tar."""
    text = content.decode()
    if suffix != "json":
        return {"labels": [text.strip()]}
    record = json.loads(text)
    if not isinstance(record, dict):
        raise ValueError(f"JSON of an object is expected, this is {type(record).__name__}")
    name = label_name(record)
    found = {"labels": to_labels(name, record[name])} if name else {}
    return found | {name: str(record[name]) for name in ("split", "group") if record.get(name)}
