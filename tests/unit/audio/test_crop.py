"""Short clips are completed by one of two rules; longer clips stay as they are."""

from __future__ import annotations

import numpy as np
import pytest

from unfused_ray.audio.crop import complete
from unfused_ray.config import ShortClips

WAVE = np.arange(1, 4, dtype=np.int16)


@pytest.mark.parametrize(
    ("rule", "length", "expected"),
    [
        ("tile", 8, [1, 2, 3, 1, 2, 3, 1, 2]),
        ("centre", 8, [0, 0, 1, 2, 3, 0, 0, 0]),
        ("centre", 5, [0, 1, 2, 3, 0]),
        ("tile", 3, [1, 2, 3]),
        ("centre", 3, [1, 2, 3]),
        ("tile", 2, [1, 2, 3]),
        ("centre", 2, [1, 2, 3]),
    ],
)
def test_a_short_clip_is_completed_and_a_longer_one_stays(rule: ShortClips, length: int, expected: list[int]) -> None:
    completed = complete(WAVE, length, rule)
    assert completed.tolist() == expected
    assert completed.dtype == WAVE.dtype
