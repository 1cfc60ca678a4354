"""An index with codes, of as many vectors as a minute allows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.speed.search import exactly, vectors, write
from unfused_ray import api
from unfused_ray.retrieval.collection import Collection

COUNT = 200_000


@pytest.mark.slow
@pytest.mark.usefixtures("ray_session")
def test_codes_find_nine_of_the_ten_nearest_of_two_hundred_thousand_in_some_of_the_lists(tmp_path: Path) -> None:
    rows, queries = vectors(COUNT, 128, 0), vectors(100, 128, 1)
    write(str(tmp_path / "vectors"), rows)
    manifest = api.index(
        vectors=str(tmp_path / "vectors"), output=str(tmp_path / "index"), exact_up_to=1_000, quantize_above=COUNT - 1
    )
    assert manifest.trained.kind == "quantised" and manifest.num_vectors == COUNT
    assert manifest.num_bytes < COUNT * (64 + 4 + 24)  # codes, lists, and the clips in Parquet
    collection = Collection.open(manifest.uri)
    mapped, everything = collection.trained.space.apply(queries), np.ones(COUNT, bool)
    nearest = exactly(collection.trained.space.apply(rows), mapped)
    found = [{*collection.nearest(query, 10, everything)[0].tolist()} for query in mapped]
    recall = np.mean([len(wanted & got) / 10 for wanted, got in zip(nearest, found, strict=True)])
    assert recall > 0.9 and recall == pytest.approx(manifest.recall.value, abs=0.03)
    assert manifest.recall.searched_lists < collection.stored.num_lists / 4
