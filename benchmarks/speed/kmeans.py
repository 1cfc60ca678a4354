"""Seconds of one pass of k-means over all rows, against its arithmetic and against the libraries that users would pick.

    python -m benchmarks.speed.kmeans [--rows 10000 100000 1000000] [--clusters 128 512 4096] [--shards 1 2 4]

A pass multiplies all rows with all centroids; I iterations and the final assignment are I + 1 passes. All contenders
start from the same rows and do the same iterations, by turns in one process; large cells do fewer. "Bound" is the
2·N·K·D operations of a pass at the rate of the fastest matrix product here: that of torch.mm, or that of oneDNN by way
of a convolution. "By torch" and "by faiss" are this project's k-means with the products of these libraries instead of
oneDNN's, on a GPU if there is one, and with certified labels.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import faiss
import numpy as np
import ray
import torch
from sklearn.cluster import KMeans
from torch.nn.functional import conv2d

from benchmarks.gpu.clustering import by_faiss, by_torch
from benchmarks.measure import Figure, by_turns, figure, ratio, report
from unfused_ray import cluster
from unfused_ray.clustering.actor import RayClusterer, start_assignment_actor
from unfused_ray.clustering.clusterer import ClusteringPlan
from unfused_ray.clustering.kmeans import lloyd
from unfused_ray.clustering.nearest import FaissGpu
from unfused_ray.clustering.row_blocks import RowBlocks

GEMM, ROWS_PER_CLUSTER, PUSH = 2048, 16, 65_536
OURS, FAISS, MM, CONVOLUTION = "this project", "faiss.Kmeans", "torch.mm", "oneDNN"
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def embeddings(num_rows: int, num_clusters: int, dim: int) -> np.ndarray:
    """Draw groups that overlap, so that no contender converges early."""
    rng = np.random.default_rng(0)
    centers = rng.standard_normal((num_clusters, dim), dtype=np.float32)
    return centers[rng.integers(num_clusters, size=num_rows)] + 2 * rng.standard_normal(
        (num_rows, dim), dtype=np.float32
    )


def cell(num_rows: int, num_clusters: int, options: argparse.Namespace) -> list[Figure]:
    """Return the figures of one size: the core, in this process."""
    operations = 2 * num_rows * num_clusters * options.dim
    iterations = int(np.clip(options.gflop * 1e9 // operations - 1, 1, options.iterations))
    passes = iterations + 1
    vectors = embeddings(num_rows, num_clusters, options.dim)
    points = RowBlocks.of(vectors, options.threads)
    by_others = {
        f"{OURS}, by {name}": RowBlocks.of(vectors, options.threads, nearest)
        for name, nearest in (("torch", FaissGpu(by_torch(DEVICE))), ("faiss", by_faiss(DEVICE)))
        if not isinstance(nearest, str)  # a string says why faiss cannot run on the GPU
    }
    rows = points.rows[:num_rows].astype(np.float32)
    starts = np.ascontiguousarray(rows[:num_clusters])
    square = torch.rand(GEMM, GEMM)
    images = square.view(16, -1, 1, GEMM).permute(0, 3, 1, 2)

    def with_faiss() -> None:
        faiss.omp_set_num_threads(options.threads)
        kmeans = faiss.Kmeans(
            options.dim,
            num_clusters,
            niter=iterations,
            spherical=True,
            max_points_per_centroid=num_rows,
            min_points_per_centroid=1,
        )
        kmeans.train(rows, init_centroids=starts)
        kmeans.index.search(rows, 1)

    def with_sklearn() -> None:
        KMeans(num_clusters, init=starts, n_init=1, max_iter=iterations, tol=0, algorithm="lloyd").fit(rows)

    contenders: dict[str, Callable[[], object]] = {
        MM: lambda: square @ square,
        CONVOLUTION: lambda: conv2d(images, square[:, :, None, None]),
        OURS: lambda: lloyd(points, starts, num_clusters, iterations),
        FAISS: with_faiss,
        **{name: partial(lloyd, each, starts, num_clusters, iterations) for name, each in by_others.items()},
    }
    small = operations <= options.field_gflop * 1e9
    if small:
        contenders["scikit-learn"] = with_sklearn
    taken = by_turns(contenders, options.rounds, warmups=int(small))
    size = f"{num_rows:,} × {options.dim}, K = {num_clusters}"
    seconds = {name: [value / passes for value in values] for name, values in taken.items()}
    peaks = {name: [2 * GEMM**3 / value for value in taken[name]] for name in (MM, CONVOLUTION)}
    bound = {name: [operations / peak for peak in values] for name, values in peaks.items()}
    least = [min(pair) for pair in zip(bound[MM], bound[CONVOLUTION], strict=True)]
    figures = [figure(f"{size}: bound", [1e3 * value for value in least], "ms")]
    figures += [
        figure(f"{size}: {name}", [1e3 * value for value in values], "ms")
        for name, values in seconds.items()
        if name not in peaks
    ]
    figures += [
        ratio(f"{size}: {OURS} / bound", seconds[OURS], least, "≤ 1.35"),
        ratio(f"{size}: {OURS} / bound at the rate of torch.mm alone", seconds[OURS], bound[MM]),
        ratio(f"{size}: {OURS} / {FAISS}", seconds[OURS], seconds[FAISS], "≤ 1.05"),
    ]
    if small and options.spark:
        figures.append(Figure(f"{size}: Spark MLlib", 1e3 * with_spark(rows, starts, options), "ms"))
    return figures


def with_spark(rows: np.ndarray, starts: np.ndarray, options: argparse.Namespace) -> float:
    """Return seconds of an iteration of Spark MLlib: a longer run less a shorter one cancels handing over the rows."""
    from pyspark import SparkConf, SparkContext
    from pyspark.mllib.clustering import KMeans as MLlibKMeans
    from pyspark.mllib.clustering import KMeansModel

    settings = {"spark.ui.enabled": "false", "spark.driver.memory": "2g", "spark.driver.host": "127.0.0.1"}
    context = SparkContext(f"local[{options.threads}]", "kmeans", conf=SparkConf().setAll([*settings.items()]))
    context.setLogLevel("ERROR")
    vectors = context.parallelize(list(rows.astype(np.float64)), options.threads).cache()
    vectors.count()
    ends = {}
    for iterations in (1, 1, 4):  # the first warms up
        started = time.perf_counter()
        model = KMeansModel(list(starts.astype(np.float64)))
        MLlibKMeans.train(vectors, len(starts), maxIterations=iterations, epsilon=0.0, initialModel=model)
        ends[iterations] = time.perf_counter() - started
    context.stop()
    return (ends[4] - ends[1]) / 3


def sharded(options: argparse.Namespace) -> list[Figure]:
    """Time the assignment actor in a Ray session; a pass includes its share of the whole assignment."""
    num_rows, num_clusters, iterations = options.ray_rows, options.ray_clusters, 2 * options.iterations
    rows = embeddings(num_rows, num_clusters, options.dim)
    size = f"{num_rows:,} × {options.dim}, K = {num_clusters}"
    seconds: dict[int, list[float]] = {shards: [] for shards in options.shards}
    figures = []
    with cluster.session(), tempfile.TemporaryDirectory() as folder:
        clusterers = {}
        for shards in options.shards:
            threads = max(1, options.threads // shards)
            plan = ClusteringPlan(num_rows, options.dim, (num_clusters,), iterations, 0, f"{folder}/{shards}", threads)
            actor = start_assignment_actor(plan, shards)
            clusterers[shards] = (RayClusterer(actor, "benchmark", 1), actor)
            clusterers[shards][0].restore(None, 0)
            for start in range(0, num_rows, PUSH):
                part = np.arange(start, min(start + PUSH, num_rows))
                clusterers[shards][0].push(part, rows[part])
        for epoch in range(options.rounds + 1):
            for shards, (clusterer, _) in clusterers.items():
                started = time.perf_counter()
                clusterer.labels(epoch, 0, 0 if epoch else num_rows)
                if epoch:
                    seconds[shards].append((time.perf_counter() - started) / (iterations + 1))
        for _, actor in clusterers.values():
            ray.kill(actor)
    for shards, values in seconds.items():
        name = f"{size}: assignment actor, {shards} shard{'s' * (shards > 1)}"
        figures.append(figure(name, [1e3 * value for value in values], "ms"))
        moved = shards * num_clusters * (options.dim * (4 + 8) + 8) if shards > 1 else 0
        figures.append(Figure(f"{name}: bytes moved a pass", moved / 1e6, "MB"))
    if {1, options.threads} <= set(seconds) and options.threads > 1:
        name = f"{size}: speed of {options.threads} shards / 1 shard with {options.threads} threads"
        figures.append(ratio(name, seconds[1], seconds[options.threads], "≥ 0.9"))
    return figures


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--clusters", type=int, nargs="+", default=[128, 512, 4096])
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--iterations", type=int, default=10)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--gflop", type=float, default=300, help="of a run: larger cells do fewer iterations")
    parser.add_argument("--field-gflop", type=float, default=15, help="of a pass: others are not shown larger cells")
    parser.add_argument("--shards", type=int, nargs="*", default=[1, 2, 4])
    parser.add_argument("--ray-rows", type=int, default=200_000)
    parser.add_argument("--ray-clusters", type=int, default=512)
    parser.add_argument("--output", type=Path, default=Path("output/bench"))
    options = parser.parse_args(arguments)
    options.spark = find_spec("pyspark") is not None and shutil.which("java") is not None
    return options


def main() -> None:
    """Measure every size, then the shards."""
    options = parse()
    if not options.spark:
        print("Spark MLlib is left out: it needs Java and pip install 'unfused-ray[bench]'")
    torch.set_num_threads(options.threads)
    figures = []
    for num_rows in options.rows:
        for num_clusters in options.clusters:
            if num_rows >= ROWS_PER_CLUSTER * num_clusters:
                figures += cell(num_rows, num_clusters, options)
    if options.shards:
        figures += sharded(options)
    report("kmeans", figures, options.output)


if __name__ == "__main__":
    main()
