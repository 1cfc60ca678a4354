"""The pseudo-labels of one epoch, in memory and on storage.

An assignment is a folder::

    head-0.parquet …         clip_id int64, cluster int32, distance float32; one file per head
    prototypes.safetensors   float32 (K, D), one tensor per head, named "0", "1", …
    assignment.json          written last: epoch, health, SHA-256 of the other files
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import safetensors.numpy

from unfused_ray import storage
from unfused_ray.parquet import open_parquet

FORMAT_VERSION = 1
MANIFEST = "assignment.json"
_PROTOTYPES = "prototypes.safetensors"


@dataclass(frozen=True)
class Assignment:
    """Every clip's cluster, for N clips and H heads. Cluster ids have no meaning in another epoch."""

    epoch: int
    """The epoch that trains on this assignment."""
    labels: tuple[np.ndarray, ...]
    """(N,) int32 for each head, by clip_id."""
    distances: tuple[np.ndarray, ...]
    """(N,) float32 for each head: 1 - cosine similarity of the embedding with its prototype."""
    prototypes: tuple[np.ndarray, ...]
    """(K, D) float32 for each head, L2-normalised."""
    health: dict[str, float]
    """Metrics of :mod:`unfused_ray.clustering.health`; with several heads, the metrics of a head begin with ``head0/``
    …"""


def write_assignment(uri: str, assignment: Assignment) -> None:
    """Write an assignment to the folder ``uri``.

    Raises:
        OSError: it cannot be written.
    """
    files = [_PROTOTYPES]
    prototypes = {str(head): array for head, array in enumerate(assignment.prototypes)}
    storage.write_bytes(storage.join(uri, _PROTOTYPES), safetensors.numpy.save(prototypes))
    for head, (labels, distances) in enumerate(zip(assignment.labels, assignment.distances, strict=True)):
        table = pa.table({"clip_id": np.arange(len(labels)), "cluster": labels, "distance": distances})
        files.append(_head_file(head))
        with storage.open_output(storage.join(uri, files[-1])) as output:
            pq.write_table(table, output)
    manifest = {
        "epoch": assignment.epoch,
        "health": assignment.health,
        "files": {file: storage.sha256_file(storage.join(uri, file)) for file in files},
    }
    storage.write_json(storage.join(uri, MANIFEST), manifest, FORMAT_VERSION)


def read_assignment(uri: str) -> Assignment:
    """Read the result of :func:`write_assignment`; every array comes back bit for bit.

    Raises:
        FileNotFoundError: there is no whole assignment at ``uri``.
        ValueError: a file is damaged, or of another version.
    """
    manifest = storage.read_json(storage.join(uri, MANIFEST), FORMAT_VERSION, "cluster again")
    for file, expected in manifest["files"].items():
        if storage.sha256_file(storage.join(uri, file)) != expected:
            raise ValueError(f"{storage.join(uri, file)} is damaged: its SHA-256 is not the one in {MANIFEST}")
    prototypes = safetensors.numpy.load(storage.read_bytes(storage.join(uri, _PROTOTYPES)))
    labels, distances = [], []
    for head in range(len(prototypes)):
        path = storage.join(uri, _head_file(head))
        with storage.open_input(path) as file:
            table = open_parquet(file, path).read(["cluster", "distance"])
        labels.append(table["cluster"].to_numpy())
        distances.append(table["distance"].to_numpy())
    return Assignment(
        epoch=manifest["epoch"],
        labels=tuple(labels),
        distances=tuple(distances),
        prototypes=tuple(prototypes[str(head)] for head in range(len(prototypes))),
        health=manifest["health"],
    )


def _head_file(head: int) -> str:
    return f"head-{head}.parquet"
