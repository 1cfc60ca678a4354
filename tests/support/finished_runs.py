"""Folders of finished runs of both stages, on clips with known labels and clusters; nothing is trained."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from unfused_ray import storage
from unfused_ray.audio.decode import encode_flac
from unfused_ray.clustering.assignment import Assignment, write_assignment
from unfused_ray.config import (
    CropConfig,
    DecarConfig,
    DistillConfig,
    EncoderConfig,
    FrontEndConfig,
    PretrainConfig,
    PseudoLabelConfig,
    UnfusedConfig,
)
from unfused_ray.data.shards.format import SCHEMA, Manifest, Shard
from unfused_ray.models.encoder import AudioNTT2020
from unfused_ray.models.export import save_encoder
from unfused_ray.runs.checkpoints import CheckpointStore, Position
from unfused_ray.runs.run import Run
from unfused_ray.runs.status import Status
from unfused_ray.storage import sha256_file

NUM_CLIPS = 45
NUM_CLUSTERS = 5
RATE = 16_000
FRONT_END = FrontEndConfig()
ENCODER = EncoderConfig(channels=4, width=16)
CROP = CropConfig(seconds=0.2)
LABELS = ("hum", "hiss", "")
FIGURES = ("epoch", "loss", "inertia", "effective_rank", "empty_clusters", "clips_per_second", "nmi_previous")
DAMAGED = 44
TERMS = ("epoch", "loss", "ce", "ce_branches", "kl", "mse", "agreement", "clips_per_second")
DISTILLATION = [
    dict(zip(TERMS, (0.0, 9.5, 3.25, 8.0, 1.5, 4.0, 0.125, 50.0), strict=True)),
    dict(zip(TERMS, (1.0, 2.5, 0.75, 2.0, 1.0, 3.0, 0.75, 60.0), strict=True)),
]
HISTORY = [
    dict(zip(FIGURES[:-1], (0.0, 1.6, 30.0, 7.5, 0.0, 50.0), strict=True)),
    dict(zip(FIGURES, (1.0, 1.2, 20.0, 6.5, 2.0, 60.0, 0.75), strict=True)),
]


class Example(NamedTuple):
    """Folders of a finished pre-training and of a distillation of it on the same clips, and the waves of the clips."""

    uri: str
    student: str
    waves: list[np.ndarray]


def wave(clip_id: int) -> np.ndarray:
    """Return a hum (clips 0, 3, 6 …), a hiss (1, 4 …) or a clip without a label (2, 5 …); lengths differ."""
    rng = np.random.default_rng(clip_id)
    num_samples = 2400 + 160 * (clip_id % 20)
    noise = rng.standard_normal(num_samples) * 2000
    hum = np.sin(np.arange(num_samples) * 2 * np.pi * 220 / RATE) * 8000
    return (noise if clip_id % 3 == 1 else hum + noise / 100).astype(np.int16)


def prepare_waves(folder: Path, waves: list[np.ndarray], damaged: int = -1) -> None:
    """Write a prepared source: two shards of two row groups; the audio of clip ``damaged`` cannot be decoded."""
    shards = []
    for number, ids in enumerate(np.array_split(np.arange(len(waves)), 2)):
        rows = {
            "audio": [encode_flac(waves[i], RATE) if i != damaged else b"not audio" for i in ids],
            "num_samples": [len(waves[i]) for i in ids],
            "key": [f"clip {i}" for i in ids],
            "labels": [[LABELS[i % 3]] if LABELS[i % 3] else [] for i in ids],
            "split": [""] * len(ids),
            "group": [""] * len(ids),
        }
        path = folder / f"{number:05d}.parquet"
        size = -(-len(ids) // 2)
        pq.write_table(pa.table(rows, schema=SCHEMA), path, row_group_size=size)
        seconds = sum(len(waves[i]) for i in ids) / RATE
        row_groups, digest = (size, len(ids) - size), sha256_file(str(path))
        shards.append(Shard(path.name, "", row_groups, seconds, path.stat().st_size, digest, {}))
    Manifest(str(folder), tuple(shards), {}, {"front_end": FRONT_END.model_dump()}).save()


def make_assignment(epoch: int) -> Assignment:
    """Return clusters of 15, 12, 9, 6 and 3 clips; the clip with the highest id is the nearest to its centroid."""
    labels = np.repeat(np.arange(NUM_CLUSTERS), [15, 12, 9, 6, 3]).astype(np.int32)
    distances = np.linspace(1, 0, NUM_CLIPS, dtype=np.float32)
    return Assignment(epoch, (labels,), (distances,), (np.eye(NUM_CLUSTERS, 8, dtype=np.float32),), {})


def write_run(uri: str, data: str) -> None:
    """Write the folder of a finished pre-training on ``data``."""
    method = DecarConfig(num_clusters=(NUM_CLUSTERS,), projection_dim=8)
    run = Run(uri)
    run.open(PretrainConfig(data=(data,), name="hum", epochs=2, method=method), {"num_clips": NUM_CLIPS})
    run.write_status(Status("finished", 2, 0))
    run.write_history(HISTORY)
    commit(uri, Position(2, 0))
    write_assignment(f"{uri}/assignments/epoch-0000", Assignment(0, (), (), (), {}))
    write_assignment(f"{uri}/assignments/epoch-0001", make_assignment(1))
    torch.manual_seed(0)
    encoder = AudioNTT2020(ENCODER, FRONT_END.num_mels)
    save_encoder(f"{uri}/encoder", encoder, FRONT_END, CROP, -5.0, 4.0, {})


def write_distillation(uri: str, data: str, **labels: Any) -> None:
    """Write the folder of a finished distillation on ``data``, where clip ``DAMAGED`` is damaged."""
    config = DistillConfig(
        data=(data,),
        name="hum-student",
        epochs=2,
        teacher="s3://bucket/hum/encoder?region=x",
        labels=PseudoLabelConfig(**{"num_clusters": (NUM_CLUSTERS,), **labels}),
        method=UnfusedConfig(alpha=0.6, beta=0.25),
    )
    run = Run(uri)
    run.open(config, {"num_clips": NUM_CLIPS})
    run.write_status(Status("finished", 2, 0))
    run.write_history(DISTILLATION)
    commit(uri, Position(2, 0))
    assignment = make_assignment(0)
    assignment.labels[0][DAMAGED], assignment.distances[0][DAMAGED] = -1, np.nan
    write_assignment(f"{uri}/pseudo-labels", replace(assignment, health={"dim": 8.0, "nmi_labels": 0.3125}))
    torch.manual_seed(0)
    student = AudioNTT2020(EncoderConfig(cut="fc1"), FRONT_END.num_mels)
    save_encoder(f"{uri}/student", student, FRONT_END, CROP, -5.0, 4.0, {})


def commit(uri: str, position: Position) -> None:
    """Write a checkpoint that holds only what every checkpoint must."""
    store = CheckpointStore(uri)
    storage.write_bytes(storage.join(store.begin(position), "bank", "bank.json"), b"{}")
    store.commit(position, {}, {})


def write_example(folder: Path) -> Example:
    """Write a pre-training and a distillation of it."""
    data, damaged = folder / "data", folder / "damaged"
    example = Example(str(folder / "hum"), str(folder / "student"), [wave(clip_id) for clip_id in range(NUM_CLIPS)])
    data.mkdir()
    damaged.mkdir()
    prepare_waves(data, example.waves)
    prepare_waves(damaged, example.waves, damaged=DAMAGED)
    write_run(example.uri, str(data))
    write_distillation(example.student, str(damaged))
    return example
