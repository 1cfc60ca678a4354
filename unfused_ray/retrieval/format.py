"""The format of an index: what ``unfused-ray index`` writes, and ``unfused-ray search`` reads.

A folder::

    index.json                          written last: sources, parts with their SHA-256, encoder, settings, recall
    <training>/trained.safetensors      the space, the centroids of the lists and codebooks (``training``)
    <training>/<source>-00000.safetensors …    lists and codes of the vectors of a part, in the order of the source
    <training>/<source>-00000.parquet …        their clips: keys, labels, splits, groups, times, places of the audio

All files are arrays and Parquet, whose shapes are checked; nothing in them is executed. An index holds nothing that
its vectors do not: it can be made again from them.
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
"""All vectors are compared; those of the nearest inverted lists; or these lists' product-quantised codes."""

CLIPS = pa.schema(
    [
        pa.field("recording", pa.string(), nullable=False),  # of a later piece; of others it is the key
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
"""Columns of a part's clips."""
_PIECE = re.compile(r"(.+)@(\d+(?:\.\d+)?(?:e\+\d+)?)", re.DOTALL)


@dataclass(frozen=True)
class IndexPart:
    """The vectors of some neighbouring parts of a source."""

    file: str
    """Codes, within the index."""
    sha256: str
    clips_file: str
    """Clips of the codes, row by row."""
    clips_sha256: str
    num_clips: int
    num_vectors: int
    num_bytes: int
    """Size of both files."""
    dropped: int
    """Vectors without a direction (zero or not finite), which are not in it."""


@dataclass(frozen=True)
class IndexSource:
    """A folder of vectors, and the parts made of it."""

    name: str
    """Name of the folder; with a number where another source has that name."""
    vectors: str
    """The folder, by path or URI."""
    audio: str
    """The source that was embedded."""
    digest: str
    """Twelve hex digits that change with the vectors."""
    window_seconds: float
    """Length of its windows; 0 if a vector is of a whole clip."""
    parts: tuple[IndexPart, ...]

    @property
    def num_vectors(self) -> int:
        """Vectors of all parts."""
        return sum(part.num_vectors for part in self.parts)


@dataclass(frozen=True)
class EncoderRecord:
    """The encoder of all vectors."""

    uri: str
    sha256: str
    """Digest of its weights."""
    readout: Readout
    dim: int
    """Numbers of a vector."""


@dataclass(frozen=True)
class TrainedFile:
    """The file of what was trained."""

    id: str
    """Twelve hex digits of the settings and the sources it was trained for; its folder."""
    sha256: str
    kind: IndexKind
    num_vectors: int
    """Vectors of the sources it was trained for."""

    @property
    def file(self) -> str:
        """Its place within the index."""
        return f"{self.id}/trained.safetensors"


@dataclass(frozen=True)
class Recall:
    """Share of the exactly nearest vectors that a search finds, measured on vectors of the index."""

    num_queries: int
    neighbours: int
    searched_lists: int
    value: float
    by_lists: dict[int, float]
    """Recall, by the number of lists searched, up to the number chosen."""


@dataclass(frozen=True)
class IndexManifest:
    """Describes an index; its file signs an index that is whole."""

    uri: str
    """The folder. Not stored, because it may be moved."""
    settings: Mapping[str, Any]
    """Settings that decide the index; its sources do as well."""
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
        """Write the manifest, atomically: from then on the index is whole."""
        raw = asdict(self)
        del raw["uri"]
        storage.write_json(storage.join(self.uri, INDEX), raw, FORMAT_VERSION)

    @classmethod
    def load(cls, uri: str) -> Self:
        """Read the manifest of the index at ``uri``.

        Raises:
            FileNotFoundError: there is no index.
            ValueError: it is damaged, or of another version.
        """
        path = storage.join(uri, INDEX)
        if not storage.exists(path):
            raise FileNotFoundError(f"{uri} holds no {INDEX}: it is no index. Make one with unfused-ray index")
        try:
            raw = storage.read_json(path, FORMAT_VERSION, REMEDY)
        except ValueError as error:
            raise ValueError(str(error) if REMEDY in str(error) else f"{error}. Or {REMEDY}") from error
        try:
            found: Self = TypeAdapter(cls).validate_python({"uri": uri, **raw})
        except ValidationError as error:
            raise ValueError(f"{path} is not as unfused-ray index has written it ({error}): {REMEDY}") from error
        return found


def split_key(key: str, clip_id: int | None) -> tuple[str, float]:
    """Split a key as if of a piece into that of its recording and the second it begins at; 0 for a whole clip.

    A prepared source calls the pieces of a long recording ``key``, ``key@10``, ``key@20`` … Elsewhere, where clips have
    no ``clip_id``, a key names a whole clip whatever it ends in. The source's own keys may end so, too: which clips are
    pieces, the catalogue knows from all of them.
    """
    piece = None if clip_id is None else _PIECE.fullmatch(key)
    return (piece[1], float(piece[2])) if piece else (key, 0.0)


def read_checked(uri: str, sha256: str) -> bytes:
    """Read a file of an index.

    Raises:
        ValueError: it is missing, or not the file that the index was signed with.
    """
    try:
        data = storage.read_bytes(uri)
    except FileNotFoundError as error:
        raise ValueError(f"{error}, which its index names: {REMEDY}") from error
    if storage.sha256(data) != sha256:
        raise ValueError(f"{uri} is not the file that its index was signed with: {REMEDY}")
    return data
