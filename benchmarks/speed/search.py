"""Seconds to make an index, milliseconds of a query and its recall, beside two libraries that a user would pick.

    python -m benchmarks.speed.search [--vectors 1000000] [--exact 200000] [--dim 128] [--no-field]

A random network makes the vectors from 24 numbers in 2,000 groups, with a little noise. Like an encoder's vectors, they
fill far fewer directions than they have dimensions (participation ratio 30; 5 to 10 for the demo's students). Our job
makes its index from Parquet to files, with the clips; the other libraries go from an array in memory to memory. Codes,
which an index uses above five million vectors, are measured on the number of vectors that is compared exactly
(``--exact``). The figures of docs/benchmarks.md, and then the page::

    python -m benchmarks.speed.search && python -m benchmarks.speed.page
"""

from __future__ import annotations

import argparse
import multiprocessing
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.measure import Figure, by_turns, figure, ratio, report
from unfused_ray import api, storage
from unfused_ray.embedding.vectors import PLACE, VectorFile, VectorManifest, vector_schema
from unfused_ray.retrieval.collection import Collection
from unfused_ray.retrieval.space import unit
from unfused_ray.retrieval.stored import ExactVectors

LATENT, GROUPS, HIDDEN = 24, 2_000, 256
PART = 50_000
QUERIES, NEIGHBOURS, RECALL = 500, 10, 0.95
OURS = "ours"
EXPANSIONS = (16, 32, 64, 128, 256, 512)


def vectors(count: int, dim: int, seed: int) -> np.ndarray:
    """Draw vectors from a random network, the same groups for every seed: (count, dim) float32."""
    fixed, drawn = np.random.default_rng(7), np.random.default_rng(seed)
    centres = fixed.standard_normal((GROUPS, LATENT), np.float32)
    first = fixed.standard_normal((LATENT, HIDDEN), np.float32) / np.sqrt(LATENT)
    second = fixed.standard_normal((HIDDEN, dim), np.float32) / np.sqrt(HIDDEN)
    found = np.empty((count, dim), np.float32)
    for start in range(0, count, PART):
        size = min(PART, count - start)
        latent = centres[drawn.integers(GROUPS, size=size)] + 0.7 * drawn.standard_normal((size, LATENT), np.float32)
        noise = 0.02 * drawn.standard_normal((size, dim), np.float32)
        found[start : start + size] = np.maximum(latent @ first, 0) @ second + noise
    return found


def write(folder: str, rows: np.ndarray) -> None:
    """Write vectors as an embedding job does, each from its own recording."""
    schema = vector_schema(rows.shape[1], "0" * 64, "last")
    place = pa.scalar(dict.fromkeys((field.name for field in PLACE), None) | {"uri": "clip.wav"}, PLACE)
    parts: list[VectorFile] = []
    for start in range(0, len(rows), PART):
        part = rows[start : start + PART]
        count, flat = len(part), pa.array(part.ravel())
        columns = {
            "clip_id": pa.nulls(count, pa.int64()),
            "key": [f"{number:08d}.wav" for number in range(start, start + count)],
            "labels": [["label"]] * count,
            "split": [""] * count,
            "group": [""] * count,
            "place": pa.repeat(place, count),
            "start_seconds": np.zeros(count),
            "end_seconds": np.ones(count),
            "vector": pa.FixedSizeListArray.from_arrays(flat, type=schema.field("vector").type),
        }
        path = Path(folder) / f"part-{len(parts):05d}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table(columns, schema), path, compression="zstd", row_group_size=4_096)
        parts.append(VectorFile(path.name, count, count, path.stat().st_size, storage.sha256_file(str(path))))
    settings = {"source": folder, "encoder_sha256": "0" * 64, "readout": "last", "window_seconds": 0.0}
    VectorManifest(folder, "none", rows.shape[1], settings, "", tuple(parts), {}, {}).save()


def exactly(rows: np.ndarray, queries: np.ndarray) -> list[set[int]]:
    """Find the nearest of each query by comparing all."""
    found: list[set[int]] = []
    for query in queries:
        similarities = rows @ query
        found.append({*np.argpartition(-similarities, NEIGHBOURS)[:NEIGHBOURS].tolist()})
    return found


def ask(
    name: str, queries: np.ndarray, nearest: list[set[int]], search: Callable[[np.ndarray], np.ndarray]
) -> list[Figure]:
    """Time single queries in milliseconds, and measure their recall."""
    seconds, shares = [], []
    for query, wanted in zip(queries, nearest, strict=True):
        started = time.perf_counter()
        found = search(query)
        seconds.append(time.perf_counter() - started)
        shares.append(len(wanted & {*found.tolist()}) / NEIGHBOURS)
    reaches = ("≤ 10", f"≥ {RECALL}") if name == OURS else ("", "")
    times = 1e3 * np.array(seconds)
    least, most = float(times.min()), float(np.quantile(times, 0.99))
    return [
        Figure(f"{name}: query", float(np.median(times)), "ms", least, most, reaches[0]),
        Figure(f"{name}: recall of the {NEIGHBOURS} nearest", float(np.mean(shares)), "", reach=reaches[1]),
    ]


def opened(index: str) -> tuple[float, float]:
    """Return the seconds to a first answer, and the megabytes, of a process that opens an index."""
    before, started = psutil.Process().memory_info().rss, time.perf_counter()
    collection = Collection.open(index)
    clip = np.zeros(1, np.int64)
    collection.nearest(collection.vectors(clip)[0], NEIGHBOURS, np.ones(collection.manifest.num_vectors, bool))
    return time.perf_counter() - started, (psutil.Process().memory_info().rss - before) / 1e6


def ours(name: str, rows: np.ndarray, queries: np.ndarray, folder: str, **sizes: int) -> Iterator[Figure]:
    """Index with this project, from Parquet to files, and search the index."""
    write(f"{folder}/vectors", rows)
    started = time.perf_counter()
    manifest = api.index(vectors=f"{folder}/vectors", output=f"{folder}/index", **sizes)
    reach = "≤ 120" if name == OURS else ""
    yield Figure(f"{name}: index", time.perf_counter() - started, "s", reach=reach)
    yield Figure(f"{name}: files", manifest.num_bytes / 1e6, "MB")
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as fresh:
        seconds, megabytes = fresh.submit(opened, f"{folder}/index").result()
    yield Figure(f"{name}: open, and the first query", seconds, "s")
    yield Figure(f"{name}: memory of an open index", megabytes, "MB")
    collection = Collection.open(f"{folder}/index")
    everything = np.ones(manifest.num_vectors, bool)
    mapped = collection.trained.space.apply(queries)
    nearest = exactly(collection.trained.space.apply(rows), mapped)
    yield from ask(name, mapped, nearest, lambda query: collection.nearest(query, NEIGHBOURS, everything)[0])
    yield Figure(f"{name}: lists searched, of {collection.stored.num_lists:,}", manifest.recall.searched_lists, "")
    yield Figure(f"{name}: recall that the index says of itself", manifest.recall.value, "")


def hnswlib_index(rows: np.ndarray, threads: int) -> tuple[Any, Callable[[Any, np.ndarray, int], np.ndarray]]:
    """Make a graph of hnswlib with its usual settings."""
    import hnswlib

    index = hnswlib.Index("ip", rows.shape[1])
    index.init_index(len(rows), M=16, ef_construction=100)
    index.set_num_threads(threads)
    index.add_items(rows)

    def search(found: Any, query: np.ndarray, expansion: int) -> np.ndarray:
        found.set_ef(expansion)
        return found.knn_query(query, NEIGHBOURS)[0][0]

    return index, search


def usearch_index(rows: np.ndarray, threads: int) -> tuple[Any, Callable[[Any, np.ndarray, int], np.ndarray]]:
    """Make a graph of usearch with float16 vectors."""
    from usearch.index import Index

    index = Index(ndim=rows.shape[1], metric="ip", dtype="f16", connectivity=16, expansion_add=100)
    index.add(np.arange(len(rows)), rows, threads=threads)

    def search(found: Any, query: np.ndarray, expansion: int) -> np.ndarray:
        found.expansion_search = expansion
        return found.search(query, NEIGHBOURS).keys

    return index, search


def field(name: str, make: Any, rows: np.ndarray, queries: np.ndarray, threads: int) -> Iterator[Figure]:
    """Measure another library: its indexing, and its queries at the least effort that reaches the recall."""
    before, started = psutil.Process().memory_info().rss, time.perf_counter()
    index, search = make(rows, threads)
    yield Figure(f"{name}: index", time.perf_counter() - started, "s")
    yield Figure(f"{name}: memory of an open index", (psutil.Process().memory_info().rss - before) / 1e6, "MB")
    nearest = exactly(rows, queries)
    for expansion in EXPANSIONS:
        figures = ask(name, queries, nearest, lambda query, effort=expansion: search(index, query, effort))  # type: ignore[misc]
        if figures[1].value >= RECALL or expansion == EXPANSIONS[-1]:
            yield from figures
            return


def exact(rows: np.ndarray, queries: np.ndarray, rounds: int) -> list[Figure]:
    """Time comparing all vectors, against the matrix product within it."""
    stored, everything = ExactVectors(rows), np.ones(len(rows), bool)
    taken = by_turns(
        {
            "search": lambda: [stored.search(query, 4 * NEIGHBOURS, everything, 1) for query in queries],
            "product": lambda: [rows @ query for query in queries],
        },
        rounds,
    )
    size = f"exact, {len(rows):,} × {rows.shape[1]}"
    each = {name: [1e3 * value / len(queries) for value in values] for name, values in taken.items()}
    return [
        figure(f"{size}: query", each["search"], "ms"),
        ratio(f"{size}: query / one matrix product", each["search"], each["product"], "≤ 1.2"),
    ]


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vectors", type=int, default=1_000_000)
    parser.add_argument("--exact", type=int, default=200_000)
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument(
        "--no-field",
        dest="field",
        action="store_false",
        help="leave hnswlib and usearch out, which the extra bench installs",
    )
    parser.add_argument("--output", type=Path, default=Path("output/bench"))
    options = parser.parse_args()
    others = {"hnswlib": hnswlib_index, "usearch": usearch_index} if options.field else {}
    for name in others:
        import_module(name)  # fail early if one is missing: they are used last
    rows, queries = (vectors(count, options.dim, seed) for seed, count in enumerate((options.vectors, QUERIES)))
    rows_exact = unit(rows[: options.exact])
    figures = exact(rows_exact, unit(queries)[:16], options.rounds)
    with tempfile.TemporaryDirectory() as folder:
        figures += ours(OURS, rows, queries, folder)
    with tempfile.TemporaryDirectory() as folder:
        codes = f"codes of 64 bytes, {options.exact:,}"
        figures += ours(codes, rows[: options.exact], queries, folder, exact_up_to=0, quantize_above=1_000)
    rows, queries = unit(rows), unit(queries)
    for name, make in others.items():
        figures += field(name, make, rows, queries, options.threads)
    report("search", figures, options.output)


if __name__ == "__main__":
    main()
