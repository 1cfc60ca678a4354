"""The rows of a table: frozen encoders, random networks of their shapes, and log-mel statistics."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol as TypingProtocol

import numpy as np
import torch

from unfused_ray import storage
from unfused_ray.audio.crop import fit_short_clip
from unfused_ray.audio.log_mel import LogMel
from unfused_ray.config import CropConfig, Cut, EncoderConfig, FrontEndConfig, Readout
from unfused_ray.embedding.cache import EmbeddingCache
from unfused_ray.embedding.clips import read_clips, read_out
from unfused_ray.embedding.random_network import random_encoder
from unfused_ray.evaluation.protocol import ProtocolConfig
from unfused_ray.evaluation.tasks import Task
from unfused_ray.models.cost import multiply_adds, num_parameters
from unfused_ray.models.encoder import LAYERS, AudioNTT2020
from unfused_ray.models.export import FOLDERS, FrozenEncoder, load_encoder, read_description

_QUARTILES = (0, 25, 50, 75, 100)
Features = Mapping[str, np.ndarray]
"""(N, D) float32 of every clip of a task, by readout."""


class System(TypingProtocol):
    """A row of the table."""

    @property
    def name(self) -> str:
        """What it is called."""
        ...

    @property
    def has_picture(self) -> bool:
        """Whether a map of its vectors is worth drawing."""
        ...

    def identity(self, task: Task) -> str:
        """Changes when its features of the task would, beyond the protocol."""
        ...

    def cost(self, task: Task) -> tuple[int, float] | None:
        """Parameters, and multiply–adds for a second of audio; None where there is no network."""
        ...

    def features(self, task: Task, protocol: ProtocolConfig, cache: EmbeddingCache) -> Iterator[Features]:
        """The features of each of its seeds."""
        ...


@dataclass(frozen=True)
class LogMelStatistics:
    """No network: mean, standard deviation, minimum, quartiles and maximum of each log-mel band over time, and mean
    and standard deviation of its steps from frame to frame."""

    front_end: FrontEndConfig
    name: str = "log-mel statistics"
    has_picture: bool = False

    def identity(self, task: Task) -> str:
        """See :class:`System`."""
        return self.front_end.digest()

    def cost(self, task: Task) -> tuple[int, float] | None:
        """See :class:`System`."""
        return None

    def features(self, task: Task, protocol: ProtocolConfig, cache: EmbeddingCache) -> Iterator[Features]:
        """See :class:`System`; one readout, (N, 9 · bands)."""
        statistics = task.statistics(self.front_end)
        log_mel = LogMel(self.front_end, statistics.mean, statistics.std)
        features_ND = np.full((task.index.num_clips, 9 * self.front_end.num_mels), np.nan, np.float32)
        shortest = _crop(protocol).num_samples(self.front_end.sample_rate)
        for clips in read_clips(task.index, np.arange(task.index.num_clips)):
            for clip_id, wave in clips:
                if len(wave) < shortest:
                    wave = fit_short_clip(wave, shortest, protocol.short_clips)
                bands_FT = log_mel(torch.from_numpy(wave)[None])[0].numpy()
                steps_FT = np.abs(np.diff(bands_FT, axis=1))
                levels_QF = np.percentile(bands_FT, _QUARTILES, axis=1)
                rows = [bands_FT.mean(1), bands_FT.std(1), *levels_QF, steps_FT.mean(1), steps_FT.std(1)]
                features_ND[clip_id] = np.concatenate(rows)
        yield {"last": features_ND}


@dataclass(frozen=True)
class RandomNetwork:
    """Networks of one shape with random weights and calibrated batch norm, one a seed."""

    shape: EncoderConfig
    deepest: EncoderConfig
    """A network that begins like ``shape`` and is shared by several rows."""
    front_end: FrontEndConfig
    seeds: tuple[int, ...]
    has_picture: bool = False

    @property
    def name(self) -> str:
        """The shape in words."""
        usual = EncoderConfig(cut=self.shape.cut, dropout=self.shape.dropout)
        size = "" if self.shape == usual else f" ({self.shape.channels} × {self.shape.width})"
        return f"random {self.shape.cut}{size}"

    def identity(self, task: Task) -> str:
        """See :class:`System`."""
        return f"{self.deepest.digest()} {self.front_end.digest()} {self.seeds}"

    def cost(self, task: Task) -> tuple[int, float] | None:
        """See :class:`System`."""
        encoder = AudioNTT2020(self.shape, self.front_end.num_mels)
        return num_parameters(encoder), multiply_adds(encoder, self.front_end)

    def features(self, task: Task, protocol: ProtocolConfig, cache: EmbeddingCache) -> Iterator[Features]:
        """See :class:`System`."""
        statistics = task.statistics(self.front_end)
        for seed in self.seeds:
            encoder = random_encoder(self.deepest, self.front_end, _crop(protocol), task.training, statistics, seed)
            yield _read(cache, encoder, task, self.shape.cut, protocol.readouts)


@dataclass(frozen=True)
class TrainedModel:
    """An exported encoder or student; ``{task}`` in its path stands for the task's name."""

    name: str
    path: str
    has_picture: bool = True

    def uri(self, task: Task) -> str:
        """Where the network for this task is."""
        return self.path.replace("{task}", task.name)

    def identity(self, task: Task) -> str:
        """See :class:`System`."""
        return str(read_description(self.uri(task))["sha256"])

    def cost(self, task: Task) -> tuple[int, float] | None:
        """See :class:`System`."""
        encoder = load_encoder(self.uri(task))
        return num_parameters(encoder.encoder), multiply_adds(encoder.encoder, encoder.log_mel.config)

    def features(self, task: Task, protocol: ProtocolConfig, cache: EmbeddingCache) -> Iterator[Features]:
        """See :class:`System`; normalised by the task's own statistics, as every row is."""
        exported = load_encoder(self.uri(task))
        front_end = exported.log_mel.config
        statistics = task.statistics(front_end)
        encoder = FrozenEncoder(
            exported.encoder, LogMel(front_end, statistics.mean, statistics.std), _crop(protocol), exported.details
        )
        yield _read(cache, encoder, task, exported.encoder.config.cut, protocol.readouts)


def parse_model(text: str) -> TrainedModel:
    """A model as the command line names it: NAME=PATH, or a path, whose last folder then is the name."""
    name, equals, path = text.partition("=")
    if not equals:
        name, path = "", text
    path = storage.absolute(path)
    folder = storage.parent(path) if storage.name(path) in FOLDERS else path
    return TrainedModel(name or storage.name(folder), path)


def random_rows(shapes: Sequence[tuple[EncoderConfig, FrontEndConfig]], num_seeds: int) -> list[RandomNetwork]:
    """One row for each distinct shape; those that differ in their cut alone share the deepest network."""
    rows: list[RandomNetwork] = []
    for shape, front_end in shapes:
        family = [other for other, _ in shapes if other.model_copy(update={"cut": shape.cut}) == shape]
        deepest = max(family, key=lambda other: LAYERS.index(other.cut))
        row = RandomNetwork(shape, deepest, front_end, tuple(range(num_seeds)))
        if num_seeds and row not in rows:
            rows.append(row)
    return rows


def _read(
    cache: EmbeddingCache, encoder: FrozenEncoder, task: Task, cut: Cut, readouts: Sequence[Readout]
) -> dict[str, np.ndarray]:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    layers = cache.layers(encoder.to(device), task.index)
    # Where the network ends with a block, its last layer is one of the blocks: both is blocks.
    wanted = [readout for readout in readouts if readout != "both" or not cut.startswith("block")]
    return {readout: read_out(layers, cut, readout) for readout in wanted}


def _crop(protocol: ProtocolConfig) -> CropConfig:
    return CropConfig(seconds=protocol.crop_seconds, short_clips=protocol.short_clips)
