"""Finds recordings that are in two splits of a prepared source, by the MD5 of the samples that FLAC stores."""

from __future__ import annotations

import base64
import hashlib
import logging
from collections import defaultdict
from collections.abc import Iterable, Iterator
from functools import lru_cache
from itertools import combinations

import numpy as np
import pyarrow as pa

from unfused_ray.data.shards.format import Manifest
from unfused_ray.data.shards.index import ClipIndex, read_unit, units_of
from unfused_ray.data.shards.summary import SharedClips

logger = logging.getLogger(__name__)

SILENT = 0
"""Recording number of clips that hold nothing but zeros: they are equal without being the same recording."""
_MD5 = slice(26, 34)  # half of the MD5 in a FLAC file's STREAMINFO, which libFLAC writes
_ORDER = ("test", "fold", "valid")


def recording_number(flac: bytes, is_silent: bool) -> int:
    """Return a number that clips with equal samples share."""
    return SILENT if is_silent else int.from_bytes(flac[_MD5], "little", signed=True)


def pack(numbers: Iterable[int]) -> str:
    """Encode recording numbers as text for JSON."""
    return base64.b64encode(np.fromiter(numbers, "<i8").tobytes()).decode()


def unpack(text: str) -> np.ndarray:
    """Decode the text of :func:`pack`: int64, ``(clips,)``."""
    return np.frombuffer(base64.b64decode(text), "<i8")


def shared_clips(manifest: Manifest) -> tuple[SharedClips, ...]:
    """Return the recordings in two splits of a whole source, from its summary, or from its shards if it has none."""
    if manifest.summary is not None:
        return manifest.summary.shared
    return find_shared(manifest, _read_numbers(manifest)) if len(manifest.clips_by_split) > 1 else ()


def find_shared(manifest: Manifest, numbers: Iterable[tuple[str, np.ndarray]]) -> tuple[SharedClips, ...]:
    """Find the recordings that are in two splits.

    Args:
        manifest: manifest of the source.
        numbers: for each shard in order, its split and its recording numbers.
    """
    of_splits: dict[str, list[np.ndarray]] = defaultdict(list)
    for split, of_part in numbers:
        of_splits[split].append(of_part)
    joined = {split: np.concatenate(arrays) for split, arrays in of_splits.items()}
    found = []
    for first, second in combinations(sorted(joined, key=_rank), 2):
        rows = np.flatnonzero(np.isin(joined[first], joined[second]) & (joined[first] != SILENT))
        if len(rows):
            row = int(np.flatnonzero(joined[second] == joined[first][rows[0]])[0])
            keys = _key(manifest, first, int(rows[0])), _key(manifest, second, row)
            found.append(SharedClips(first, second, len(rows), keys))
    return tuple(found)


def _rank(split: str) -> tuple[int, str]:
    """Rank held-out splits first."""
    return next((rank for rank, name in enumerate(_ORDER) if split.startswith(name)), len(_ORDER)), split


def _key(manifest: Manifest, split: str, row: int) -> str:
    return ClipIndex([manifest], [split]).column("key")[row]


def _read_numbers(manifest: Manifest) -> Iterator[tuple[str, np.ndarray]]:
    """Read the numbers of all clips from the shards; warn of an unreadable row group, whose clips count as silent."""
    for shard in manifest.shards:
        for unit in units_of(manifest, shard):
            try:
                table = read_unit(unit, ("audio", "num_samples"))
            except (pa.ArrowException, OSError) as error:
                logger.warning("a part of %s is not searched for recordings in two splits: %s", unit.uri, error)
                yield shard.split, np.full(unit.num_clips, SILENT)  # the clips behind keep their places
                continue
            yield shard.split, np.array([_read_number(*row) for row in zip(*table.columns, strict=True)], np.int64)


def _read_number(audio: pa.Scalar, num_samples: pa.Scalar) -> int:
    head = audio.as_buffer()[: _MD5.stop].to_pybytes()
    return recording_number(head, head[_MD5] == _md5_of_zeros(num_samples.as_py()))


@lru_cache(maxsize=1024)
def _md5_of_zeros(num_samples: int) -> bytes:
    return hashlib.md5(bytes(2 * num_samples), usedforsecurity=False).digest()[: _MD5.stop - _MD5.start]
