"""Writes sources as people have them (lists, hub Parquet, folders) with synthetic sound, and lists or prepares them."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import soundfile

from unfused_ray.config import ColumnsConfig, PrepareConfig
from unfused_ray.data.parts.executor import InThisProcess
from unfused_ray.data.shards import ingest
from unfused_ray.data.shards.format import Manifest
from unfused_ray.data.sources.columns import BY_NAME
from unfused_ray.data.sources.fetch import fetch
from unfused_ray.data.sources.find import find
from unfused_ray.data.sources.items import Listing
from unfused_ray.data.sources.listing import list_source
from unfused_ray.data.sources.notes import Kind
from unfused_ray.data.sources.pieces import Piece, pieces

HUB_AUDIO = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def encoded(number: int = 0, container: str = "WAV", seconds: float = 0.2) -> bytes:
    """Encode a burst of noise, mono at 16 kHz, different for each number."""
    wave = np.random.default_rng(number).normal(0, 0.1, round(seconds * 16_000))
    buffer = io.BytesIO()
    soundfile.write(buffer, wave, 16_000, format=container)
    return buffer.getvalue()


def write_clips(folder: Path, *names: str) -> Path:
    """Write a different clip under each name."""
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(encoded(number))
    return folder


def write_list(path: Path, lines: Sequence[str], encoding: str = "utf-8") -> str:
    """Write a list with these lines; return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes("".join(f"{line}\n" for line in lines).encode(encoding))
    return str(path)


def write_hub(
    path: Path,
    cells: Sequence[Mapping[str, Any]],
    features: Mapping[str, Any] | None = None,
    **columns: Sequence[Any] | pa.Array,
) -> str:
    """Write Parquet as the hub does: audio cells of bytes and path, and a description of the columns."""
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.table({"audio": pa.array(cells, HUB_AUDIO), **columns})
    if features:
        described = {"info": {"features": {"audio": {"_type": "Audio"}, **features}}}
        table = table.replace_schema_metadata({"huggingface": json.dumps(described)})
    pq.write_table(table, path)
    return str(path)


def hub_cells(count: int, first: int = 0) -> list[dict[str, Any]]:
    """Return audio cells that hold the bytes of their clips."""
    return [{"bytes": encoded(first + n), "path": f"{first + n}.flac"} for n in range(count)]


def listed(source: Path | str, columns: ColumnsConfig = BY_NAME) -> Listing:
    """List a source in this process."""
    return list_source(find(str(source)), InThisProcess(), columns)


def ends(source: Path | str) -> list[str]:
    """Return "read" for each clip of a source, or the reason for setting it aside."""
    found = [list(pieces(item, audio, 16_000, 10.0))[-1] for item, audio in fetch(listed(source).items)]
    return ["read" if isinstance(each, Piece) else each.reason for each in found]


def column(listing: Listing, name: str) -> list[Any]:
    """Return a column of a listing."""
    return listing.items[name].to_pylist()


def by_key(listing: Listing, name: str) -> dict[str, Any]:
    """Return a column of a listing by the clips' keys."""
    return dict(zip(column(listing, "key"), column(listing, name), strict=True))


def said(listing: Listing, kind: Kind) -> str:
    """Return all notes of a kind, with their counts, as one text."""
    return "; ".join(f"{note.text} × {count}" for note, count in listing.notes.items() if note.kind == kind)


def prepared(source: Path | str, output: Path, **settings: Any) -> Manifest:
    """Prepare a source; return the manifest."""
    return ingest.run(ingest.check(PrepareConfig(source=str(source), output=str(output), **settings)))


def rows_by_key(manifest: Manifest) -> dict[str, dict[str, Any]]:
    """Return the rows of a prepared source's shards, by key."""
    tables = [pq.read_table(Path(manifest.uri, shard.file)) for shard in manifest.shards]
    return {row["key"]: row for row in pa.concat_tables(tables).to_pylist()}
