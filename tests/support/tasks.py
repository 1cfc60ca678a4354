"""Writes tiny tasks and exported encoders for tests of the evaluation."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from support.sources import write_source
from unfused_ray import storage
from unfused_ray.config import CropConfig, Cut, EncoderConfig, FrontEndConfig
from unfused_ray.data.shards.format import MANIFEST, SCHEMA
from unfused_ray.models.encoder import AudioNTT2020
from unfused_ray.models.export import save_encoder

LENGTHS = (2_400, 4_000, 7_000)
"""Samples of the clips, in turn; the first two are shorter than the crop."""
CROP = CropConfig(seconds=0.31, short_clips="tile")
SMALL = EncoderConfig(channels=4, width=16)
PROTOCOL = """
crop_seconds = 0.31
short_clips = "tile"
readout = "last"
[probes]
folds = 2
[probes.neighbours]
count = 3
[probes.few_shot]
clips_per_class = 2
draws = 2
strength = 0.01
tolerance = 1e-5
max_iterations = 10000
seed = 0
[probes.linear]
strengths = [0.01, 1.0]
tolerance = 1e-5
max_iterations = 10000
[bootstrap]
replicates = 200
seed = 0
"""


def write_task(folder: Path, train: int, valid: int, test: int, **columns: Sequence[Any]) -> str:
    """Write a task with these clips a split, of up to 8 classes that are easy to tell; ``columns`` replace columns."""
    sizes = {"train": train, "valid": valid, "test": test}
    splits = [split for split, size in sizes.items() if size]
    write_source(folder, [[sizes[split]] for split in splits], LENGTHS, splits)
    if train < 8:  # so that training clips have every class
        columns = {"labels": [[str(clip % train)] for clip in range(train + valid + test)], **columns}
    return replace_columns(folder, **columns)


def write_folds(folder: Path, sizes: tuple[int, ...]) -> str:
    """Write a task with folds of these sizes and three classes that are hard to tell; a group is two clips."""
    write_source(folder, [[size] for size in sizes], (2_400, 4_000), [f"fold{1 + n}" for n in range(len(sizes))])
    labels = [[f"class {number % 3}"] for number in range(sum(sizes))]
    groups = [f"pair {first} {number // 2}" for first, size in enumerate(sizes) for number in range(size)]
    return replace_columns(folder, labels=labels, group=groups)


def replace_columns(folder: Path, **columns: Sequence[Any]) -> str:
    """Replace columns of a prepared source; the values are in the order of clip_id."""
    manifest = json.loads((folder / MANIFEST).read_text())
    first = 0
    for shard in manifest["shards"]:
        path = folder / shard["file"]
        table = pq.read_table(path)
        for name, values in columns.items():
            values = pa.array(values[first : first + len(table)], SCHEMA.field(name).type)
            table = table.set_column(SCHEMA.get_field_index(name), SCHEMA.field(name), values)
        first += len(table)
        buffer = io.BytesIO()
        pq.write_table(table, buffer)
        path.write_bytes(buffer.getvalue())
        shard["sha256"] = storage.sha256(buffer.getvalue())
    (folder / MANIFEST).write_text(json.dumps(manifest))
    return str(folder)


def audio_of(uri: str) -> list[bytes]:
    """Return the audio of the clips of a prepared source, in the order of clip_id."""
    shards = json.loads(Path(uri, MANIFEST).read_text())["shards"]
    return [audio for shard in shards for audio in pq.read_table(Path(uri, shard["file"]))["audio"].to_pylist()]


def repeat_first_clip(folder: Path, clip_id: int) -> str:
    """Give clip ``clip_id`` of a prepared source the recording of clip 0."""
    shards = json.loads((folder / MANIFEST).read_text())["shards"]
    table = pa.concat_tables([pq.read_table(folder / shard["file"]) for shard in shards])
    columns = {name: table[name].to_pylist() for name in ("audio", "num_samples")}
    for values in columns.values():
        values[clip_id] = values[0]
    return replace_columns(folder, **columns)


def write_encoder(folder: Path, cut: Cut, seed: int = 0, front_end: FrontEndConfig | None = None) -> str:
    """Write an exported encoder with random weights; its statistics and its rule for short clips are no task's."""
    torch.manual_seed(seed)
    front_end = front_end or FrontEndConfig()
    encoder = AudioNTT2020(SMALL.replace(cut=cut), front_end.num_mels)
    save_encoder(str(folder), encoder, front_end, CropConfig(seconds=0.5), mean=3.0, std=0.7, extra={})
    return str(folder)
