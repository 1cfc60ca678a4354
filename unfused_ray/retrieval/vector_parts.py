"""The vectors from which an index is made: sources, their parts, and samples of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pyarrow as pa

from unfused_ray import storage
from unfused_ray.data.parts.executor import Executor
from unfused_ray.embedding.vectors import VectorFile, VectorManifest
from unfused_ray.parquet import open_parquet
from unfused_ray.retrieval.format import EncoderRecord, IndexSource
from unfused_ray.retrieval.space import VectorSpace, has_direction

PART_VECTORS = 65_536
"""Number of vectors in a part of an index; more if one part of the vectors has more."""


@dataclass(frozen=True)
class VectorPart:
    """Adjacent files of a source, which one task reads."""

    vectors: str
    """Folder of the vectors."""
    files: tuple[VectorFile, ...]
    stem: str
    """Name of the part of the index, without suffix."""

    @property
    def num_clips(self) -> int:
        """Clips with vectors in the part."""
        return sum(file.num_clips for file in self.files)


@dataclass(frozen=True)
class VectorSource:
    """A folder of vectors as a source of an index."""

    name: str
    manifest: VectorManifest

    @property
    def digest(self) -> str:
        """Twelve hex digits that change with the vectors."""
        return vectors_digest(self.manifest)

    def parts(self) -> Iterator[VectorPart]:
        """Join adjacent files into parts of about ``PART_VECTORS`` vectors."""
        waiting: list[VectorFile] = []
        number = 0
        for file in (each for each in self.manifest.parts if each.num_vectors):  # all clips of a part may be set aside
            if waiting and sum(each.num_vectors for each in (*waiting, file)) > PART_VECTORS:
                yield VectorPart(self.manifest.uri, tuple(waiting), f"{self.digest}-{number:05d}")
                waiting, number = [], number + 1
            waiting.append(file)
        yield VectorPart(self.manifest.uri, tuple(waiting), f"{self.digest}-{number:05d}")


def vectors_digest(manifest: VectorManifest) -> str:
    """Return twelve hex digits that change with the vectors of a folder."""
    return storage.sha256("".join(part.sha256 for part in manifest.parts).encode())[:12]


def encoder_of(sources: Sequence[VectorSource], known: EncoderRecord | None = None) -> EncoderRecord:
    """Return the encoder of all sources.

    Args:
        sources: sources of an index.
        known: encoder of the sources that the index has already.

    Raises:
        ValueError: the sources have different encoders.
    """
    for manifest in (source.manifest for source in sources):
        decided = manifest.settings["encoder_sha256"], manifest.settings["readout"]
        known = known or EncoderRecord(manifest.encoder, *decided, manifest.dim)
        if decided != (known.sha256, known.readout):
            raise ValueError(
                f"vectors={manifest.uri} are by the encoder {manifest.encoder} ({decided[0][:12]}, readout "
                f"{decided[1]}), others by {known.uri} ({known.sha256[:12]}, readout {known.readout}): embed all "
                "sources with one encoder"
            )
    assert known is not None
    return known


def named(manifests: Sequence[VectorManifest], kept: Sequence[IndexSource] = ()) -> list[VectorSource]:
    """Name sources after their folders, with a number if a name is taken.

    Raises:
        ValueError: two sources have the same vectors.
    """
    taken, digests, sources = {source.name for source in kept}, {source.digest for source in kept}, []
    for manifest in manifests:
        name = stem = storage.name(manifest.uri)
        number = 1
        while name in taken:
            number += 1
            name = f"{stem} ({number})"
        source = VectorSource(name, manifest)
        if source.digest in digests:
            raise ValueError(f"vectors={manifest.uri} are in the index already: name each source once")
        taken.add(name)
        digests.add(source.digest)
        sources.append(source)
    return sources


def vectors_of(table: pa.Table) -> np.ndarray:
    """Return the column of vectors: (N, D) float32."""
    column = table["vector"].combine_chunks()
    return column.flatten().to_numpy().reshape(len(table), column.type.list_size)


def draw(
    sources: Sequence[VectorSource], count: int, seed: int, executor: Executor, space: VectorSpace | None
) -> np.ndarray:
    """Draw vectors with a direction from all sources.

    Args:
        sources: sources to draw from.
        count: number of vectors to draw; all if there are fewer.
        seed: seed of the draw.
        executor: reads the files.
        space: to map the vectors to; None leaves them as they are.

    Returns:
        (N, D) or (N, C) float32 in a random order, which depends on the seed and the sources alone.
    """
    files = [(source.manifest.uri, file) for source in sources for file in source.manifest.parts]
    ends = np.cumsum([file.num_vectors for _, file in files])
    rng = np.random.default_rng(seed)
    rows = np.sort(rng.choice(ends[-1], min(count, int(ends[-1])), replace=False))
    owners = np.searchsorted(ends, rows, side="right")
    wanted = [
        (
            storage.join(files[owner][0], files[owner][1].file),
            rows[owners == owner] - ends[owner] + files[owner][1].num_vectors,
        )
        for owner in np.unique(owners)
    ]
    with executor.run(partial(read_rows, space=space), wanted) as results:
        found = dict(results)
    drawn = np.concatenate([found[number] for number in range(len(wanted))])
    return drawn[rng.permutation(len(drawn))]


def read_rows(uri: str, rows: np.ndarray, space: VectorSpace | None) -> np.ndarray:
    """Read the vectors with a direction in some rows of a file; ``rows`` are sorted."""
    found, first = [], 0
    with storage.open_input(uri) as file:
        parquet = open_parquet(file, uri)
        for group in range(parquet.num_row_groups):
            stop = first + parquet.metadata.row_group(group).num_rows
            inside = rows[(rows >= first) & (rows < stop)] - first
            if len(inside):
                vectors = vectors_of(parquet.read_row_group(group, columns=["vector"]))[inside]
                vectors = vectors[has_direction(vectors)]
                found.append(vectors if space is None else space.apply(vectors))
            first = stop
    return np.concatenate(found)
