r"""Share of test clips that share the class of their nearest training clip: by inner product, by cosine, by an index.

    python -m benchmarks.search_quality --shards output/shards/drums output/shards/languages \
        --runs 'output/runs/demo-{task}' output/runs/demo

Every clip of a task is in the index, as in a collection. The test clips are the queries, and only training clips may be
found.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.measure import Figure, report
from unfused_ray import api, storage
from unfused_ray.parquet import open_parquet
from unfused_ray.retrieval.collection import Collection
from unfused_ray.retrieval.vector_parts import vectors_of


def inner_product(vectors: str, splits: np.ndarray, labels: np.ndarray) -> float:
    """Return the share of test clips with the label of their nearest training clip, by inner product of the vectors."""
    rows = []
    for uri in storage.list_files(vectors):
        if storage.name(uri).startswith("part-"):
            with storage.open_input(uri) as file:
                rows.append(vectors_of(open_parquet(file, uri).read(["vector"])))
    rows_ND, train = np.concatenate(rows), np.flatnonzero(splits == "train")
    nearest = train[(rows_ND[splits == "test"] @ rows_ND[train].T).argmax(axis=1)]
    return float((labels[nearest] == labels[splits == "test"]).mean())


def by_index(collection: Collection, splits: np.ndarray, labels: np.ndarray) -> float:
    """Return the share of test clips with the label of their nearest training clip, by an index as in a search."""
    right = []
    for clip in np.flatnonzero(splits == "test"):
        (found, *_), _ = collection.nearest(collection.vectors(np.array([clip]))[0], 1, splits == "train")
        right.append(labels[found] == labels[clip])
    return float(np.mean(right))


def measure(run: str, shards: str, folder: str) -> list[Figure]:
    """Return the shares of one encoder on one task, in per cent."""
    api.embed(encoder=run, source=shards, output=f"{folder}/vectors")
    found: dict[str, float] = {}
    for metric in ("cosine", "whitened"):
        uri = api.index(vectors=f"{folder}/vectors", output=f"{folder}/{metric}", metric=metric).uri
        collection = Collection.open(uri)
        splits = np.array(collection.clips.column("split").to_pylist())
        labels = np.array([(of_clip or [""])[0] for of_clip in collection.clips.column("labels").to_pylist()])
        found.setdefault("inner product", inner_product(f"{folder}/vectors", splits, labels))
        found[metric] = by_index(collection, splits, labels)
    name = f"{Path(run).name} on {Path(shards).name}, {(splits == 'test').sum()} test clips"
    return [Figure(f"{name}: {metric}", 100 * share, "%") for metric, share in found.items()]


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shards", nargs="+", required=True)
    parser.add_argument("--runs", nargs="+", required=True, help="{task} stands for the name of the shards' folder")
    parser.add_argument("--output", type=Path, default=Path("output/bench"))
    options = parser.parse_args()
    figures = []
    for run in options.runs:
        for shards in options.shards:
            with tempfile.TemporaryDirectory() as folder:
                figures += measure(run.replace("{task}", Path(shards).name), shards, folder)
    report("search_quality", figures, options.output)


if __name__ == "__main__":
    main()
