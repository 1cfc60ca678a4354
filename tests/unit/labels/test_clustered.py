"""Labels clustered anew each epoch: the passes that they need before it, and no pushed embedding is lost."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from unfused_ray.clustering.clusterer import ClusteringPlan, InProcessClusterer
from unfused_ray.data.stream.plan import Pass
from unfused_ray.labels.clustered import Clustered, passes_before
from unfused_ray.methods.method import ClusteringRequest

NUM_CLIPS, DIM = 40, 6
BANK = ClusteringRequest(DIM, (3, 2), iterations=2, full_pass=False, num_shards=1)
FULL_PASS = replace(BANK, full_pass=True)


def labels(folder: Path, request: ClusteringRequest = BANK) -> Clustered:
    plan = ClusteringPlan(NUM_CLIPS, DIM, request.num_clusters, request.iterations, 7, str(folder), threads=1)
    clustered = Clustered(request, InProcessClusterer(plan), rank=0)
    clustered.restore(None, 0)
    return clustered


def embeddings(epoch: int) -> np.ndarray:
    return np.random.default_rng(epoch).standard_normal((NUM_CLIPS, DIM))


def test_clips_are_embedded_before_every_epoch_or_before_the_first_alone(tmp_path: Path) -> None:
    assert passes_before(FULL_PASS, 4, is_empty=False) == (Pass("embed", 4),)
    assert passes_before(BANK, 4, is_empty=True) == (Pass("embed", 4),)
    assert not passes_before(BANK, 4, is_empty=False)
    assert not passes_before(None, 0, is_empty=True)
    assert labels(tmp_path).collects_in_training
    assert not labels(tmp_path, FULL_PASS).collects_in_training


def test_labels_of_an_epoch_are_of_what_was_pushed_since_the_one_before(tmp_path: Path) -> None:
    clustered, alone = labels(tmp_path / "a"), labels(tmp_path / "b")
    for epoch in range(2):
        for part in np.array_split(np.arange(NUM_CLIPS), 3):
            clustered.push(part, embeddings(epoch)[part])
        alone.push(np.arange(NUM_CLIPS), embeddings(epoch))
        found, expected = clustered.labels(epoch), alone.labels(epoch)
        assert [head.tolist() for head in found.labels] == [head.tolist() for head in expected.labels]
        assert [len(head) for head in found.prototypes] == [3, 2]


def test_an_embedding_that_did_not_arrive_is_missed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clustered = labels(tmp_path)
    clustered.push(np.arange(NUM_CLIPS), embeddings(0))
    monkeypatch.setattr(InProcessClusterer, "push", lambda self, clip_ids, rows: None)
    clustered.push(np.arange(2), embeddings(0)[:2])
    with pytest.raises(RuntimeError, match="42 embeddings were pushed for epoch 0 but 40 arrived"):
        clustered.labels(0)
