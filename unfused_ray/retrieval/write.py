"""Writes one part of an index: the codes of its vectors, and their clips."""

from __future__ import annotations

import functools
import io
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import safetensors.numpy

from unfused_ray import storage
from unfused_ray.data.parts.ledger import PartReport
from unfused_ray.embedding.vectors import PLACE
from unfused_ray.parquet import open_parquet
from unfused_ray.retrieval.format import IndexPart
from unfused_ray.retrieval.space import has_direction
from unfused_ray.retrieval.training import TrainedIndex
from unfused_ray.retrieval.vector_parts import VectorPart, vectors_of

NEIGHBOURS = 10
"""Neighbours of which the recall is measured."""
_PIECE = re.compile(r"(.+)@(\d+(?:\.\d+)?(?:e\+\d+)?)", re.DOTALL)

CLIPS = pa.schema(
    [
        pa.field("recording", pa.string(), nullable=False),  # the key without the second that a piece begins at
        pa.field("clip_id", pa.int64()),
        pa.field("key", pa.string(), nullable=False),
        pa.field("labels", pa.list_(pa.string())),
        pa.field("split", pa.string(), nullable=False),
        pa.field("group", pa.string(), nullable=False),
        pa.field("place", PLACE, nullable=False),
        pa.field("start_seconds", pa.float64(), nullable=False),
        pa.field("end_seconds", pa.float64(), nullable=False),
    ]
)
_COPIED = CLIPS.names[1:]


def split_key(key: str, clip_id: int | None) -> tuple[str, float]:
    """Split the key of a piece into that of its recording and the second it begins at; 0 for a whole clip.

    A prepared source calls the pieces of a long recording ``key``, ``key@10``, ``key@20`` … Elsewhere, where clips have
    no ``clip_id``, a key names a whole clip whatever it ends in.
    """
    piece = None if clip_id is None else _PIECE.fullmatch(key)
    return (piece[1], float(piece[2])) if piece else (key, 0.0)


@dataclass(frozen=True)
class IndexPartWriter:
    """Writes the parts of an index."""

    output: str
    training: str
    """Folder of its files within the index."""
    trained: Callable[[], TrainedIndex]
    """Fetches the trained index."""

    def __call__(self, number: int, part: VectorPart) -> PartReport[IndexPart]:
        """Write a part.

        Raises:
            ValueError: the vectors are not those that their manifest signs.
            OSError: an object store does not answer.
        """
        trained = _trained(self.trained)
        lists, codes, tables, nearest = [], [], [], _Nearest(trained.queries)
        num_read = num_kept = 0
        for table in _row_groups(part):
            vectors_ND = vectors_of(table)
            kept = has_direction(vectors_ND)
            unit_NC = trained.space.apply(vectors_ND[kept])
            nearest.add(unit_NC, num_kept)
            found = trained.encode(unit_NC)
            lists.append(found[0])
            codes.append(found[1])
            tables.append(_clips(table.filter(pa.array(kept))))
            num_read, num_kept = num_read + len(kept), num_kept + len(unit_NC)
        arrays = {"lists": np.concatenate(lists), "codes": np.concatenate(codes), **nearest.arrays()}
        file, clips_file = (f"{self.training}/{part.stem}.{ending}" for ending in ("safetensors", "parquet"))
        contents = {file: safetensors.numpy.save(arrays), clips_file: _parquet(pa.concat_tables(tables))}
        for name, data in contents.items():
            storage.write_bytes(storage.join(self.output, name), data)
        written = IndexPart(
            file=file,
            sha256=storage.sha256(contents[file]),
            clips_file=clips_file,
            clips_sha256=storage.sha256(contents[clips_file]),
            num_clips=part.num_clips,
            num_vectors=num_kept,
            num_bytes=sum(map(len, contents.values())),
            dropped=num_read - num_kept,
        )
        return PartReport(written, ())


class _Nearest:
    """The vectors of a part that are nearest to the queries of the recall, by comparing all."""

    def __init__(self, queries_QC: np.ndarray) -> None:
        self._queries_QC = queries_QC
        self._rows_QK = np.zeros((len(queries_QC), 0), np.int64)
        self._similarities_QK = np.zeros((len(queries_QC), 0), np.float32)

    def add(self, unit_NC: np.ndarray, first: int) -> None:
        rows_QN = np.broadcast_to(np.arange(first, first + len(unit_NC)), (len(self._queries_QC), len(unit_NC)))
        rows_QN = np.concatenate([self._rows_QK, rows_QN], axis=1)
        similarities_QN = np.concatenate([self._similarities_QK, self._queries_QC @ unit_NC.T], axis=1)
        best_QK = best(similarities_QN, NEIGHBOURS + 1)
        self._rows_QK = np.take_along_axis(rows_QN, best_QK, axis=1)
        self._similarities_QK = np.take_along_axis(similarities_QN, best_QK, axis=1)

    def arrays(self) -> dict[str, np.ndarray]:
        return {"nearest_rows": self._rows_QK, "nearest_similarities": self._similarities_QK}


def best(similarities_QN: np.ndarray, count: int) -> np.ndarray:
    """Places of the largest values of each row, the largest first, the first of equals: (Q, min(count, N)) int64."""
    num_values = similarities_QN.shape[1]
    count = min(count, num_values)
    if not count:
        return np.zeros((len(similarities_QN), 0), np.int64)
    some_QK = (
        np.argpartition(similarities_QN, num_values - count, axis=1)[:, num_values - count :]
        if count < num_values
        else (np.broadcast_to(np.arange(count), similarities_QN.shape))
    )
    some_QK = np.sort(some_QK, axis=1)
    order_QK = np.argsort(-np.take_along_axis(similarities_QN, some_QK, axis=1), axis=1, kind="stable")
    return np.take_along_axis(some_QK, order_QK, axis=1)


@functools.lru_cache(maxsize=1)
def _trained(fetch: Callable[[], TrainedIndex]) -> TrainedIndex:
    """Fetched once a process."""
    return fetch()


def _row_groups(part: VectorPart) -> Iterator[pa.Table]:
    for file in part.files:
        uri = storage.join(part.vectors, file.file)
        if storage.sha256_file(uri) != file.sha256:
            raise ValueError(f"{uri} is not the file that its manifest signs: copy or embed {part.vectors} again")
        with storage.open_input(uri) as opened:
            parquet = open_parquet(opened, uri)
            for group in range(parquet.num_row_groups):
                yield parquet.read_row_group(group)


def _clips(table: pa.Table) -> pa.Table:
    named = zip(table["key"].to_pylist(), table["clip_id"].to_pylist(), strict=True)
    recordings = pa.array([split_key(key, clip_id)[0] for key, clip_id in named], pa.string())
    columns = [table[name].cast(CLIPS.field(name).type) for name in _COPIED]
    return pa.Table.from_arrays([recordings, *columns], schema=CLIPS)


def _parquet(table: pa.Table) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    return buffer.getvalue()
