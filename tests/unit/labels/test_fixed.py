"""Labels made before the run stay the same in every epoch, and every checkpoint holds them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from unfused_ray.clustering.assignment import write_assignment
from unfused_ray.clustering.pseudo_labels import of_classes
from unfused_ray.labels.fixed import Fixed


def written(folder: Path, classes: list[int]) -> str:
    write_assignment(str(folder), of_classes(np.array(classes)))
    return str(folder)


def test_they_are_the_same_in_every_epoch(tmp_path: Path) -> None:
    labels = Fixed(written(tmp_path / "labels", [0, 2, 1]))
    labels.restore(None, 3)
    for epoch in (3, 4, 9):
        assert labels.labels(epoch).labels[0].tolist() == [0, 2, 1]


def test_a_checkpoint_goes_on_with_the_labels_it_was_written_with(tmp_path: Path) -> None:
    labels = Fixed(written(tmp_path / "labels", [0, 2, 1]))
    labels.restore(None, 0)
    labels.save(str(tmp_path / "bank"))
    other = Fixed(written(tmp_path / "other", [1, 1, 0]))
    other.restore(str(tmp_path / "bank"), 5)
    assert other.labels(5).labels[0].tolist() == [0, 2, 1]


def test_nothing_can_be_pushed_or_asked_for_before_they_are_read(tmp_path: Path) -> None:
    labels = Fixed(str(tmp_path / "labels"))
    with pytest.raises(FileNotFoundError):
        labels.restore(None, 0)
    with pytest.raises(RuntimeError, match=r"call restore\(\) first"):
        labels.labels(0)
    with pytest.raises(RuntimeError, match="labels are fixed"):
        labels.push(np.zeros(1, np.int64), np.zeros((1, 2), np.float32))
