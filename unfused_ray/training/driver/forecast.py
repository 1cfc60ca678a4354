"""The duration of a run, from the durations of its stages."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Forecast:
    """The durations of a run's stages, its work in blocks of all workers together, and the CPUs for it.

    Decoding runs beside training, on CPUs of its own as far as there are any. A pass takes as long as the slowest of
    three: the workers, the decoders, and all CPUs with the work of both. Clustering starts when a pass has ended.
    """

    decode: float
    """Seconds to decode a block on one CPU."""
    train: float
    """Seconds that a worker takes for a block: log-mel, views, gradient, and its share of an optimiser step."""
    embed: float
    """Seconds that a worker takes for a block of a pass that embeds every clip; 0 if there is no such pass."""
    cluster: float
    """Seconds of an epoch's clustering; 0 if nothing is clustered."""
    epochs: int
    train_blocks: int
    """Number of blocks in an epoch."""
    embed_blocks: int
    """Number of blocks in a pass that embeds every clip."""
    embed_passes: int
    """Number of passes of the whole run that embed every clip."""
    workers: int
    busy_cpus: float
    """Number of CPUs that a worker computes with."""
    decoders: float
    """Number of CPUs that may decode at the same time."""
    cpus: float
    """Number of all CPUs."""

    @property
    def limit(self) -> str:
        """The stage on which an epoch spends most time: training, decoding or clustering."""
        stages = {
            "training": self.train_blocks * self.train / self.workers,
            "decoding": self.train_blocks * self.decode / self.decoders,
            "clustering": self.cluster,
        }
        return max(stages, key=stages.__getitem__)

    @property
    def decode_cpus(self) -> float:
        """Number of CPUs that must decode for each worker so that no pass waits for data."""
        return self.decode / min(self.train, self.embed or self.train)

    @property
    def train_seconds(self) -> float:
        """Seconds of an epoch, without its clustering."""
        return self._pass_seconds(self.train_blocks, self.train)

    @property
    def embed_seconds(self) -> float:
        """Seconds of a pass that embeds every clip; 0 if there is no such pass."""
        return self._pass_seconds(self.embed_blocks, self.embed) if self.embed_passes else 0.0

    @property
    def hours(self) -> float:
        """Hours of the whole run."""
        return (self.epochs * (self.train_seconds + self.cluster) + self.embed_passes * self.embed_seconds) / 3600

    def _pass_seconds(self, blocks: int, block_seconds: float) -> float:
        computing, decoding = blocks * block_seconds, blocks * self.decode
        both = (self.busy_cpus * computing + decoding) / self.cpus
        return max(computing / self.workers, decoding / self.decoders, both)
