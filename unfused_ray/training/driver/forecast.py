"""How long a run takes, out of how long its stages do."""

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
    """A block of a pass that embeds every clip, by one worker; 0 where there is none."""
    cluster: float
    """An epoch's clustering; 0 where labels are fixed."""


@dataclass(frozen=True)
class Work:
    """What a run has to do, in blocks of all workers, and with what."""

    epochs: int
    train_blocks: int
    """Of an epoch."""
    embed_blocks: int
    """Of a pass that embeds every clip."""
    embed_passes: int
    """Of the whole run."""
    workers: int
    busy_cpus: float
    """CPUs that a worker computes with."""
    decoders: float
    """CPUs that may decode at once."""
    cpus: float
    """All there are."""


@dataclass(frozen=True)
class Forecast:
    """What to expect of a run."""

    limit: str
    """The stage that an epoch spends most time on: training, decoding or clustering."""
    decode_cpus: float
    """CPUs for each worker's decoding with which no pass waits for data."""
    train_seconds: float
    """Of an epoch, without its clustering."""
    embed_seconds: float
    """Of a pass that embeds every clip."""
    hours: float
    """Of the whole run."""


def forecast(measured: Measured, work: Work) -> Forecast:
    """What stages that take so long make of a run.

    Decoding runs beside training, on CPUs of its own as far as there are any: a pass takes as long as the slowest of
    the workers, the decoders, and all CPUs with the work of both. Clustering waits for the end of a pass.
    """

    def pass_seconds(blocks: int, block_seconds: float) -> float:
        computing, decoding = blocks * block_seconds, blocks * measured.decode
        both = (work.busy_cpus * computing + decoding) / work.cpus
        return max(computing / work.workers, decoding / work.decoders, both)

    train = pass_seconds(work.train_blocks, measured.train)
    embed = pass_seconds(work.embed_blocks, measured.embed) if work.embed_passes else 0.0
    stages = {
        "training": work.train_blocks * measured.train / work.workers,
        "decoding": work.train_blocks * measured.decode / work.decoders,
        "clustering": measured.cluster,
    }
    return Forecast(
        limit=max(stages, key=stages.__getitem__),
        decode_cpus=measured.decode / min(measured.train, measured.embed or measured.train),
        train_seconds=train,
        embed_seconds=embed,
        hours=(work.epochs * (train + measured.cluster) + work.embed_passes * embed) / 3600,
    )
