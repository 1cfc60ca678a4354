"""Pre-training from the driver's side: check, start, watch, stop, sum up."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import ray
from rich.table import Table
from torch import Tensor

from unfused_ray import cluster, storage
from unfused_ray.clustering.actor import start_assignment_actor
from unfused_ray.config import PretrainConfig
from unfused_ray.data.ingest.statistics import compute_statistics
from unfused_ray.data.plan import Planner
from unfused_ray.data.shards import ClipIndex, Statistics
from unfused_ray.models.export import DESCRIPTION, load_encoder
from unfused_ray.progress import Progress as Bar
from unfused_ray.training.checkpoint import CheckpointStore
from unfused_ray.training.coordinator import Coordinator, Progress
from unfused_ray.training.run import ENCODER, Lease, Run, Status, differences, home
from unfused_ray.training.runtime import Job, run_in_process, run_workers
from unfused_ray.training.tracking import flat_params

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.5
# A coordinator that is started anew knows all that matters: workers and stream tell it where they stand.
_OUTLIVES_ITS_PROCESS = {"max_restarts": -1, "max_task_retries": -1}
_SHOWN_FIGURES = ("loss", "agreement", "clips_per_second")


@dataclass(frozen=True)
class Prepared:
    """A run whose settings and data have been found to fit."""

    run: Run
    index: ClipIndex
    planner: Planner
    tracking_uri: str


def check(config: PretrainConfig) -> Prepared:
    """Read the manifests and refuse what cannot work, before anything is started or written.

    Raises:
        ValueError, FileNotFoundError: with the field, its value and the rule.
    """
    index = ClipIndex.load(config.data, config.splits)
    planner = Planner(index, config.seed, config.batch)
    for clusters in config.method.num_clusters:
        if clusters > index.num_clips:
            raise ValueError(
                f"method.num_clusters={clusters} must not exceed the number of clips, {index.num_clips} in "
                f"{', '.join(config.data)}"
            )
    rates = {manifest.config["front_end"]["sample_rate"] for manifest in index.manifests}
    if rates != {config.front_end.sample_rate}:
        raise ValueError(
            f"front_end.sample_rate={config.front_end.sample_rate} must be that of the shards, {sorted(rates)}"
        )
    uri = config.output or storage.join(home(), "runs", config.name)
    if not CheckpointStore(uri, keep=1).committed():
        _check_origin(config)
    tracking_uri = config.tracking.uri or f"sqlite:///{storage.join(home(), 'mlflow.db')}"
    return Prepared(Run(uri), index, planner, tracking_uri)


def _check_origin(config: PretrainConfig) -> None:
    """Refuse to begin a run from a folder that holds nothing to begin from, or weights of other shapes."""
    for field, source in (("fork", config.fork), ("init_from", config.init_from)):
        if source and CheckpointStore(source, keep=1).committed():
            _refuse_other_shapes(field, source, config)
        elif source and (field == "fork" or not storage.exists(storage.join(source, DESCRIPTION))):
            wanted = "the folder of a run" if field == "fork" else "the folder of a run or of an exported encoder"
            raise FileNotFoundError(f"{field}={source} holds no checkpoint: give {wanted}")


def _refuse_other_shapes(field: str, source: str, config: PretrainConfig) -> None:
    theirs, ours = (_shapes(raw, field) for raw in (Run(source).record()["config"], config.model_dump(mode="json")))
    if changes := differences(theirs, ours):
        raise ValueError(f"{field}={source} has weights of other shapes:\n  " + "\n  ".join(changes))


def _shapes(config: dict[str, Any], field: str) -> dict[str, Any]:
    """The settings that decide the shapes of what ``field`` loads."""
    method = {name: config["method"][name] for name in ("projection_hidden", "projection_dim")}
    shapes = {"encoder": config["encoder"], "front_end.num_mels": config["front_end"]["num_mels"], "method": method}
    return shapes | ({"optimizer.name": config["optimizer"]["name"]} if field == "fork" else {})


def describe(config: PretrainConfig) -> Table:
    """What :func:`pretrain` would do, checked against the data and the cluster that Ray is connected to."""
    prepared = check(config)
    planner, index = prepared.planner, prepared.index
    steps = planner.num_steps("train")
    table = Table("", "", title=prepared.run.uri, title_justify="left", show_header=False)
    table.add_row("data", "\n".join(f"{manifest.uri} ({manifest.num_clips:,} clips)" for manifest in index.manifests))
    table.add_row("epochs × steps", f"{config.epochs} × {steps:,} of {config.batch.clips_per_step} clips")
    table.add_row("left out of each epoch", f"{index.num_clips - steps * config.batch.clips_per_step:,} clips")
    table.add_row("clusters", " + ".join(map(str, config.method.num_clusters)))
    table.add_row("embedding bank", f"{index.num_clips * config.method.projection_dim * 2 / 1e6:,.1f} MB")
    if config.runtime.kind == "workers":
        cpus = cluster.worker_cpus(config.runtime)
        table.add_row("workers", f"{config.runtime.num_workers} × {cpus:g} CPU, {config.runtime.gpus_per_worker:g} GPU")
    table.add_row("statistics", "known" if index.statistics(config.front_end) else "would be computed first")
    status = prepared.run.status()
    table.add_row("state", f"{status.state}, epoch {status.epoch} step {status.step}" if status else "new")
    return table


def pretrain(config: PretrainConfig) -> Status:
    """Pre-train to the end, or to the next SIGTERM or Ctrl-C, from wherever the run stands.

    Raises:
        ValueError: settings that cannot work, or that differ from those the run was started with.
        RunInUseError: another process works on the run.
    """
    prepared = check(config)
    run, index = prepared.run, prepared.index
    with Lease(run.uri, on_loss=lambda: signal.raise_signal(signal.SIGTERM)):
        facts = {"num_clips": index.num_clips, "data_checksums": index.checksums}
        record = run.open(config, facts)
        newest = CheckpointStore(run.uri, keep=1).newest()
        if (
            newest is not None
            and newest.position.epoch >= config.epochs
            and storage.exists(storage.join(run.uri, ENCODER))
        ):
            logger.info("%s is finished: nothing is done. More --epochs go on from its end", run.uri)
            return Status("finished", newest.position.epoch, newest.position.step)
        needs_ray = config.runtime.kind == "workers" or index.statistics(config.front_end) is None
        with cluster.session() if needs_ray else _nothing():
            statistics = index.statistics(config.front_end) or sum(
                (compute_statistics(manifest, config.front_end) for manifest in index.manifests), Statistics()
            )
            job = Job(config, run.uri, index, statistics, _warm_start(config, run.uri))
            tracker = {
                "uri": prepared.tracking_uri,
                "experiment": config.tracking.experiment,
                "run_name": config.name,
                "run_id": record["id"],
                "params": flat_params(record["config"]) | {"run": run.uri, "num_clips": index.num_clips},
            }
            launch = _workers if config.runtime.kind == "workers" else _in_process
            with launch(job, tracker) as (target, coordinator):
                status = _supervise(run, prepared.planner.num_steps("train"), target, coordinator)
    return status


@contextmanager
def _nothing() -> Iterator[None]:
    yield


def _warm_start(config: PretrainConfig, run_uri: str) -> dict[str, dict[str, Tensor]]:
    """Weights to begin with: the whole method's (key '') of a run's newest checkpoint, or an exported encoder's."""
    if not config.init_from or CheckpointStore(run_uri, keep=1).newest() is not None:
        return {}
    checkpoint = CheckpointStore(config.init_from, keep=1).newest()
    if checkpoint is not None:
        return {"": checkpoint.tensors("model")}
    encoder = load_encoder(config.init_from).encoder
    if encoder.config != config.encoder:
        changes = differences(encoder.config.model_dump(), config.encoder.model_dump(), "encoder.")
        raise ValueError(f"init_from={config.init_from} is another encoder:\n  " + "\n  ".join(changes))
    return {"encoder": encoder.state_dict()}


@contextmanager
def _in_process(job: Job, tracker: dict[str, Any]) -> Iterator[tuple[Callable[[], Status], _Watched]]:
    coordinator = Coordinator(tracker)
    yield (
        lambda: run_in_process(job, coordinator),
        _Watched(coordinator.progress, coordinator.request_stop, coordinator.close),
    )


@contextmanager
def _workers(job: Job, tracker: dict[str, Any]) -> Iterator[tuple[Callable[[], Status], _Watched]]:
    cluster.worker_cpus(job.config.runtime)
    actor = ray.remote(Coordinator).options(**_OUTLIVES_ITS_PROCESS, **cluster.on_this_node()).remote(tracker)
    assignment = start_assignment_actor(job.clustering, job.config.method.assignment_shards)
    try:
        yield (
            lambda: run_workers(job, actor, assignment),
            _Watched(
                lambda: ray.get(actor.progress.remote()),
                lambda reason: ray.get(actor.request_stop.remote(reason)),
                lambda status: ray.get(actor.close.remote(status)),
            ),
        )
    finally:
        ray.kill(actor)
        ray.kill(assignment)


@dataclass(frozen=True)
class _Watched:
    """What the driver sees of a coordinator, near or far."""

    progress: Callable[[], Progress]
    request_stop: Callable[[str], None]
    close: Callable[[str], int]


def _supervise(run: Run, steps_per_epoch: int, target: Callable[[], Status], coordinator: _Watched) -> Status:
    """Run ``target`` in a thread; show its progress, pass signals on, and leave a status whatever happens."""
    result: list[Status | BaseException] = []

    def work() -> None:
        try:
            result.append(target())
        except BaseException as error:  # noqa: BLE001 - raised again below, in the main thread
            result.append(error)

    thread = threading.Thread(target=work, name="training", daemon=True)
    with _signals(coordinator.request_stop):
        run.write_status(Status("running", 0, 0))
        thread.start()
        _show(thread, coordinator)
    outcome = result[0]
    if isinstance(outcome, BaseException):
        epoch, step = divmod(coordinator.progress().step, steps_per_epoch)
        run.write_status(Status("failed", epoch, step, f"{type(outcome).__name__}: {outcome}"))
        coordinator.close("FAILED")
        raise outcome
    run.write_status(outcome)
    coordinator.close({"finished": "FINISHED", "stopped": "KILLED"}.get(outcome.state, "FAILED"))
    return outcome


def _show(thread: threading.Thread, coordinator: _Watched) -> None:
    """Draw the progress until the thread ends: a bar for each long phase, a line for each message."""
    with ExitStack() as bars:
        bar: Bar | None = None
        phase, told = "", 0
        while thread.is_alive():
            thread.join(POLL_SECONDS)
            progress = coordinator.progress()
            for message in progress.messages[told:]:
                logger.warning("%s", message)
            told = len(progress.messages)
            if progress.phase == "training":
                if bar is None or bar.name != "training":
                    bars.close()
                    bar = bars.enter_context(Bar("training", progress.num_steps, "steps", done=progress.step))
                figures = {name: value for name, value in progress.figures.items() if name in _SHOWN_FIGURES}
                bar.update(progress.step, **figures)
            elif progress.phase != phase:
                logger.info("%s", progress.phase)
            phase = progress.phase


@contextmanager
def _signals(request_stop: Callable[[str], None]) -> Iterator[None]:
    """The first SIGTERM or Ctrl-C asks for a checkpoint and an orderly end; the second ends at once."""
    seen: list[int] = []

    def handle(number: int, frame: object) -> None:
        if seen:
            raise KeyboardInterrupt
        seen.append(number)
        name = signal.Signals(number).name
        logger.warning("%s: writing a checkpoint, then ending. Once more ends at once", name)
        threading.Thread(target=request_stop, args=(name,), daemon=True).start()

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
