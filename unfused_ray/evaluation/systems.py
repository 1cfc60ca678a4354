"""The systems of a table: frozen encoders, random networks of their shapes, and log-mel statistics."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol as TypingProtocol

import numpy as np
import torch

from unfused_ray import storage
from unfused_ray.audio.log_mel import LogMel
from unfused_ray.config import EncoderConfig, FrontEndConfig
from unfused_ray.embedding.cache import EmbeddingCache
from unfused_ray.embedding.random_network import random_encoder
from unfused_ray.evaluation.embedders import EmbedderModel, completed_clips, is_onnx, is_spec
from unfused_ray.evaluation.protocol import ProtocolConfig
from unfused_ray.evaluation.tasks import Task
from unfused_ray.models.cost import cost_of
from unfused_ray.models.encoder import LAYERS
from unfused_ray.models.export import load_encoder, read_description, run_of
from unfused_ray.models.frozen import FrozenEncoder

_QUARTILES = (0, 25, 50, 75, 100)


class System(TypingProtocol):
    """A row of the table: vectors of any task's clips, from one or several networks."""

    @property
    def name(self) -> str:
        """Heading of the row."""
        ...

    def identity(self, task: Task) -> str:
        """Return a string that changes when its vectors of the task would, for reasons other than the protocol."""
        ...

    @property
    def num_networks(self) -> int:
        """Number of networks that are probed on a task, or on each of its folds."""
        ...

    def front_end_of(self, task: Task) -> FrontEndConfig | None:
        """Return the front end of its log-mels, normalised by the task's own statistics; None if its input is waves."""
        ...

    def cost(self, task: Task) -> tuple[int, float | None] | None:
        """Return parameters, and multiply–adds for a second of audio, of its network for a task; None if it has
        none."""
        ...

    def vectors(self, task: Task, protocol: ProtocolConfig, cache: EmbeddingCache) -> Iterator[np.ndarray]:
        """Yield (N, D) float32 vectors of the task's clips, from each network; a damaged clip is a row of NaN."""
        ...


@dataclass(frozen=True)
class LogMelStatistics:
    """A baseline without a network, from the log-mel.

    Its vector holds the mean, standard deviation, minimum, quartiles and maximum of each band over time, and the mean
    and standard deviation of the sizes of the band's steps from frame to frame.
    """

    front_end: FrontEndConfig
    name: str = "log-mel statistics"
    num_networks: int = 1

    def identity(self, task: Task) -> str:
        """Return the digest of the front end, which alone decides the vectors."""
        return self.front_end.digest()

    def front_end_of(self, task: Task) -> FrontEndConfig:
        """Return the front end, the same for all tasks."""
        return self.front_end

    def cost(self, task: Task) -> None:
        """Return None: there is no network."""

    def vectors(self, task: Task, protocol: ProtocolConfig, cache: EmbeddingCache) -> Iterator[np.ndarray]:
        """Yield (N, 9 · bands) vectors."""
        statistics = task.statistics(self.front_end)
        log_mel = LogMel(self.front_end, statistics.mean, statistics.std)
        vectors_ND = np.full((task.index.num_clips, 9 * self.front_end.num_mels), np.nan, np.float32)
        for clips in completed_clips(task.index, np.arange(task.index.num_clips), protocol.crop):
            for clip_id, wave in clips:
                bands_FT = log_mel(torch.from_numpy(wave)[None])[0].numpy()
                steps_FT = np.abs(np.diff(bands_FT, axis=1))
                levels_QF = np.percentile(bands_FT, _QUARTILES, axis=1)
                rows = [bands_FT.mean(1), bands_FT.std(1), *levels_QF, steps_FT.mean(1), steps_FT.std(1)]
                vectors_ND[clip_id] = np.concatenate(rows)
        yield vectors_ND


@dataclass(frozen=True)
class RandomNetwork:
    """Networks of one shape with random weights and calibrated batch norm, one per seed."""

    shape: EncoderConfig
    deepest: EncoderConfig
    """A deeper network whose first layers are this row's, for every seed: rows that share it are embedded once."""
    front_end: FrontEndConfig
    seeds: tuple[int, ...]

    @property
    def name(self) -> str:
        """Name of the shape, with its unusual settings."""
        size = (self.shape.channels, self.shape.width)
        unusual = [f"{size[0]} × {size[1]}"] if size != (EncoderConfig().channels, EncoderConfig().width) else []
        if self.front_end != FrontEndConfig():
            unusual.append(f"front end {self.front_end.digest()[:6]}")
        return f"random {self.shape.cut}" + (f" ({', '.join(unusual)})" if unusual else "")

    def identity(self, task: Task) -> str:
        """Return shape, front end and seeds; not ``deepest``, which depends on the other rows and changes no vector."""
        return f"{self.shape.digest()} {self.front_end.digest()} {self.seeds}"

    @property
    def num_networks(self) -> int:
        """One network per seed."""
        return len(self.seeds)

    def front_end_of(self, task: Task) -> FrontEndConfig:
        """Return the front end, the same for all tasks."""
        return self.front_end

    def cost(self, task: Task) -> tuple[int, float]:
        """Return the cost, the same for every seed and task."""
        return cost_of(self.shape, self.front_end)

    def vectors(self, task: Task, protocol: ProtocolConfig, cache: EmbeddingCache) -> Iterator[np.ndarray]:
        """Yield the vectors of one network per seed, calibrated on the task's training clips."""
        statistics, training = task.statistics(self.front_end), task.training
        for seed in self.seeds:
            inputs = {
                "random": seed,
                "encoder": self.deepest.model_dump(mode="json"),
                "front_end": self.front_end.model_dump(mode="json"),
                "crop": protocol.crop.model_dump(mode="json"),
                "normalisation": [statistics.mean, statistics.std],
                "calibrated_on": training.checksums,
            }
            make = partial(random_encoder, self.deepest, self.front_end, protocol.crop, training, statistics, seed)
            yield cache.vectors_of(inputs, task.index, make).read(self.shape.cut, protocol.readout)


@dataclass(frozen=True)
class TrainedModel:
    """An exported encoder or student.

    ``{task}`` in its path stands for the task's name, followed by the tested fold if there are folds: ``us8k-fold3``.
    """

    name: str
    path: str
    num_networks: int = 1

    def uri(self, task: Task) -> str:
        """Return the path or URI of the network for this task."""
        return self.path.replace("{task}", task.name)

    def shape(self, task: Task) -> tuple[EncoderConfig, FrontEndConfig]:
        """Return shape and front end of its network for this task.

        Raises:
            FileNotFoundError, ValueError: there is no export, or it has another version.
        """
        description = read_description(self.uri(task))
        return EncoderConfig(**description["encoder"]), FrontEndConfig(**description["front_end"])

    def identity(self, task: Task) -> str:
        """Return the hashes of weights and front end, which decide the vectors."""
        description = read_description(self.uri(task))
        return f"{description['sha256']} {FrontEndConfig(**description['front_end']).digest()}"

    def front_end_of(self, task: Task) -> FrontEndConfig:
        """Return the front end that the network was trained with."""
        return self.shape(task)[1]

    def cost(self, task: Task) -> tuple[int, float]:
        """Return the cost of the network for this task."""
        return cost_of(*self.shape(task))

    def vectors(self, task: Task, protocol: ProtocolConfig, cache: EmbeddingCache) -> Iterator[np.ndarray]:
        """Yield the vectors, with log-mels normalised by the task's own statistics, as in every row."""
        exported = load_encoder(self.uri(task))
        front_end = exported.log_mel.config
        statistics = task.statistics(front_end)
        encoder = FrozenEncoder(
            exported.encoder, LogMel(front_end, statistics.mean, statistics.std), protocol.crop, exported.details
        )
        yield cache.vectors(encoder, task.index).read(exported.encoder.config.cut, protocol.readout)


def largest_cost(system: System, tasks: Sequence[Task]) -> tuple[int, float | None] | None:
    """Return the cost of a row's largest network, if it has one per task or fold; None if there is no network."""
    costs = (system.cost(round_) for task in tasks for round_ in task.rounds)
    return max((cost for cost in costs if cost), key=lambda cost: (cost[0], cost[1] or 0.0), default=None)


def encoders_of(systems: Iterable[System], tasks: Sequence[Task]) -> dict[str, dict[str, list[str]]]:
    """Return the SHA-256 of each trained row's weights, by row and task; several if each fold has a network."""
    trained = [system for system in systems if isinstance(system, TrainedModel)]
    return {
        model.name: {
            task.name: sorted({read_description(model.uri(round_))["sha256"] for round_ in task.rounds})
            for task in tasks
        }
        for model in trained
    }


def parse_model(text: str) -> TrainedModel | EmbedderModel:
    """Parse a model from the command line: NAME=PATH or NAME=module:callable.

    Without a name, a path is named after its last folder, and an embedder after its callable. A name has no slash, so
    ``s3://bucket/run?scheme=http`` is a path without a name.
    """
    name, path = _split(text)
    if is_spec(path):
        return EmbedderModel(name or path.partition(":")[2], path)
    path = storage.absolute(path)
    if is_onnx(path):
        return EmbedderModel(name or storage.name(path), path)
    return TrainedModel(name or storage.name(run_of(path)), path)


def absolute_model(text: str) -> str:
    """Return a model of the command line with an absolute path, which is the same from any working directory."""
    _, path = _split(text)
    return text if is_spec(path) else text[: len(text) - len(path)] + storage.absolute(path)


def _split(text: str) -> tuple[str, str]:
    """Split a model of the command line into its name, "" if it has none, and the rest."""
    name, equals, path = text.partition("=")
    return ("", text) if not equals or "/" in name else (name, path)


def random_rows(shapes: Sequence[tuple[EncoderConfig, FrontEndConfig]], num_seeds: int) -> list[RandomNetwork]:
    """Make one row per distinct shape; shapes that differ only in their cut share the deepest network.

    Dropout is ignored, because it makes no difference to a network that is never trained.
    """
    if not num_seeds:
        return []
    usual = EncoderConfig().dropout
    distinct = dict.fromkeys((shape.replace(dropout=usual), front_end) for shape, front_end in shapes)
    rows = []
    for shape, front_end in distinct:
        family = [shape.replace(cut=cut) for cut in LAYERS]
        deepest = next(other for other in reversed(family) if (other, front_end) in distinct)
        rows.append(RandomNetwork(shape, deepest, front_end, tuple(range(num_seeds))))
    return rows


def families(systems: Sequence[System]) -> list[list[System]]:
    """Group the rows that share their networks' vectors, which one process should compute."""
    found: dict[object, list[System]] = {}
    for system in systems:
        shared = (system.deepest, system.front_end) if isinstance(system, RandomNetwork) else system.name
        found.setdefault(shared, []).append(system)
    return list(found.values())
