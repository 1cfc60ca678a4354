"""Pre-training over three epochs, clustering and checkpoints included, against its own step and the field's loop.

    python -m benchmarks.speed.end_to_end [--data SHARDS …] [--clips 8192] [--runtime workers] [--quick]

The run is that of ``jobs/pretrain.py corpus``; its seconds come from the run's own history. A pass fills the bank
before the first epoch. It happens once in a run, which has 8 epochs at full length, so the rate is given both without
and with it.

The bound is the loop's step on log-mels in memory: forward, backward, optimiser. Log-mels, views and decoding are
computed too, and on CPUs they use the same cores. With them, the bound of a clip is step + views + decoding / cores
seconds, as if the work were packed without a gap. With a GPU, decoding has the CPUs to itself, and the bound is step +
views alone, unless decoding takes longer.

The field's loop (reference.py) embeds every clip in a separate pass each epoch, clusters with faiss and trains. It is
measured over a few batches of each pass and extrapolated to an epoch without a checkpoint; by then its loader's
processes run at a steady rate. Of several numbers of processes, the fastest counts.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.clips import repeated, short_clips, write_files
from benchmarks.measure import Figure, by_turns, figure, report
from benchmarks.speed.reference import DecarLoop, FrontEnd
from unfused_ray import cluster, recipes
from unfused_ray.audio.transfer import to_device
from unfused_ray.config import DecarConfig, PretrainConfig, TrackingConfig
from unfused_ray.data.shards.format import Manifest
from unfused_ray.data.shards.index import ClipIndex
from unfused_ray.data.stream.plan import Pass, Segment
from unfused_ray.machine import memory
from unfused_ray.runs import run as runs
from unfused_ray.runs.start_times import read_start_times
from unfused_ray.training.driver import launch
from unfused_ray.training.driver.dry_run import Measurement

EPOCHS, ROUNDS = 3, 3


@dataclass(frozen=True)
class Bound:
    """Seconds per clip of each part, in a process that does nothing else."""

    step: float
    views: float
    decode: float
    """Decoding on one CPU."""
    cpus: float
    on_gpu: bool

    @property
    def all(self) -> float:
        """Seconds of the step together with log-mels, views and decoding."""
        computing, decoding = self.step + self.views, self.decode / self.cpus
        return max(computing, decoding) if self.on_gpu else computing + decoding


def measure_bound(config: PretrainConfig, index: ClipIndex) -> list[Bound]:
    """Measure the bound once per round; this process gets the torch threads of a worker."""
    measured = Measurement(config, index)
    learner, planner, reader = measured.learner, measured.job.planner, measured.job.reader
    task = planner.read_tasks(Segment(Pass("train", 0), planner.num_steps("train")))[0]
    blocks = list(reader.read(Pass("train", 0), task))
    waves = to_device(blocks[0].waves, measured.device)
    make_views, ready = learner.views, learner.views(waves, 0, 0)
    endless, clips_per_step = itertools.cycle(blocks), learner.blocks_per_step * config.batch.block

    def wait() -> None:
        if measured.device.type == "cuda":
            torch.cuda.synchronize()

    def step() -> None:
        measured.step(endless)
        wait()

    def views() -> None:
        make_views(waves, 0, 0)
        wait()

    learner.views = lambda waves_BCS, epoch, block: ready  # type: ignore[assignment]
    taken = by_turns(
        {"step": step, "views": views, "decode": lambda: list(reader.read(Pass("train", 0), task))}, ROUNDS, warmups=3
    )
    return [
        Bound(
            step / clips_per_step,
            view / config.batch.block,
            decode / task.num_clips,
            measured.resources.cpus,
            measured.device.type == "cuda",
        )
        for step, view, decode in zip(taken["step"], taken["views"], taken["decode"], strict=True)
    ]


@dataclass(frozen=True)
class Reference:
    """Seconds of the field's loop: per clip of each pass, and of a clustering."""

    embed: float
    train: float
    cluster: float

    def epoch(self, num_clips: int) -> float:
        """Return the seconds of an epoch of ``num_clips`` clips."""
        return num_clips * (self.embed + self.train) + self.cluster


def measure_reference(
    config: PretrainConfig, index: ClipIndex, files: list[Path], processes: int, batches: int
) -> Reference:
    """Measure the field's loop with ``processes`` loading processes."""
    statistics = index.statistics(config.front_end)
    assert statistics is not None  # ingest has computed them
    front_end = FrontEnd(config.front_end, config.crop, config.augment, statistics.mean, statistics.std)
    method = config.method
    assert isinstance(method, DecarConfig)
    loop = DecarLoop(
        files, front_end, method.num_clusters[0], config.batch.clips_per_step, processes, method.kmeans_iterations
    )
    embed = loop.embed(batches)
    cluster_seconds = loop.cluster(_unit_vectors(index.num_clips, method.projection_dim).numpy())
    labels = torch.randint(method.num_clusters[0], (len(files),))
    prototypes = _unit_vectors(method.num_clusters[0], method.projection_dim)
    return Reference(embed, loop.train(labels, prototypes, batches), cluster_seconds)


@dataclass(frozen=True)
class Run:
    """The records of a run about itself."""

    clips: int
    """Number of clips trained on in an epoch."""
    epochs: list[dict[str, float]]
    embed: float
    """Seconds of the pass that fills the bank."""
    wall: float
    """Seconds from the call of ``train`` to its end."""

    @property
    def checkpoint(self) -> float:
        """Seconds of a checkpoint; the history has an epoch's in the next epoch, and does not have the last one's."""
        return statistics.median(epoch["seconds_checkpoint"] for epoch in self.epochs[1:])

    def seconds(self, epoch: int) -> float:
        """Return the seconds of an epoch: training, clustering and checkpoint."""
        return self.epochs[epoch]["seconds_train"] + self.epochs[epoch]["seconds_cluster"] + self.checkpoint


def measure_run(config: PretrainConfig, index: ClipIndex) -> Run:
    """Pre-train as the job does."""
    started = time.perf_counter()
    status = launch.run(launch.check(config))
    wall = time.perf_counter() - started
    if status.state != "finished":
        raise RuntimeError(f"the run has {status.state}: {status.message}")
    epochs, milestones = runs.Run(config.output).history(), read_start_times(config.output)
    embed = milestones["labels"] - milestones["first block"] - epochs[0]["seconds_cluster"]
    per_step = config.batch.clips_per_step
    return Run(index.num_clips // per_step * per_step, epochs, embed, wall)


def make_figures(run: Run, bounds: list[Bound], references: dict[int, Reference], num_clips: int) -> list[Figure]:
    """Make all figures of the report."""
    seconds = [run.seconds(epoch) for epoch in range(len(run.epochs))]
    rate = run.clips * len(seconds) / sum(seconds)
    with_embed = run.clips * len(seconds) / (sum(seconds) + run.embed)
    processes, best = min(references.items(), key=lambda item: item[1].epoch(num_clips))
    theirs = num_clips / best.epoch(num_clips)
    figures = [
        figure("end to end, by epoch", [run.clips / taken for taken in seconds], "clips/s"),
        Figure("end to end, three epochs", rate, "clips/s"),
        Figure("end to end, with the pass that fills the bank once", with_embed, "clips/s"),
        figure("bound: step on log-mels in memory", [1 / bound.step for bound in bounds], "clips/s"),
        figure("bound: with views and decoding on the same cores", [1 / bound.all for bound in bounds], "clips/s"),
        figure("log-mels and views", [1000 * bound.views for bound in bounds], "ms a clip"),
        figure("decoding", [1000 * bound.decode for bound in bounds], "ms a clip and CPU"),
        figure("end to end / bound with views and decoding", [rate * bound.all for bound in bounds], "×", "≥ 0.9"),
        figure("end to end / bound of the step alone", [rate * bound.step for bound in bounds], "×"),
        Figure(f"reference loop, {processes} loading processes", theirs, "clips/s"),
        *(
            Figure(f"  training pass, {number} processes", 1 / one.train, "clips/s")
            for number, one in references.items()
        ),
        *(
            Figure(f"  embedding pass, {number} processes", 1 / one.embed, "clips/s")
            for number, one in references.items()
        ),
        Figure("end to end / reference loop", rate / theirs, "×", reach="≥ 2.5"),
        Figure("end to end / reference's training pass alone", rate * best.train, "×"),
    ]
    stages = {
        "forward, backward, optimiser, views": [e["seconds_train"] - e.get("seconds_wait", 0.0) for e in run.epochs],
        "waiting for data": [epoch.get("seconds_wait", 0.0) for epoch in run.epochs],
        "clustering and label exchange": [epoch["seconds_cluster"] for epoch in run.epochs],
        "checkpoint": [epoch["seconds_checkpoint"] for epoch in run.epochs[1:]],
    }
    figures += [figure(f"stage: {name}", taken, "s an epoch") for name, taken in stages.items()]
    for name in ("waiting for data", "clustering and label exchange"):
        shares = [100 * taken / whole for taken, whole in zip(stages[name], seconds, strict=True)]
        figures.append(figure(f"share of an epoch: {name}", shares, "%", "≤ 3" if name.startswith("clus") else ""))
    figures.append(Figure("share of an epoch: checkpoint", 100 * run.checkpoint * len(seconds) / sum(seconds), "%"))
    figures.append(Figure("before the first epoch: filling the bank", run.embed, "s"))
    figures.append(Figure("start and end of the run", run.wall - run.embed - sum(seconds), "s"))
    return figures


def _unit_vectors(count: int, dim: int) -> Tensor:
    return F.normalize(torch.randn(count, dim), dim=1)


def main() -> None:
    """Measure the field's loop, the bound, the run, and the bound again."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="*", default=[], help="prepared sources; the embedded recordings by default")
    parser.add_argument("--clips", type=int, default=8192, help="of an epoch, at least: sources are taken repeatedly")
    parser.add_argument("--runtime", choices=("workers", "in-process"), default="workers")
    parser.add_argument("--processes", type=int, nargs="+", default=[0, 2], help="of the field's loader")
    parser.add_argument("--batches", type=int, default=4, help="of each of its passes that are measured")
    parser.add_argument("--quick", action="store_true", help="each source once, 2 batches, 2 processes")
    parser.add_argument("--output", type=Path, default=Path("output/bench"))
    args = parser.parse_args()
    if args.quick:
        args.clips, args.batches, args.processes = 1, 2, [2]
    with tempfile.TemporaryDirectory(prefix="unfused-ray-bench-") as name, cluster.session():
        folder = Path(name)
        manifests = [Manifest.load(uri) for uri in args.data] or short_clips(folder / "shards")
        index = repeated(manifests, args.clips)
        base = recipes.PRETRAIN["corpus"][1]
        config = PretrainConfig(
            **base.model_dump(exclude={"data", "splits", "output", "epochs", "method", "runtime", "tracking"}),
            data=tuple(manifest.uri for manifest in index.manifests),
            splits=tuple(sorted({split for manifest in manifests for split in manifest.clips_by_split})),
            output=str(folder / "run"),
            epochs=EPOCHS,
            # K scales with the data.
            method=base.method.replace(num_clusters=(min(512, index.num_clips // 16),)),
            runtime=base.runtime.replace(kind=args.runtime),
            tracking=TrackingConfig(uri=f"sqlite:///{folder}/mlflow.db"),
        )
        per_pass = (args.batches + 2) * config.batch.clips_per_step
        files = write_files(ClipIndex(manifests), min(per_pass, index.num_clips), folder / "files")
        references = {n: measure_reference(config, index, files, n, args.batches) for n in args.processes}
        memory.keep_freed()  # as workers do; the field's loop ran with glibc's default
        bounds = measure_bound(config, index)
        run = measure_run(config, index)
        bounds += measure_bound(config, index)
    report("end_to_end", make_figures(run, bounds, references, index.num_clips), args.output)


if __name__ == "__main__":
    main()
