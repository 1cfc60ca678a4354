"""The map names as many groups as a reader can tell apart, and its projection keeps groups apart."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unfused_ray.figures.map import MAX_NAMED, by_class, project


@given(label_ids=st.lists(st.integers(-1, 29), min_size=1, max_size=80))
def test_the_most_common_labels_are_named_and_the_rest_is_not(label_ids: list[int]) -> None:
    names = [f"{29 - i:02d}" for i in range(30)]
    grouping = by_class("by label", np.array(label_ids), names)
    present = set(label_ids) - {-1}
    assert len(grouping.names) == min(len(present), MAX_NAMED)
    assert list(grouping.names) == sorted(grouping.names)
    assert ("most common" in grouping.title) == (len(present) > MAX_NAMED)
    for label, place in zip(label_ids, grouping.ids, strict=True):
        assert place == -1 or grouping.names[place] == names[label]
    counts = {label: label_ids.count(label) for label in present}
    named = [counts[label] for label in present if names[label] in grouping.names]
    unnamed = [counts[label] for label in present if names[label] not in grouping.names]
    assert max(unnamed, default=0) <= min(named, default=0)
    assert (grouping.ids >= 0).sum() == sum(named)


def test_projection_keeps_groups_apart_and_repeats() -> None:
    rng = np.random.default_rng(0)
    embeddings = np.concatenate([rng.normal(centre, 0.1, (30, 12)) for centre in np.eye(3, 12)])
    positions = project(embeddings)
    np.testing.assert_array_equal(positions, project(embeddings))
    distances = np.linalg.norm(positions[:, None] - positions[None], axis=-1) + 1e9 * np.eye(90)
    assert ((distances.argmin(axis=1) // 30) == np.arange(90) // 30).all()


@pytest.mark.parametrize(
    "embeddings",
    [np.zeros((40, 8)), np.ones((2, 8)), np.repeat(np.eye(2, 8), 20, axis=0), np.ones((40, 1)), np.zeros((0, 8))],
    ids=["dead", "two clips", "two directions", "one number", "none"],
)
def test_vectors_of_a_collapsed_network_have_no_map(embeddings: np.ndarray) -> None:
    """On some of these t-SNE crashed the whole process."""
    assert project(embeddings) is None
