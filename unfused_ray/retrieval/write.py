"""Writes one part of an index: the codes of its vectors, and their clips."""

from __future__ import annotations

import functools
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import safetensors.numpy

from unfused_ray import storage
from unfused_ray.data.parts.ledger import PartReport
from unfused_ray.parquet import open_parquet
from unfused_ray.retrieval.format import CLIPS, IndexPart, split_key
from unfused_ray.retrieval.recall import NUM_COMPARED
from unfused_ray.retrieval.space import best, has_direction
from unfused_ray.retrieval.training import TrainedIndex
from unfused_ray.retrieval.vector_parts import VectorPart, vectors_of

_COPIED = CLIPS.names[1:]


@dataclass(frozen=True)
class IndexPartWriter:
    """Writes the parts of an index."""

    output: str
    training: str
    """Folder of the training within the index, which holds its files."""
    trained: Callable[[], TrainedIndex]
    """Fetches the trained index."""

    def __call__(self, number: int, part: VectorPart) -> PartReport[IndexPart]:
        """Write a part.

        Raises:
            ValueError: the SHA-256 of a file of vectors is not the one in its manifest.
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
    """The vectors of a part that are nearest to the recall's queries, found by comparing all."""

    def __init__(self, queries_QC: np.ndarray) -> None:
        self._queries_QC = queries_QC
        self._rows_QK = np.zeros((len(queries_QC), 0), np.int64)
        self._similarities_QK = np.zeros((len(queries_QC), 0), np.float32)

    def add(self, unit_NC: np.ndarray, first: int) -> None:
        rows_QN = np.broadcast_to(np.arange(first, first + len(unit_NC)), (len(self._queries_QC), len(unit_NC)))
        rows_QN = np.concatenate([self._rows_QK, rows_QN], axis=1)
        similarities_QN = np.concatenate([self._similarities_QK, self._queries_QC @ unit_NC.T], axis=1)
        best_QK = best(similarities_QN, NUM_COMPARED)
        self._rows_QK = np.take_along_axis(rows_QN, best_QK, axis=1)
        self._similarities_QK = np.take_along_axis(similarities_QN, best_QK, axis=1)

    def arrays(self) -> dict[str, np.ndarray]:
        return {"nearest_rows": self._rows_QK, "nearest_similarities": self._similarities_QK}


@functools.lru_cache(maxsize=1)
def _trained(fetch: Callable[[], TrainedIndex]) -> TrainedIndex:
    """Return the trained index, fetched once per process."""
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
