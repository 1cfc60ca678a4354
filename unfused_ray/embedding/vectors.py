"""The format of the vectors that ``unfused-ray embed`` writes.

A folder::

    manifest.json          written last: parts with their counts and SHA-256, rejects by reason, settings, encoder
    part-00000.parquet …   one row per vector, in the order of the source; columns: :func:`vector_schema`
    rejects.parquet        key, reason and detail of every clip that was set aside
    warnings.parquet       key, reason and detail of every clip that was kept although something is wrong with it
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

import pyarrow as pa
from pydantic import TypeAdapter, ValidationError

from unfused_ray import storage
from unfused_ray.config import Readout
from unfused_ray.data.shards.format import MANIFEST
from unfused_ray.data.sources.items import ITEMS

FORMAT_VERSION = "vectors 3"  # prepared sources, whose manifest has the same name, have format 1
METRIC = "cosine"
"""Similarity of the vectors. Their lengths say little: by inner product, long vectors would be near to all others."""

PLACE = pa.struct(
    [ITEMS.field(name) for name in ("uri", "offset", "num_bytes", "row_group", "row", "column", "start", "seconds")]
)
"""The place of a clip's audio, in a listing's fields: enough to read the clip again. ``uri`` is relative to the
source."""


@dataclass(frozen=True)
class VectorFile:
    """One Parquet file of vectors."""

    file: str
    """Name within the folder."""
    num_clips: int
    """Clips that have vectors in it."""
    num_vectors: int
    num_bytes: int
    sha256: str


@dataclass(frozen=True)
class VectorManifest:
    """Describes a folder of vectors. Its file is written last: a folder with a manifest is whole."""

    uri: str
    """Folder of the vectors. Not stored, because the folder may be moved."""
    encoder: str
    """Path or URI that the encoder was loaded from."""
    dim: int
    """Size of a vector."""
    settings: Mapping[str, Any]
    """Everything that decides the vectors: the job's configuration, and the SHA-256 of the encoder's weights."""
    contents: str
    """Digest of the source's clips, as far as they are known before they are read."""
    parts: tuple[VectorFile, ...]
    rejects: Mapping[str, int]
    """Clips set aside, by reason."""
    warnings: Mapping[str, int]
    """Warnings of clips that were kept, by reason."""

    @property
    def num_clips(self) -> int:
        """Clips that have vectors."""
        return sum(part.num_clips for part in self.parts)

    @property
    def num_vectors(self) -> int:
        """Vectors of all parts."""
        return sum(part.num_vectors for part in self.parts)

    def save(self) -> None:
        """Write the manifest atomically: from then on the folder is whole."""
        raw = asdict(self)
        del raw["uri"]
        totals = {"num_clips": self.num_clips, "num_vectors": self.num_vectors, "metric": METRIC}
        storage.write_json(storage.join(self.uri, MANIFEST), totals | raw, FORMAT_VERSION)

    @classmethod
    def load(cls, uri: str) -> Self:
        """Read the manifest of the folder of vectors at ``uri``.

        Raises:
            FileNotFoundError: the folder has no manifest.
            ValueError: the manifest is damaged, describes something else, or has another version of the format.
        """
        path = storage.join(uri, MANIFEST)
        if not storage.exists(path):
            raise FileNotFoundError(f"{uri} holds no {MANIFEST}: it has no vectors. Make them with unfused-ray embed")
        remedy = "it is a prepared source, or was written by another version. Embed it anew, to another output"
        raw = storage.read_json(path, FORMAT_VERSION, remedy)
        try:
            found: Self = TypeAdapter(cls).validate_python({"warnings": {}, **raw, "uri": uri})
        except ValidationError as error:
            raise ValueError(
                f"{path} is not as unfused-ray embed has written it ({error}): copy it, or embed it anew elsewhere"
            ) from error
        return found


def within_source(uri: str, source: str) -> str:
    """Return the path of a file relative to its source, so that both may be moved; for a file elsewhere, its URI."""
    if uri == source:
        return ""
    inner = storage.relative(uri, source)
    return inner if storage.join(source, inner) == uri else uri


def from_source(inner: str, source: str) -> str:
    """Return the URI of a file from its path relative to the source, the inverse of :func:`within_source`."""
    if not inner:
        return source
    return inner if "://" in inner or inner.startswith("/") else storage.join(source, inner)


def vector_schema(dim: int, encoder_sha256: str, readout: Readout) -> pa.Schema:
    """Return the schema of a part, with metadata that name encoder, readout and metric.

    Args:
        dim: size of a vector.
        encoder_sha256: SHA-256 of the encoder's weights.
        readout: layers that the vectors concatenate.
    """
    fields: Sequence[pa.Field] = [
        pa.field("clip_id", pa.int64()),  # in the prepared source (and its chosen splits); null for other audio
        pa.field("key", pa.string(), nullable=False),  # the source's own name of the clip
        ITEMS.field("labels"),
        pa.field("split", pa.string(), nullable=False),  # "" if the source has none
        pa.field("group", pa.string(), nullable=False),  # "" if there is none
        pa.field("place", PLACE, nullable=False),
        pa.field("start_seconds", pa.float64(), nullable=False),  # start of the window in the clip
        pa.field("end_seconds", pa.float64(), nullable=False),
        pa.field("vector", pa.list_(pa.field("element", pa.float32(), nullable=False), dim), nullable=False),
    ]
    return pa.schema(fields, metadata={"encoder_sha256": encoder_sha256, "readout": readout, "metric": METRIC})
