"""Stateless randomness: every draw is a pure function of a seed, a purpose and the numbers that name the draw.

There is no generator state to save, and a draw never depends on what else was drawn: not on the batch, not on the
worker, not on the order. The mixing function is the finaliser of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014).
"""

from __future__ import annotations

import zlib
from typing import TypeVar

import numpy as np

_Word = TypeVar("_Word", int, np.ndarray)

_MASK = 2**64 - 1
_GOLDEN = 0x9E3779B97F4A7C15


def uniform(seed: int, purpose: str, epoch: int, ids: np.ndarray) -> np.ndarray:
    """Draw one number per id, uniform in [0, 1), for this seed, purpose and epoch.

    ``ids``: (N,) non-negative integers, usually clip_ids. Returns (N,) float64 with 53 random bits.
    """
    words = ids.astype(np.uint64)
    hashed = _mix(_mix(words + _GOLDEN) ^ derived_seed(seed, purpose, epoch))
    return (hashed >> 11) * 2.0**-53


def generator(seed: int, purpose: str, *key: int) -> np.random.Generator:
    """Make a generator for several draws that belong together, such as those of one view of one block.

    ``key``: non-negative integers, e.g. epoch, block and view. Equal arguments give equal streams; different arguments
    give unrelated streams.
    """
    word = derived_seed(seed, purpose, *key)
    return np.random.Generator(np.random.Philox(key=word | _mix(word ^ _GOLDEN) << 64))


def derived_seed(seed: int, purpose: str, *key: int) -> int:
    """Derive a seed below 2^64 for another generator, such as ``torch.manual_seed`` before a block's dropout.

    ``key``: non-negative integers. Unlike with ``seed + step``, no two purposes or steps get related seeds.
    """
    state = _mix(zlib.crc32(purpose.encode()) + _GOLDEN)
    for number in (seed, *key):
        state = _mix((state ^ _mix((number + _GOLDEN) & _MASK)) + _GOLDEN & _MASK)
    return state


def crop_starts(
    seed: int, purpose: str, epoch: int, clip_ids: np.ndarray, num_samples: np.ndarray, crop_samples: int
) -> np.ndarray:
    """Draw the first sample of each clip's crop.

    ``clip_ids``, ``num_samples``: (N,) integers. Returns (N,) int64, uniform over the positions at which the crop fits
    into the clip; 0 if the clip is no longer than the crop.
    """
    positions = np.maximum(num_samples.astype(np.int64) - crop_samples, 0) + 1
    return (uniform(seed, purpose, epoch, clip_ids) * positions).astype(np.int64)


def _mix(word: _Word) -> _Word:
    """Mix 64-bit words bijectively: every input bit flips each output bit with probability one half."""
    word = (word ^ (word >> 30)) * 0xBF58476D1CE4E5B9 & _MASK
    word = (word ^ (word >> 27)) * 0x94D049BB133111EB & _MASK
    return word ^ (word >> 31)
