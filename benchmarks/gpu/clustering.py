"""k-means with the matrix products of oneDNN, of torch on the device and of faiss; and searches with faiss's
indexes."""

from __future__ import annotations

import time
from functools import partial
from typing import Any

import numpy as np
import torch

from benchmarks.gpu.timing import SetAsideError, seconds
from benchmarks.measure import Figure, figure
from unfused_ray.clustering.nearest import FaissGpu, Nearest, OneDnn, TopTwo
from unfused_ray.clustering.row_blocks import RowBlocks
from unfused_ray.models.precision import ieee_float32

DIM, ROUNDS, NEIGHBOURS = 128, 3, 10


def by_torch(device: torch.device) -> TopTwo:
    """Make a search for the two nearest by torch's own product on a device, in IEEE float32: faiss must beat it."""

    @ieee_float32()
    def top_two(rows_RD: np.ndarray, centroids_KD: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        rows, centroids = (torch.from_numpy(np.require(each, requirements="W")) for each in (rows_RD, centroids_KD))
        values_R2, labels_R2 = (rows.to(device) @ centroids.to(device).T).topk(2, dim=1)
        return values_R2.cpu().numpy(), labels_R2.cpu().numpy()

    return top_two


def by_faiss(device: torch.device) -> Nearest | str:
    """Return faiss on the device, or the reason why it cannot run."""
    try:
        import faiss
    except ModuleNotFoundError as error:
        return str(error)
    if device.type == "cuda":
        try:
            return FaissGpu()
        except ValueError as error:
            return str(error)
    return FaissGpu(lambda rows, centroids: faiss.knn(rows, centroids, 2, metric=faiss.METRIC_INNER_PRODUCT))


def measure(device: torch.device, small: bool) -> list[Figure]:
    """Measure the time of a pass over all rows, and count the labels that differ from oneDNN's."""
    num_rows, threads = (4096, 2) if small else (1_000_000, 16)
    rng = np.random.default_rng(0)
    rows_ND = rng.standard_normal((num_rows, DIM), np.float32)
    contenders: dict[str, Nearest | str] = {
        "oneDNN on the processor": OneDnn(),
        "torch on the device, certified": FaissGpu(by_torch(device)),
        "faiss on the device, certified": by_faiss(device),
    }
    missing = [f"{name}: {nearest}" for name, nearest in contenders.items() if isinstance(nearest, str)]
    points_of = {
        name: RowBlocks.of(rows_ND, threads, nearest)
        for name, nearest in contenders.items()
        if not isinstance(nearest, str)
    }
    figures = []
    for num_clusters in (16, 64) if small else (512, 4096):
        centroids_KD = rng.standard_normal((num_clusters, DIM), np.float32)
        centroids_KD /= np.linalg.norm(centroids_KD, axis=1, keepdims=True)
        size, labels = f"{num_rows:,} × {DIM}, K = {num_clusters}", {}
        for name, points in points_of.items():
            taken = seconds(partial(points.sums, centroids_KD), torch.device("cpu"), ROUNDS)
            figures.append(figure(f"{size}: {name}, a pass", [1e3 * each for each in taken], "ms"))
            labels[name] = points.assign(centroids_KD)[0]
        first, *others = labels
        for name in others:
            differing = int((labels[first] != labels[name]).sum())
            figures.append(Figure(f"{size}: {name}, labels that differ from oneDNN's", differing, ""))
    if missing:
        figures.append(Figure(f"left out: {'; '.join(missing)}", len(missing), ""))
    return figures


def measure_search(device: torch.device, small: bool) -> list[Figure]:
    """Measure queries per second and recall of faiss's exact and inverted-list indexes, on the processor and the GPU.

    Raises:
        SetAsideError: faiss sees no GPU.
    """
    import faiss

    num_rows, num_queries, lists = (5_000, 50, 16) if small else (1_000_000, 1000, 4096)
    if device.type == "cuda" and not faiss.get_num_gpus():
        raise SetAsideError("faiss sees no GPU")
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((num_rows, DIM), np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    queries = rows[:num_queries] + 0.1 * rng.standard_normal((num_queries, DIM), np.float32)
    flat, product = faiss.IndexFlatIP(DIM), faiss.METRIC_INNER_PRODUCT
    inverted = faiss.IndexIVFFlat(faiss.IndexFlatIP(DIM), DIM, lists, product)
    inverted.nprobe = 32
    flat.add(rows)
    inverted.train(rows[: 64 * lists])
    inverted.add(rows)
    exact, figures = flat.search(queries, NEIGHBOURS)[1], []
    for name, index in {"exact": flat, "inverted lists": inverted}.items():
        for place in ("processor", "GPU") if device.type == "cuda" else ("processor",):
            searched: Any = faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), 0, index) if place == "GPU" else index
            searched.search(queries[:1], NEIGHBOURS)  # the first call allocates and does not count
            started = time.perf_counter()
            found = searched.search(queries, NEIGHBOURS)[1]
            taken = time.perf_counter() - started
            common = [len(set(a) & set(b)) for a, b in zip(found.tolist(), exact.tolist(), strict=True)]
            recall = float(np.mean(common)) / NEIGHBOURS
            figures += [
                Figure(f"{num_rows:,} × {DIM}: {name} on the {place}", num_queries / taken, "queries/s"),
                Figure(f"{num_rows:,} × {DIM}: {name} on the {place}, recall@{NEIGHBOURS}", 100 * recall, "%"),
            ]
    return figures
