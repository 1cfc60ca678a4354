"""The duration of a run, from the durations of its stages."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Measured:
    """Seconds that each stage takes."""

    decode: float
    """A block, on one CPU."""
    train: float
    """A block, by one worker: log-mel, views, gradient, and the block's share of an optimiser step."""
    embed: float
    """A block of a pass that embeds every clip, by one worker; 0 if there is none."""
    cluster: float
    """An epoch's clustering; 0 if nothing is clustered."""


@dataclass(frozen=True)
class Work:
    """The work of a run, in blocks of all workers, and the CPUs for it."""

    epochs: int
    train_blocks: int
    """Blocks of an epoch."""
    embed_blocks: int
    """Blocks of a pass that embeds every clip."""
    embed_passes: int
    """Such passes of the whole run."""
    workers: int
    busy_cpus: float
    """CPUs that a worker computes with."""
    decoders: float
    """CPUs that may decode at once."""
    cpus: float
    """All CPUs."""


@dataclass(frozen=True)
class Forecast:
    """A run whose stages take so long.

    Decoding runs beside training, on CPUs of its own as far as there are any: a pass takes as long as the slowest of
    the workers, the decoders, and all CPUs with the work of both. Clustering waits for the end of a pass.
    """

    measured: Measured
    work: Work

    @property
    def limit(self) -> str:
        """The stage that an epoch spends most time on: training, decoding or clustering."""
        stages = {
            "training": self.work.train_blocks * self.measured.train / self.work.workers,
            "decoding": self.work.train_blocks * self.measured.decode / self.work.decoders,
            "clustering": self.measured.cluster,
        }
        return max(stages, key=stages.__getitem__)

    @property
    def decode_cpus(self) -> float:
        """CPUs for each worker's decoding with which no pass waits for data."""
        return self.measured.decode / min(self.measured.train, self.measured.embed or self.measured.train)

    @property
    def train_seconds(self) -> float:
        """Seconds of an epoch, without its clustering."""
        return self._pass_seconds(self.work.train_blocks, self.measured.train)

    @property
    def embed_seconds(self) -> float:
        """Seconds of a pass that embeds every clip; 0 if there is none."""
        return self._pass_seconds(self.work.embed_blocks, self.measured.embed) if self.work.embed_passes else 0.0

    @property
    def hours(self) -> float:
        """Hours of the whole run."""
        epochs = self.work.epochs * (self.train_seconds + self.measured.cluster)
        return (epochs + self.work.embed_passes * self.embed_seconds) / 3600

    def _pass_seconds(self, blocks: int, block_seconds: float) -> float:
        computing, decoding = blocks * block_seconds, blocks * self.measured.decode
        both = (self.work.busy_cpus * computing + decoding) / self.work.cpus
        return max(computing / self.work.workers, decoding / self.work.decoders, both)
