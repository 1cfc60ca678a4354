"""Spherical k-means against faiss's own and against its matrix products alone, by turns in one process.

python benchmarks/kmeans.py --rows 200000 --clusters 512
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable

import faiss
import numpy as np
import torch

from unfused_ray.clustering.kmeans import RowBlocks, lloyd


def seconds(work: Callable[[], object]) -> float:
    """Wall-clock time of one call."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def main() -> None:
    """Print the best time of each contender and their ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--clusters", type=int, default=512)
    parser.add_argument("--iterations", type=int, default=10)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()

    centers = np.random.default_rng(0).standard_normal((args.clusters, args.dim))
    rng = np.random.default_rng(1)
    noise = rng.standard_normal((args.rows, args.dim))
    points = RowBlocks.of(centers[rng.integers(args.clusters, size=args.rows)] + 2 * noise, args.threads)
    rows = points.rows[: args.rows].astype(np.float32)
    starts = np.ascontiguousarray(rows[: args.clusters])
    torch.set_num_threads(args.threads)
    left, right = torch.from_numpy(rows), torch.from_numpy(starts).T.contiguous()
    product = torch.empty(len(left), args.clusters)

    def products() -> None:
        for _ in range(args.iterations):
            torch.mm(left, right, out=product)

    def ours() -> None:
        lloyd(points, starts, args.clusters, args.iterations)

    def theirs() -> None:
        faiss.omp_set_num_threads(args.threads)
        kmeans = faiss.Kmeans(
            args.dim, args.clusters, niter=args.iterations, spherical=True, max_points_per_centroid=args.rows
        )
        kmeans.train(rows, init_centroids=starts)
        kmeans.index.search(rows, 1)

    contenders = {"matrix products": products, "this project": ours, "faiss.Kmeans": theirs}
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(args.rounds):
        for name, work in contenders.items():
            times[name].append(seconds(work))
    best = {name: min(taken) for name, taken in times.items()}
    for name, value in best.items():
        print(f"{name:16} {value:6.2f} s   {value / best['matrix products']:.2f} x the products")
    print(f"this project / faiss.Kmeans: {best['this project'] / best['faiss.Kmeans']:.2f}")


if __name__ == "__main__":
    main()
