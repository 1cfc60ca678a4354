"""Reads the needed part of an SF2 soundfont: the samples that a preset uses, and their PCM.

Source: SoundFont Technical Specification 2.01.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

Zone: TypeAlias = tuple[int, int, int]
"""Number of a sample, and the lowest and highest key that play it."""
DRUMS = 128
"""Bank of the drum kits."""
_INSTRUMENT, _KEY_RANGE, _SAMPLE = 41, 43, 53  # generators
_COMPRESSED = 0x10  # sample type of SF3: Ogg Vorbis


@dataclass(frozen=True)
class Sample:
    """One recording of a soundfont."""

    name: str
    sample_rate: int
    pcm: np.ndarray
    """(samples,) int16, or the bytes of an Ogg file if ``is_compressed``."""
    is_compressed: bool
    digest: str = field(repr=False)


@dataclass(frozen=True)
class Preset:
    """One instrument or drum kit."""

    name: str
    zones: tuple[Zone, ...]


class SoundFont:
    """Presets and samples of a soundfont file.

    Args:
        path: file of SF2, or of SF3, whose samples are Ogg Vorbis.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._bytes = path.read_bytes()
        self._chunks: dict[bytes, tuple[int, int]] = {}
        self._find_chunks(0, len(self._bytes))

    @cached_property
    def samples(self) -> list[Sample]:
        """All samples, in the order of the file."""
        start = self._chunks[b"smpl"][0]
        found = []
        # The last record only marks the end.
        for name, begin, end, _loop, _loop_end, rate, _key, _tune, _link, kind in self._records(
            "shdr", "<20sIIIIIBbHH"
        )[:-1]:
            is_compressed = bool(kind & _COMPRESSED)
            width = 1 if is_compressed else 2  # SF3 counts bytes
            data = self._bytes[start + width * begin : start + width * max(begin, end)]
            pcm = np.frombuffer(data, "u1" if is_compressed else "<i2")
            found.append(Sample(_text(name), rate, pcm, is_compressed, hashlib.sha1(data).hexdigest()))
        return found

    @cached_property
    def presets(self) -> dict[tuple[int, int], Preset]:
        """Presets by (bank, program)."""
        headers = self._records("phdr", "<20sHHHIII")
        bags, generators = self._records("pbag", "<HH"), self._records("pgen", "<HH")
        found = {}
        for header, following in pairwise(headers):
            name, program, bank = header[:3]
            zones: list[Zone] = []
            for bag in range(header[3], following[3]):
                values = dict(generators[bags[bag][0] : bags[bag + 1][0]])
                if _INSTRUMENT in values:
                    low, high = _keys(values)
                    zones += [(n, max(low, a), min(high, b)) for n, a, b in self._instruments[values[_INSTRUMENT]]]
            found[bank, program] = Preset(_text(name), tuple(zones))
        return found

    def used(self, bank: int, program: int, key: int | None = None) -> frozenset[str]:
        """Return the digests of the samples of a preset, or of those that one key plays; empty if there is no
        preset."""
        preset = self.presets.get((bank, program))
        zones: Iterable[Zone] = preset.zones if preset else ()
        return frozenset(self.samples[n].digest for n, low, high in zones if key is None or low <= key <= high)

    @cached_property
    def _instruments(self) -> list[list[Zone]]:
        headers = self._records("inst", "<20sH")
        bags, generators = self._records("ibag", "<HH"), self._records("igen", "<HH")
        found = []
        for header, following in pairwise(headers):
            zones = []
            for bag in range(header[1], following[1]):
                values = dict(generators[bags[bag][0] : bags[bag + 1][0]])
                if _SAMPLE in values:
                    zones.append((values[_SAMPLE], *_keys(values)))
            found.append(zones)
        return found

    def _find_chunks(self, place: int, end: int) -> None:
        while place < end:
            tag, size = self._bytes[place : place + 4], struct.unpack("<I", self._bytes[place + 4 : place + 8])[0]
            if tag in (b"RIFF", b"LIST"):
                self._find_chunks(place + 12, place + 8 + size)
            else:
                self._chunks[tag] = (place + 8, size)
            place += 8 + size + (size & 1)

    def _records(self, tag: str, form: str) -> list[tuple[Any, ...]]:
        place, size = self._chunks[tag.encode()]
        return list(struct.iter_unpack(form, self._bytes[place : place + size]))


def _keys(generators: dict[int, int]) -> tuple[int, int]:
    value = generators.get(_KEY_RANGE, 127 << 8)
    return value & 0xFF, value >> 8


def _text(name: bytes) -> str:
    return name.split(b"\0")[0].decode("latin1")
