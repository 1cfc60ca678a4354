"""The format of an index, which ``unfused-ray index`` writes and ``unfused-ray search`` reads.

A folder::

    index.json                          written last: sources, parts with their SHA-256, encoder, settings, recall
    <training>/trained.safetensors      the space, the centroids of the lists and codebooks (``training``)
    <training>/<source>-00000.safetensors …    lists and codes of the vectors of a part, in the order of the source
    <training>/<source>-00000.parquet …        their clips: keys, labels, splits, groups, times, places of the audio

All files are arrays and Parquet whose shapes are checked; nothing in them is executed. An index holds nothing that its
vectors lack, so it can be made again from them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self

import pyarrow as pa
from pydantic import TypeAdapter, ValidationError

from unfused_ray import storage
from unfused_ray.config import Readout
from unfused_ray.embedding.vectors import PLACE

FORMAT_VERSION = "index 1"
INDEX = "index.json"
REMEDY = "make it again from its vectors: unfused-ray index --vectors … --output … --rebuild"

IndexKind = Literal["exact", "lists", "quantised"]
"""How vectors are stored: all are compared; inverted lists, of which the nearest are searched; or such lists with
product-quantised codes."""

CLIPS = pa.schema(
    [
        pa.field("recording", pa.string(), nullable=False),  # recording of a later piece; the key for other clips
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
"""Columns of the clips of a part."""
_PIECE = re.compile(r"(.+)@(\d+(?:\.\d+)?(?:e\+\d+)?)", re.DOTALL)


@dataclass(frozen=True)
class IndexPart:
    """The vectors of some adjacent parts of a source."""

    file: str
    """Name of the file with the codes, within the index."""
    sha256: str
    clips_file: str
    """Name of the file with the clips of the codes, row by row."""
    clips_sha256: str
    num_clips: int
    num_vectors: int
    num_bytes: int
    """Size of both files."""
    dropped: int
    """Vectors without a direction (zero or not finite), which are left out."""


@dataclass(frozen=True)
class IndexSource:
    """A folder of vectors, and the parts made from it."""

    name: str
    """Name of the folder; with a number if another source has that name."""
    vectors: str
    """Path or URI of the folder."""
    audio: str
    """The source that was embedded."""
    digest: str
    """Twelve hex digits that change with the vectors."""
    window_seconds: float
    """Length of its windows; 0 if vectors are of whole clips."""
    parts: tuple[IndexPart, ...]

    @property
    def num_vectors(self) -> int:
        """Vectors in all parts."""
        return sum(part.num_vectors for part in self.parts)


@dataclass(frozen=True)
class EncoderRecord:
    """The encoder of all vectors."""

    uri: str
    sha256: str
    """Digest of its weights."""
    readout: Readout
    dim: int
    """Size of a vector."""


@dataclass(frozen=True)
class TrainedFile:
    """The file with the trained space, centroids and codebooks."""

    id: str
    """Name of its folder: twelve hex digits of the settings and of the sources it was trained for."""
    sha256: str
    kind: IndexKind
    num_vectors: int
    """Vectors of the sources that it was trained for."""

    @property
    def file(self) -> str:
        """Path of the file within the index."""
        return f"{self.id}/trained.safetensors"


@dataclass(frozen=True)
class Recall:
    """Share of the exactly nearest vectors that a search finds, measured with vectors of the index as queries."""

    num_queries: int
    neighbours: int
    searched_lists: int
    value: float
    by_lists: dict[int, float]
    """Recall by the number of lists searched, up to the chosen number."""


@dataclass(frozen=True)
class IndexManifest:
    """Describes an index. Its file is written last: a folder with a manifest is whole."""

    uri: str
    """Folder of the index. Not stored, because the folder may be moved."""
    settings: Mapping[str, Any]
    """Settings that, with the sources, decide the index."""
    encoder: EncoderRecord
    trained: TrainedFile
    recall: Recall
    sources: tuple[IndexSource, ...]

    @property
    def num_vectors(self) -> int:
        """Vectors of all sources."""
        return sum(source.num_vectors for source in self.sources)

    @property
    def num_bytes(self) -> int:
        """Bytes of all parts."""
        return sum(part.num_bytes for source in self.sources for part in source.parts)

    def save(self) -> None:
        """Write the manifest atomically: from then on the index is whole."""
        raw = asdict(self)
        del raw["uri"]
        storage.write_json(storage.join(self.uri, INDEX), raw, FORMAT_VERSION)

    @classmethod
    def load(cls, uri: str) -> Self:
        """Read the manifest of the index at ``uri``.

        Raises:
            FileNotFoundError: there is no index.
            ValueError: the index is damaged, or of another version.
        """
        path = storage.join(uri, INDEX)
        if not storage.exists(path):
            raise FileNotFoundError(f"{uri} holds no {INDEX}: it is no index. Make one with unfused-ray index")
        try:
            raw = storage.read_json(path, FORMAT_VERSION, REMEDY)
        except ValueError as error:
            raise ValueError(str(error) if REMEDY in str(error) else f"{error}. Or {REMEDY}") from error
        try:
            found: Self = TypeAdapter(cls).validate_python({**raw, "uri": uri})
        except ValidationError as error:
            raise ValueError(f"{path} is not as unfused-ray index has written it ({error}): {REMEDY}") from error
        return found


def split_key(key: str, clip_id: int | None) -> tuple[str, float]:
    """Split the key of a piece into its recording's key and the second it begins at; 0 for a whole clip.

    A prepared source names the pieces of a long recording ``key``, ``key@10``, ``key@20`` … In other sources, whose
    clips have no ``clip_id``, a key names a whole clip whatever it ends in. A prepared source's own keys may also end
    like that: the catalogue decides from all clips which of them are pieces.
    """
    piece = None if clip_id is None else _PIECE.fullmatch(key)
    return (piece[1], float(piece[2])) if piece else (key, 0.0)


def read_checked(uri: str, sha256: str) -> bytes:
    """Read a file of an index.

    Raises:
        ValueError: the file is missing, or its SHA-256 is not the one in the index's manifest.
    """
    try:
        data = storage.read_bytes(uri)
    except FileNotFoundError as error:
        raise ValueError(f"{error}, which its index names: {REMEDY}") from error
    if storage.sha256(data) != sha256:
        raise ValueError(f"{uri} is not the file that its index was signed with: {REMEDY}")
    return data
