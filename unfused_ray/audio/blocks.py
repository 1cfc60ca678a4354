"""Blocks of decoded samples, and parts of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from unfused_ray.audio.errors import Warn, WarningReason

_BLOCK_SECONDS = 10
_BLOCK_VALUES = 1 << 22  # float32 values of all channels: 16 MB, whatever a header claims
RATES = (1_000, 1_000_000)
"""Lowest and highest rate in Hz. Below, a second of audio would become minutes of samples; no audio is sampled
above."""
MAX_PEAK = 10.0
"""Largest magnitude of float samples, 20 dB above full scale: decoders and mixes may exceed full scale a little."""
TOLERANCE = 0.02
"""Share of a length by which header and content may differ without a warning."""
_SHORT_TAG = 512  # bytes: an ID3v1 tag with the bytes that precede it


class Block(NamedTuple):
    """Some of the samples of a file."""

    wave: np.ndarray
    """``(samples, channels)`` float32; full scale is 1."""
    rate: int
    """Sample rate in Hz. The rate and the number of channels may change within a file."""


def block_length(rate: int, channels: int) -> int:
    """Return the largest number of samples for a block."""
    return max(1, min(_BLOCK_SECONDS * rate, _BLOCK_VALUES // channels))


def skip(blocks: Iterator[Block], seconds: float) -> Iterator[Block]:
    """Leave out the first ``seconds``."""
    for (wave, rate), left in counted_down(blocks, seconds):
        if left < len(wave):
            yield Block(wave[max(0, left) :], rate)


def counted_down(blocks: Iterator[Block], seconds: float) -> Iterator[tuple[Block, int]]:
    """Yield each block with the number of its samples before second ``seconds``; negative for blocks after it."""
    left, last_rate = 0, 0
    for block in blocks:
        if block.rate != last_rate:
            left = round(left / last_rate * block.rate if last_rate else seconds * block.rate)
            last_rate = block.rate
        yield block, left
        left -= len(block.wave)


def warn_of_length(claimed: float, seconds: float, padding: float, warn: Warn) -> None:
    """Warn if the length in a header differs from the content's by more than 2 % and by more than ``padding``
    seconds."""
    if abs(claimed - seconds) > max(TOLERANCE * max(claimed, seconds), padding):
        reason: WarningReason = "cut short" if claimed > seconds else "longer than its header"
        warn(reason, f"its header says {claimed:.2f} s, it holds {seconds:.2f} s")


def is_much(unknown: int, size: int) -> bool:
    """Tell whether ``unknown`` bytes of no known kind, in a file of ``size`` bytes, may hold audio."""
    return unknown > max(TOLERANCE * size, _SHORT_TAG)
