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
    """A row of the table: vectors of any task's clips, from one network or several."""

    @property
    def name(self) -> str:
        """Heading of the row."""
        ...

    def identity(self, task: Task) -> str:
        """Changes when its vectors of the task would, beyond the protocol."""
        ...

    @property
    def num_networks(self) -> int:
        """Networks that are probed on a task, or on each of its folds."""
        ...

    def front_end_of(self, task: Task) -> FrontEndConfig | None:
        """The log-mels that it hears a task by, normalised by the task's own statistics; None if it hears waves."""
        ...

    def cost(self, task: Task) -> tuple[int, float | None] | None:
        """Parameters, and multiply–adds for a second of audio, of its network for a task; None if there is none."""
        ...

    def vectors(self, task: Task, protocol: ProtocolConfig, cache: EmbeddingCache) -> Iterator[np.ndarray]:
        """(N, D) float32 of the task's clips, from each of its networks; a damaged clip is a row of NaN."""
        ...


@dataclass(frozen=True)
class LogMelStatistics:
    """No network: mean, standard deviation, minimum, quartiles and maximum of each log-mel band over time, and mean
    and standard deviation of the sizes of its steps from frame to frame."""

    front_end: FrontEndConfig
    name: str = "log-mel statistics"
    num_networks: int = 1

    def identity(self, task: Task) -> str:
        """The front end decides."""
        return self.front_end.digest()

    def front_end_of(self, task: Task) -> FrontEndConfig:
        """One for all tasks."""
        return self.front_end

    def cost(self, task: Task) -> None:
        """None: there is no network."""

    def vectors(self, task: Task, protocol: ProtocolConfig, cache: EmbeddingCache) -> Iterator[np.ndarray]:
        """(N, 9 · bands)."""
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
    """Networks of one shape with random weights and calibrated batch norm, one a seed."""

    shape: EncoderConfig
    deepest: EncoderConfig
    """A network whose beginning is this row's, for every seed: rows that share it are embedded once."""
    front_end: FrontEndConfig
    seeds: tuple[int, ...]

    @property
    def name(self) -> str:
        """The shape in words, with what is unusual about it."""
        size = (self.shape.channels, self.shape.width)
        unusual = [f"{size[0]} × {size[1]}"] if size != (EncoderConfig().channels, EncoderConfig().width) else []
        if self.front_end != FrontEndConfig():
            unusual.append(f"front end {self.front_end.digest()[:6]}")
        return f"random {self.shape.cut}" + (f" ({', '.join(unusual)})" if unusual else "")

    def identity(self, task: Task) -> str:
        """Shape, front end and seeds decide; not ``deepest``, which depends on the other rows and changes nothing."""
        return f"{self.shape.digest()} {self.front_end.digest()} {self.seeds}"

    @property
    def num_networks(self) -> int:
        """One a seed."""
        return len(self.seeds)

    def front_end_of(self, task: Task) -> FrontEndConfig:
        """One for all tasks."""
        return self.front_end

    def cost(self, task: Task) -> tuple[int, float]:
        """The same for every seed and task."""
        return cost_of(self.shape, self.front_end)

    def vectors(self, task: Task, protocol: ProtocolConfig, cache: EmbeddingCache) -> Iterator[np.ndarray]:
        """A network a seed, calibrated on the task's training clips."""
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
    """An exported encoder or student; ``{task}`` in its path stands for the task's name, with that of the tested fold
    where there are folds: ``us8k-fold3``."""

    name: str
    path: str
    num_networks: int = 1

    def uri(self, task: Task) -> str:
        """Place of the network for this task."""
        return self.path.replace("{task}", task.name)

    def shape(self, task: Task) -> tuple[EncoderConfig, FrontEndConfig]:
        """Shape and front end of its network for this task.

        Raises:
            FileNotFoundError, ValueError: there is no export, or none of this version.
        """
        description = read_description(self.uri(task))
        return EncoderConfig(**description["encoder"]), FrontEndConfig(**description["front_end"])

    def identity(self, task: Task) -> str:
        """Weights and front end decide."""
        description = read_description(self.uri(task))
        return f"{description['sha256']} {FrontEndConfig(**description['front_end']).digest()}"

    def front_end_of(self, task: Task) -> FrontEndConfig:
        """The front end that the network was trained with."""
        return self.shape(task)[1]

    def cost(self, task: Task) -> tuple[int, float]:
        """Counted on the network for this task."""
        return cost_of(*self.shape(task))

    def vectors(self, task: Task, protocol: ProtocolConfig, cache: EmbeddingCache) -> Iterator[np.ndarray]:
        """Normalised by the task's own statistics, as every row is."""
        exported = load_encoder(self.uri(task))
        front_end = exported.log_mel.config
        statistics = task.statistics(front_end)
        encoder = FrozenEncoder(
            exported.encoder, LogMel(front_end, statistics.mean, statistics.std), protocol.crop, exported.details
        )
        yield cache.vectors(encoder, task.index).read(exported.encoder.config.cut, protocol.readout)


def largest_cost(system: System, tasks: Sequence[Task]) -> tuple[int, float | None] | None:
    """The cost of a row's largest network, where it has one for each task or fold; None if there is no network."""
    costs = (system.cost(round_) for task in tasks for round_ in task.rounds)
    return max((cost for cost in costs if cost), key=lambda cost: (cost[0], cost[1] or 0.0), default=None)


def encoders_of(systems: Iterable[System], tasks: Sequence[Task]) -> dict[str, dict[str, list[str]]]:
    """SHA-256 of the weights that each trained row was read with, by task: several where folds have a network each."""
    trained = [system for system in systems if isinstance(system, TrainedModel)]
    return {
        model.name: {
            task.name: sorted({read_description(model.uri(round_))["sha256"] for round_ in task.rounds})
            for task in tasks
        }
        for model in trained
    }


def parse_model(text: str) -> TrainedModel | EmbedderModel:
    """A model as the command line names it: NAME=PATH or NAME=module:callable.

    Without a name, a path is called as its last folder, and an embedder as its callable. A name has no slash: before
    the ``=`` of ``s3://bucket/run?scheme=http`` there is none.
    """
    name, equals, path = text.partition("=")
    if not equals or "/" in name:
        name, path = "", text
    if is_spec(path):
        return EmbedderModel(name or path.partition(":")[2], path)
    path = storage.absolute(path)
    if is_onnx(path):
        return EmbedderModel(name or storage.name(path), path)
    return TrainedModel(name or storage.name(run_of(path)), path)


def random_rows(shapes: Sequence[tuple[EncoderConfig, FrontEndConfig]], num_seeds: int) -> list[RandomNetwork]:
    """One row for each distinct shape; those that differ in their cut alone share the deepest network.

    Dropout makes no difference to a network that is never trained.
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
    """Group the rows that share their networks' vectors, which one process is to make."""
    found: dict[object, list[System]] = {}
    for system in systems:
        shared = (system.deepest, system.front_end) if isinstance(system, RandomNetwork) else system.name
        found.setdefault(shared, []).append(system)
    return list(found.values())
