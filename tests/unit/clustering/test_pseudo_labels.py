"""Whitening and pseudo-labels: planted clusters are found, the best start wins, damaged clips have no label."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unfused_ray.audio import randomness
from unfused_ray.clustering.assignment import Assignment
from unfused_ray.clustering.health import normalized_mutual_information
from unfused_ray.clustering.kmeans import fit
from unfused_ray.clustering.pseudo_labels import agreement_with, cluster, of_classes, shuffled, whiten
from unfused_ray.clustering.row_blocks import RowBlocks
from unfused_ray.config import PseudoLabelConfig

NUM_PLANTED = 6


def planted(per_cluster: int = 20, dim: int = 12, spread: float = 0.05) -> tuple[np.ndarray, np.ndarray]:
    """Return embeddings around ``NUM_PLANTED`` points, in random order and of very different scales; their clusters."""
    rng = np.random.default_rng(0)
    classes = rng.permutation(np.repeat(np.arange(NUM_PLANTED), per_cluster))
    centres = rng.standard_normal((NUM_PLANTED, dim))
    points = centres[classes] + spread * rng.standard_normal((len(classes), dim))
    return (points * np.geomspace(0.01, 100, dim) + 7).astype(np.float32), classes


def config(**fields: object) -> PseudoLabelConfig:
    return PseudoLabelConfig(**{"num_clusters": (NUM_PLANTED,), "starts": 4, "iterations": 10, **fields})


def naive_whiten(embeddings_ND: np.ndarray, kept: int) -> np.ndarray:
    """Whiten by the eigenvectors of the covariance matrix; signs are arbitrary."""
    centred = embeddings_ND.astype(np.float64) - embeddings_ND.astype(np.float64).mean(0)
    variances, vectors = np.linalg.eigh(centred.T @ centred / (len(centred) - 1))
    components = centred @ vectors[:, ::-1][:, :kept] / np.sqrt(variances[::-1][:kept])
    assert np.allclose(components.var(axis=0, ddof=1), 1)
    return components / np.linalg.norm(components, axis=1, keepdims=True)


@pytest.mark.parametrize(("max_dim", "kept"), [(128, 12), (5, 5)])
def test_whitened_embeddings_are_those_of_the_definition_up_to_signs(max_dim: int, kept: int) -> None:
    embeddings = np.random.default_rng(3).standard_normal((120, 12)) * np.geomspace(0.1, 10, 12) + 3
    found, expected = whiten(embeddings, max_dim)[0], naive_whiten(embeddings, kept)
    assert found.dtype == np.float32
    assert found.shape == expected.shape
    signs = np.sign((found * expected).sum(0))
    np.testing.assert_allclose(found * signs, expected, atol=1e-4)


@settings(max_examples=25)
@given(num_rows=st.integers(9, 200), dim=st.integers(1, 24), max_dim=st.integers(1, 32), seed=st.integers(0, 99))
def test_whitening_keeps_an_eighth_as_many_dimensions_as_clips_and_gives_unit_vectors(
    num_rows: int, dim: int, max_dim: int, seed: int
) -> None:
    embeddings = np.random.default_rng(seed).standard_normal((num_rows, dim))
    found = whiten(embeddings, max_dim)[0]
    assert found.shape == (num_rows, min(max_dim, num_rows // 8, dim))
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(np.abs(whiten(1000 * embeddings - 5, max_dim)[0]), np.abs(found), atol=1e-3)


def test_directions_without_variance_are_left_out() -> None:
    embeddings = np.random.default_rng(0).standard_normal((80, 3))
    constant = np.concatenate([embeddings, np.full((80, 4), 9.0), embeddings[:, :1]], axis=1)
    found = whiten(constant, 128)[0]
    assert found.shape == (80, 3)
    assert np.isfinite(found).all()


def test_whitening_takes_less_memory_than_the_embeddings() -> None:
    embeddings = np.random.default_rng(0).standard_normal((80_000, 64), np.float32)
    tracemalloc.start()
    whiten(embeddings, 8)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < embeddings.nbytes


def test_planted_clusters_are_found_by_every_head_that_asks_for_as_many() -> None:
    embeddings, classes = planted()
    assignment = cluster(embeddings, config(num_clusters=(NUM_PLANTED, 3)), seed=0, threads=1)
    assert normalized_mutual_information(classes, assignment.labels[0]) == pytest.approx(1)
    for labels, prototypes, num_clusters in zip(
        assignment.labels, assignment.prototypes, (NUM_PLANTED, 3), strict=True
    ):
        assert labels.dtype == np.int32
        assert set(labels) <= set(range(num_clusters))
        assert len(prototypes) == num_clusters
        np.testing.assert_allclose(np.linalg.norm(prototypes, axis=1), 1, rtol=1e-5)
    figures = agreement_with(assignment, classes)
    assert figures["head0/nmi_labels"] == pytest.approx(1)
    assert figures["head1/nmi_labels"] < 1
    assert assignment.health["dim"] == 12
    assert {"effective_rank", "head0/inertia", "head1/inertia"} <= assignment.health.keys()


def test_the_effective_rank_is_that_of_the_embeddings_as_they_are() -> None:
    """As in RankMe and in pre-training: not of embeddings around their mean, although these are whitened."""
    embeddings, _ = planted()
    singular = np.linalg.svd(embeddings.astype(np.float64), compute_uv=False)
    shares = singular / singular.sum()
    found = cluster(embeddings, config(), seed=0, threads=1).health["effective_rank"]
    assert found == pytest.approx(np.exp(-(shares * np.log(shares)).sum()))


def test_every_clip_is_with_its_nearest_prototype() -> None:
    embeddings, _ = planted(spread=0.5)
    assignment = cluster(embeddings, config(), seed=0, threads=1)
    similarities = whiten(embeddings, 128)[0] @ assignment.prototypes[0].T
    np.testing.assert_array_equal(assignment.labels[0], similarities.argmax(1))
    np.testing.assert_allclose(assignment.distances[0], 1 - similarities.max(1), atol=2e-3)  # rows are float16


def test_the_start_with_the_least_inertia_counts() -> None:
    embeddings, _ = planted(spread=0.8)
    rows = RowBlocks.of(whiten(embeddings, 128)[0], threads=1)
    inertias = [fit(rows, 9, 3, randomness.generator(5, "pseudo-label starts", 0, start)).inertia for start in range(6)]
    assert len(set(inertias)) > 1
    for starts in (1, 3, 6):
        found = cluster(embeddings, config(num_clusters=(9,), starts=starts, iterations=3), seed=5, threads=1)
        assert found.health["inertia"] == min(inertias[:starts])


def test_labels_are_the_same_for_any_threads_and_again_but_not_for_another_seed() -> None:
    embeddings, _ = planted(per_cluster=800, spread=1.0)  # fills more than one block of rows
    results = [
        cluster(embeddings, config(starts=1, iterations=5), seed, threads)
        for seed, threads in [(0, 1), (0, 1), (0, 2), (1, 1)]
    ]
    first, again, two_threads, other_seed = results
    for same in (again, two_threads):
        for field in ("labels", "distances", "prototypes"):
            np.testing.assert_array_equal(getattr(first, field)[0], getattr(same, field)[0])
        assert first.health == same.health
    assert not np.array_equal(first.labels[0], other_seed.labels[0])


def test_a_damaged_clip_has_no_label_and_changes_no_others() -> None:
    embeddings, _ = planted()
    damaged = np.insert(embeddings, [0, 50], np.nan, axis=0)
    damaged[51, 1:] = 1.0  # one value stays NaN
    whole = np.isfinite(damaged).all(axis=1)
    assert np.flatnonzero(~whole).tolist() == [0, 51]
    found = cluster(damaged, config(num_clusters=(NUM_PLANTED, 4)), seed=0, threads=1)
    expected = cluster(embeddings, config(num_clusters=(NUM_PLANTED, 4)), seed=0, threads=1)
    for head in range(2):
        assert found.labels[head][~whole].tolist() == [-1, -1]
        assert np.isnan(found.distances[head][~whole]).all()
        np.testing.assert_array_equal(found.labels[head][whole], expected.labels[head])
        np.testing.assert_array_equal(found.prototypes[head], expected.prototypes[head])


def test_more_clusters_than_whole_clips_are_refused() -> None:
    embeddings, _ = planted(per_cluster=3)
    embeddings[:10] = np.nan
    with pytest.raises(ValueError, match="num_clusters=9 must not exceed the number of rows, 8"):
        cluster(embeddings, config(num_clusters=(9,)), seed=0, threads=1)


@pytest.mark.parametrize("value", [0.0, 0.1, np.nan], ids=["zero", "alike", "damaged"])
def test_embeddings_that_hold_nothing_to_cluster_are_refused(value: float) -> None:
    with pytest.raises(ValueError, match="nothing to cluster"):
        cluster(np.full((40, 8), value, np.float32), config(), seed=0, threads=1)


@settings(max_examples=25)
@given(seed=st.integers(0, 2**20), num_clips=st.integers(2, 60))
def test_shuffled_labels_keep_the_sizes_of_all_clusters_and_pairs_of_heads(seed: int, num_clips: int) -> None:
    rng = np.random.default_rng(seed)
    is_whole = rng.random(num_clips) < 0.8
    labels = tuple(np.where(is_whole, rng.integers(0, most, num_clips), -1).astype(np.int32) for most in (5, 3))
    distances = tuple(rng.random(num_clips, np.float32) for _ in labels)
    original = Assignment(0, labels, distances, (np.eye(5, dtype=np.float32), np.eye(3, dtype=np.float32)), {"a": 1.0})
    dealt = shuffled(original, seed)
    assert sorted(zip(*dealt.labels, *dealt.distances, strict=True)) == sorted(zip(*labels, *distances, strict=True))
    for head in dealt.labels:
        np.testing.assert_array_equal(head >= 0, is_whole)
    assert dealt.prototypes is original.prototypes
    np.testing.assert_array_equal(shuffled(original, seed).labels[0], dealt.labels[0])


def test_shuffled_labels_know_nothing_of_the_classes() -> None:
    embeddings, classes = planted(per_cluster=100)
    dealt = shuffled(cluster(embeddings, config(), seed=0, threads=1), seed=0)
    assert agreement_with(dealt, classes)["nmi_labels"] < 0.1


def test_true_classes_are_one_head_with_a_prototype_a_class() -> None:
    classes = np.array([2, 0, -1, 1, 2])
    assignment = of_classes(classes)
    assert [head.tolist() for head in assignment.labels] == [classes.tolist()]
    np.testing.assert_array_equal(assignment.prototypes[0], np.eye(3))
    assert agreement_with(assignment, classes) == {"nmi_labels": pytest.approx(1)}


def test_agreement_is_of_the_clips_that_have_both_a_label_and_a_class() -> None:
    assignment = Assignment(0, (np.array([0, 1, -1, 0, 1], np.int32),), (np.zeros(5, np.float32),), (np.eye(2),), {})
    assert agreement_with(assignment, np.array([7, 3, 3, -1, 3])) == {"nmi_labels": pytest.approx(1)}
    assert agreement_with(assignment, np.full(5, -1)) == {}
