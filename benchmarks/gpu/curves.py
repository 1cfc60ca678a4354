"""Loss curves on the embedded recordings: bfloat16, float32 and a processor, from the same weights, clips and draws."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from benchmarks.gpu.learning import NoiseBlock, learner
from benchmarks.gpu.timing import SetAsideError
from benchmarks.measure import ROOT, Figure, figure
from unfused_ray import recipes
from unfused_ray.config import TrainingConfig
from unfused_ray.runs.checkpoints import Position
from unfused_ray.training.worker.epoch_sums import EpochSums

LAST = 0.25
"""Share of the steps, at the end, over which losses are averaged."""


@dataclass(frozen=True)
class Recordings:
    """The drum sounds that come with the project, in memory."""

    waves: list[np.ndarray]
    class_ids: np.ndarray
    num_classes: int

    @classmethod
    def read(cls, num_clips: int) -> Recordings:
        """Decode the first sounds.

        Raises:
            ModuleNotFoundError: soundfile is not installed.
            SetAsideError: a sound is not at 16 kHz.
        """
        import soundfile

        waves, names = [], []
        with tarfile.open(ROOT / "recordings" / "drums.tar") as tar:
            members = {member.name: member for member in tar.getmembers()}
            for name in [name for name in members if name.endswith(".ogg")][:num_clips]:
                sound, beside = (tar.extractfile(members[each]) for each in (name, name.replace(".ogg", ".json")))
                assert sound is not None and beside is not None
                wave, rate = soundfile.read(io.BytesIO(sound.read()), dtype="int16")
                if rate != 16_000:
                    raise SetAsideError(f"{name} is at {rate} Hz, not at 16,000")
                waves.append(wave)
                names.append(json.load(beside)["label"])
        classes = sorted(set(names))
        return cls(waves, np.array([classes.index(name) for name in names], np.int32), len(classes))

    def blocks(self, config: TrainingConfig, seed: int) -> Iterator[Any]:
        """Yield endless blocks of random crops of random clips, a function of the seed."""
        rng, size = np.random.default_rng(seed), config.batch.block
        samples = config.crop.num_samples(config.front_end.sample_rate)
        for index in range(1 << 30):
            clip_ids = rng.integers(len(self.waves), size=size)
            crops = np.zeros((size, 1, samples), np.int16)
            for crop, clip_id in zip(crops[:, 0], clip_ids, strict=True):
                wave = self.waves[clip_id]
                start = rng.integers(max(1, len(wave) - samples + 1))
                crop[: len(wave[start : start + samples])] = wave[start : start + samples]
            yield NoiseBlock(index, clip_ids, crops, np.ones(size, np.float32))


def losses(recordings: Recordings, device: torch.device, precision: str, seed: int, num_steps: int) -> list[float]:
    """Train a student on the classes of the sounds; return the mean loss of each step."""
    config: TrainingConfig = recipes.DISTILL["tiny"][1].replace(
        {"runtime.precision": precision, "seed": seed, "encoder.dropout": 0.0, "augment.mixup": 0.2}
    )
    learning = learner(config, device, recordings.num_classes, seed)
    blocks, curve = recordings.blocks(config, seed), []
    for step in range(num_steps):
        sums = EpochSums()
        learning.step(Position(0, step), blocks, [recordings.class_ids], 1e-3, sums)
        curve.append(sums.values["loss"])
    return [float(loss) / config.batch.clips_per_step for loss in curve]


def measure(device: torch.device, small: bool) -> list[Figure]:
    """Return the losses at the end, and their ratios to those of the processor's float32, seed by seed."""
    recordings = Recordings.read(24 if small else 512)
    num_steps, seeds = (4, (0, 1)) if small else (120, (0, 1, 2))
    last = max(1, int(LAST * num_steps))
    contenders = {"bfloat16": (device, "bfloat16"), "float32": (device, "float32")}
    if device.type != "cpu":
        contenders["float32 on the processor"] = (torch.device("cpu"), "float32")
    found = {
        name: [float(np.mean(losses(recordings, *where, seed, num_steps)[-last:])) for seed in seeds]
        for name, where in contenders.items()
    }
    figures = [figure(f"loss after {num_steps} steps, {name}", values, "") for name, values in found.items()]
    *others, reference = found
    for name in others:
        pairs = zip(found[name], found[reference], strict=True)
        figures.append(figure(f"{name} / {reference}, seed by seed", [a / b for a, b in pairs], "×"))
    return figures
