"""Writes folders of any vectors as an embedding job does, and searches them naively."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from unfused_ray import storage
from unfused_ray.embedding.vectors import VectorFile, VectorManifest, vector_schema

SHA256 = "e" * 64
PLACE: dict[str, Any] = dict.fromkeys(("offset", "num_bytes", "row_group", "row", "column", "start", "seconds"))


def write_vectors(
    folder: Path | str,
    vectors_ND: np.ndarray,
    part_sizes: Sequence[int] = (),
    encoder: str = "/nowhere/encoder",
    sha256: str = SHA256,
    **columns: Sequence[Any],
) -> VectorManifest:
    """Write vectors; by default each is of a clip ``clip-<row>.wav`` of one second with the label ``row % 3``.

    Args:
        folder: path or URI to write to.
        vectors_ND: the vectors.
        part_sizes: number of vectors in each part; by default one part holds all.
        encoder: path of the encoder in the manifest.
        sha256: checksum of the encoder.
        columns: values that replace the default columns, one a row.
    """
    count, dim = vectors_ND.shape
    schema = vector_schema(dim, sha256, "last")
    keys = list(columns.get("key", [f"clip-{row}.wav" for row in range(count)]))
    values: dict[str, Any] = {
        "clip_id": [None] * count,
        "key": keys,
        "labels": [[str(row % 3)] for row in range(count)],
        "split": [""] * count,
        "group": [""] * count,
        "place": [{**PLACE, "uri": key} for key in keys],
        "start_seconds": [0.0] * count,
        "end_seconds": [1.0] * count,
        **columns,
        "vector": pa.FixedSizeListArray.from_arrays(
            vectors_ND.astype(np.float32).ravel(), type=schema.field("vector").type
        ),
    }
    table = pa.table(values, schema)
    parts, first = [], 0
    for number, size in enumerate(part_sizes or (count,)):
        buffer = io.BytesIO()
        pq.write_table(table.slice(first, size), buffer, row_group_size=max(1, size // 2))
        data, file = buffer.getvalue(), f"part-{number:05d}.parquet"
        storage.write_bytes(storage.join(str(folder), file), data)
        parts.append(VectorFile(file, size, size, len(data), storage.sha256(data)))
        first += size
    settings = {"source": "/audio", "encoder_sha256": sha256, "readout": "last", "window_seconds": 0.0}
    manifest = VectorManifest(str(folder), encoder, dim, settings, "contents", tuple(parts), {}, {})
    manifest.save()
    return manifest


def groups_of(seed: int, count: int, dim: int, groups: int = 12) -> np.ndarray:
    """Return vectors of different lengths in groups that overlap a little: (count, dim) float32."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(7).normal(size=(groups, dim))
    vectors = centres[rng.integers(groups, size=count)] + 0.4 * rng.normal(size=(count, dim))
    return (vectors * rng.uniform(0.1, 10, size=(count, 1))).astype(np.float32)


def cosines(query_D: np.ndarray, vectors_ND: np.ndarray) -> np.ndarray:
    """Return the cosines of a vector and each of the others, in float64."""
    query, vectors = query_D.astype(np.float64), vectors_ND.astype(np.float64)
    return vectors @ query / np.linalg.norm(vectors, axis=1) / np.linalg.norm(query)
