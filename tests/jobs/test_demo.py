"""The demo's networks are above random ones, by a margin that does not depend on last bits."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.demo import ROWS, prepare, run


@pytest.mark.usefixtures("ray_session")
def test_eight_epochs_find_more_neighbours_of_the_class_than_random_networks(tmp_path: Path) -> None:
    languages = prepare(tmp_path, ("languages",))  # the demo's margin comes from them, at half the time
    (margin,) = run(tmp_path, languages, seed=0, precision="auto", threads=1, epochs=8, random_seeds=3)
    assert margin.difference["neighbours"].low > 0, margin  # few-shot needs more than 8 of 28 epochs (docs/log.md)


@pytest.mark.slow
@pytest.mark.usefixtures("ray_session")
@pytest.mark.parametrize(("seed", "precision"), [(0, "bfloat16"), (1, "float32"), (2, "bfloat16")])
def test_the_demo_is_above_random_networks_by_more_than_its_interval(seed: int, precision: str, tmp_path: Path) -> None:
    found = run(tmp_path, prepare(tmp_path), seed, precision, threads=0)
    assert tuple(each.row for each in found) == ROWS
    for margin in found:
        for measure in ("headline", "neighbours", "few-shot"):
            assert margin.difference[measure].low > 0, margin
