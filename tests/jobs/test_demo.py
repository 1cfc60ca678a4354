"""What the demo trains is above random networks: a margin that does not depend on last bits."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.demo import PAIRS, prepare, run


@pytest.mark.usefixtures("ray_session", "alone")
def test_eight_epochs_are_above_random_networks(tmp_path: Path) -> None:
    found = run(tmp_path, prepare(tmp_path), seed=0, precision="float32", threads=1, epochs=8)
    assert len(found) == 2
    for margin in found:
        assert margin.difference.value > 0.01, margin


@pytest.mark.slow
@pytest.mark.usefixtures("ray_session", "alone")
@pytest.mark.parametrize(("seed", "precision"), [(0, "bfloat16"), (1, "float32"), (2, "bfloat16")])
def test_the_demo_is_above_random_networks_by_more_than_its_interval(seed: int, precision: str, tmp_path: Path) -> None:
    found = run(tmp_path, prepare(tmp_path), seed, precision, threads=0)
    assert len(found) == 2 * len(PAIRS)
    for margin in found:
        assert margin.difference.low > 0, margin
