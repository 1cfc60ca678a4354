"""The training loop: one method, one worker's share of every global batch, in any runtime.

An epoch is two phases (UnFuSeD's brief, METHOD "DECAR-v2"): *assignment*, one call of the clusterer that returns a
pseudo-label for every clip, and *training* with them. The state between two steps is (epoch, step), the weights, the
optimiser's moments and the clusterer's bank; everything else follows from the configuration.
"""

from __future__ import annotations

import json
import logging
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from unfused_ray import storage
from unfused_ray.audio import randomness
from unfused_ray.audio.views import Views
from unfused_ray.clustering.clusterer import Clusterer
from unfused_ray.config import PretrainConfig
from unfused_ray.data.plan import Pass, Planner
from unfused_ray.data.read import Block
from unfused_ray.data.shards import Statistics
from unfused_ray.data.stream import BlockSource, Prefetcher
from unfused_ray.methods.decar import DecarV2
from unfused_ray.models.batch_norm import update_running_statistics
from unfused_ray.models.export import save_encoder
from unfused_ray.training.checkpoint import (
    Checkpoint,
    CheckpointStore,
    Position,
    flatten_optimizer,
    unflatten_optimizer,
)
from unfused_ray.training.coordinator import Coordinator, Progress, RemoteCoordinator
from unfused_ray.training.device import autocast_dtype, to_device, to_host
from unfused_ray.training.group import Group, Votes
from unfused_ray.training.optimizer import build_optimizer, learning_rate, set_learning_rate
from unfused_ray.training.run import ENCODER, HISTORY, Status

logger = logging.getLogger(__name__)

REPORT_SECONDS = 1.0


@dataclass(frozen=True)
class Worker:
    """What a runtime gives the loop."""

    group: Group
    device: torch.device
    planner: Planner
    source: BlockSource
    clusterer: Clusterer
    coordinator: Coordinator | RemoteCoordinator


@dataclass(frozen=True)
class Start:
    """Where a loop goes on."""

    checkpoint: Checkpoint
    position: Position
    bank_uri: str | None
    """The clusterer's state; None where every clip must be embedded anew."""


@dataclass
class _Sums:
    """Sums of an epoch on this worker."""

    values: dict[str, Tensor] = field(default_factory=dict)
    clips: int = 0
    damaged: int = 0
    started: float = field(default_factory=time.perf_counter)

    def add(self, block: Block, values: dict[str, Tensor]) -> None:
        for name, value in values.items():
            self.values[name] = self.values[name] + value if name in self.values else value
        self.clips += len(block.clip_ids)
        self.damaged += int((block.weights == 0).sum())


class Loop:
    """Trains a method to the end of its run, or until it is asked to stop.

    Args:
        config: of the run.
        run_uri: folder of the run.
        statistics: of the data's log-mels.
        worker: this worker's device, data, clusterer and group.
        start: where to go on.
        warm: weights to start from where there is no checkpoint: by module name of the method, strict.
    """

    def __init__(
        self,
        config: PretrainConfig,
        run_uri: str,
        statistics: Statistics,
        worker: Worker,
        start: Start | None,
        warm: dict[str, dict[str, Tensor]],
    ) -> None:
        self.config, self.run_uri, self.statistics, self.worker = config, run_uri, statistics, worker
        self.store = CheckpointStore(run_uri, config.checkpoint.keep)
        self.steps_per_epoch = worker.planner.num_steps("train")
        self.num_steps = config.epochs * self.steps_per_epoch
        self.blocks_per_step = config.batch.blocks_per_step // worker.group.world
        torch.manual_seed(config.seed)  # the weights
        self.method = DecarV2(config.method, config.encoder, config.front_end.num_mels)
        for name, tensors in warm.items():
            self.method.get_submodule(name).load_state_dict(tensors)
        self.method.to(worker.device)
        self.views = Views(
            config.front_end, config.augment, statistics.mean, statistics.std, config.seed, self.method.num_views
        ).to(worker.device)
        self.optimizer = build_optimizer(config.optimizer, self.method)
        self.position = Position()
        self.history: list[dict[str, float]] = []
        """One entry a finished epoch: mean loss and terms, seconds by what they were spent on, cluster health."""
        if start is not None:
            saved = start.checkpoint
            self.method.load_state_dict(saved.tensors("model"))
            unflatten_optimizer(self.optimizer, saved.tensors("optimizer"), saved.details["optimizer"])
            self.position, self.history = start.position, saved.details["history"]
        self.has_bank = start is not None and start.bank_uri is not None
        worker.clusterer.restore(start.bank_uri if start else None, self.position.epoch)
        worker.group.barrier()  # nobody pushes before all have restored
        self.model = worker.group.wrap(self.method)
        self.autocast = autocast_dtype(config.runtime, worker.device)
        self.prefetcher: Prefetcher
        self.pushed = 0
        self._outbox: deque[tuple[np.ndarray, Callable[[], Tensor]]] = deque()
        self._last_norm: Callable[[], Tensor] = to_host(torch.zeros(()))
        self._last_clips: list[np.ndarray] = []
        self._last_report = self._last_checkpoint = time.perf_counter()
        self._damaged = 0

    def run(self) -> Status:
        """Train; returns how it ended.

        Raises:
            Exception: whatever a worker, the data or the clusterer raised: the runtime starts a new group.
        """
        passes = list(self._passes())
        self.prefetcher = Prefetcher(self.worker.source, passes, self.config.runtime.prefetch_blocks)
        try:
            for pass_ in passes:
                votes = self._embed(pass_) if pass_.kind == "embed" else self._epoch(pass_)
                if votes.diverged:
                    return self._diverged()
                if votes.stop:
                    return Status("stopped", self.position.epoch, self.position.step)
        finally:
            self.prefetcher.close()
        if self.worker.group.rank == 0:
            self._export()
        self.worker.group.barrier()
        return Status("finished", self.position.epoch, self.position.step)

    def _passes(self) -> Iterator[Pass]:
        """Every pass over the data that is left, in order."""
        full_pass = self.config.method.labels_from == "full_pass"
        for epoch in range(self.position.epoch, self.config.epochs):
            step = self.position.step if epoch == self.position.epoch else 0
            if step == 0 and (full_pass or not (self.has_bank or epoch > self.position.epoch)):
                yield Pass("embed", epoch)
            yield Pass("train", epoch, step)

    def _embed(self, pass_: Pass) -> Votes:
        """Fill the bank with an embedding of every clip."""
        self.method.train()  # batch norm over the block, as in training
        blocks = self.worker.planner.num_steps("embed") * self.blocks_per_step
        for done, block in enumerate(self.prefetcher.blocks(pass_)):
            waves = to_device(block.waves, self.worker.device)
            with self._autocast():
                embeddings = self.method.embed(self.views.plain(waves))
            self._push(block.clip_ids, embeddings)
            stop = bool(self._report("embedding every clip", {"share": done / blocks}))
            votes = self.worker.group.vote(Votes(stop=stop))
            if votes.stop:
                return votes
        return Votes()

    def _epoch(self, pass_: Pass) -> Votes:
        """Assignment, then training, of one epoch or of the rest of one."""
        started = time.perf_counter()
        self._report("clustering", {}, now=True)
        self._drain_outbox()
        assignment = self.worker.clusterer.labels(pass_.epoch, self.worker.group.rank, self.pushed)
        self.pushed = 0
        self.method.begin_epoch(assignment.prototypes)
        labels_HN = np.stack(assignment.labels)
        seconds = {"cluster": time.perf_counter() - started, "checkpoint": 0.0}
        if pass_.first_step == 0:
            self._report("training", {f"cluster/{key}": value for key, value in assignment.health.items()}, now=True)
        sums, waited = _Sums(), self.prefetcher.seconds_waited
        blocks = self.prefetcher.blocks(pass_)
        self.method.train()
        votes = Votes()
        for step in range(pass_.first_step, self.steps_per_epoch):
            self._step(pass_.epoch, step, blocks, labels_HN, sums)
            self.position = Position(pass_.epoch, step + 1)
            votes = self.worker.group.vote(self._votes(sums))
            if votes.diverged:
                return votes
            if step + 1 < self.steps_per_epoch and (votes.stop or votes.checkpoint):
                seconds["checkpoint"] += self._checkpoint()
                if votes.stop:
                    return votes
        if next(blocks, None) is not None:
            raise RuntimeError(f"the stream gave more than the {self.steps_per_epoch} steps of epoch {pass_.epoch}")
        seconds["wait"] = self.prefetcher.seconds_waited - waited
        self._end_epoch(sums, seconds, assignment.health)
        self.position = Position(pass_.epoch + 1, 0)
        self._checkpoint()
        return votes

    def _step(self, epoch: int, step: int, blocks: Iterator[Block], labels_HN: np.ndarray, sums: _Sums) -> None:
        """One optimiser step on one global batch."""
        group, config = self.worker.group, self.config
        lr = learning_rate(config.optimizer, epoch * self.steps_per_epoch + step, self.steps_per_epoch, self.num_steps)
        set_learning_rate(self.optimizer, lr)
        self.optimizer.zero_grad(set_to_none=True)
        self._last_clips = []
        for i in range(self.blocks_per_step):
            block = next(blocks)
            self._last_clips.append(block.clip_ids)
            if i < self.blocks_per_step - 1:
                with group.no_sync(self.model):
                    self._forward_backward(epoch, block, labels_HN, sums)
            else:
                self._forward_backward(epoch, block, labels_HN, sums)
        update_running_statistics(self.method, group.all_reduce)
        gradients = [p.grad for p in self.method.parameters() if p.grad is not None]
        self._last_norm = to_host(torch.nn.utils.get_total_norm(gradients))
        self.optimizer.step()

    def _forward_backward(self, epoch: int, block: Block, labels_HN: np.ndarray, sums: _Sums) -> None:
        device = self.worker.device
        labels_HB = to_device(labels_HN[:, block.clip_ids].astype(np.int64), device)
        views = self.views(to_device(block.waves, device), epoch, block.index)
        # Dropout is a function of the block, not of what this worker has drawn before.
        torch.manual_seed(randomness.derived_seed(self.config.seed, "dropout", epoch, block.index))
        with self._autocast():
            output = self.model(views, to_device(block.weights, device), labels_HB)
        # DDP averages over the workers; the loss is the mean over the global batch, whose size never changes.
        (output.loss * (self.worker.group.world / self.config.batch.clips_per_step)).backward()
        sums.add(block, {"loss": output.loss.detach(), **output.terms})
        if self.config.method.labels_from == "bank" and output.embeddings is not None:
            self._push(block.clip_ids, output.embeddings)

    def _autocast(self) -> torch.autocast:
        return torch.autocast(
            self.worker.device.type, dtype=self.autocast or torch.bfloat16, enabled=self.autocast is not None
        )

    def _push(self, clip_ids: np.ndarray, embeddings: Tensor) -> None:
        """Send embeddings to the clusterer, one step late so that the device is not waited for."""
        self._outbox.append((clip_ids, to_host(embeddings.float())))
        if len(self._outbox) > self.blocks_per_step:
            self._send_one()

    def _drain_outbox(self) -> None:
        while self._outbox:
            self._send_one()
        self.worker.clusterer.flush()

    def _send_one(self) -> None:
        clip_ids, embeddings = self._outbox.popleft()
        real = clip_ids >= 0
        self.worker.clusterer.push(clip_ids[real], embeddings().numpy()[real])
        self.pushed += int(real.sum())

    def _votes(self, sums: _Sums) -> Votes:
        """What this worker asks of all after a step."""
        stop = due = False
        if self.worker.group.rank == 0:
            clips = max(sums.clips, 1)
            figures = {name: value / clips for name, value in sums.values.items()}
            seconds = time.perf_counter() - sums.started
            rate = clips * self.worker.group.world / seconds
            stop = bool(self._report("training", {**figures, "clips_per_second": rate}))
            due = time.perf_counter() - self._last_checkpoint > 60 * self.config.checkpoint.every_minutes
        return Votes(stop, due, diverged=not bool(torch.isfinite(self._last_norm())))

    def _report(self, phase: str, figures: dict[str, float | Tensor], now: bool = False) -> str:
        """Rank 0's report, at most once a second; returns why to stop, or ''."""
        if self.worker.group.rank != 0 or not (now or time.perf_counter() - self._last_report > REPORT_SECONDS):
            return ""
        self._last_report = time.perf_counter()
        done = self.position.epoch * self.steps_per_epoch + self.position.step
        values = {name: float(value) for name, value in figures.items()}
        progress = Progress(phase, done, self.num_steps, values, self._damaged)
        return self.worker.coordinator.report(progress, values if phase == "training" else None)

    def _end_epoch(self, sums: _Sums, seconds: dict[str, float], health: Mapping[str, float]) -> None:
        """Add the epoch's figures, over all workers, to the history."""
        names = sorted(sums.values)
        totals = torch.stack([sums.values[name].double() for name in names])
        counts = torch.tensor([sums.clips, sums.damaged], dtype=torch.float64, device=totals.device)
        totals = torch.cat([totals, counts])
        if self.worker.group.all_reduce:
            self.worker.group.all_reduce(totals)
        *values, clips, damaged = totals.tolist()
        self._damaged += int(damaged)
        figures = {name: value / max(clips - damaged, 1) for name, value in zip(names, values, strict=True)}
        figures |= {f"seconds_{name}": value for name, value in seconds.items()}
        figures |= {"clips_per_second": clips / (time.perf_counter() - sums.started), "damaged_clips": damaged}
        self.history.append({"epoch": float(self.position.epoch), **figures, **health})
        self._report("training", {f"epoch/{name}": value for name, value in figures.items()}, now=True)

    def _checkpoint(self) -> float:
        """Write the state of the run; all workers call it at the same step. Returns the seconds it took."""
        started = time.perf_counter()
        self._drain_outbox()
        self.worker.group.barrier()  # every worker's embeddings have arrived
        if self.worker.group.rank == 0:
            folder = self.store.begin(self.position)
            self.worker.clusterer.save(storage.join(folder, "bank"))
            tensors, groups = flatten_optimizer(self.optimizer)
            self.store.commit(
                self.position,
                {"model": self.method.state_dict(), "optimizer": tensors},
                {"optimizer": groups, "history": self.history},
            )
            storage.write_bytes(storage.join(self.run_uri, HISTORY), json.dumps(self.history).encode())
            self._prune()
        self.worker.group.barrier()
        self._last_checkpoint = time.perf_counter()
        return self._last_checkpoint - started

    def _prune(self) -> None:
        """Delete what neither the rule nor a kept checkpoint needs."""
        oldest = min(position.epoch for position in self.store.prune(self.position))
        self.worker.clusterer.forget(min(oldest, self.position.epoch - self.config.checkpoint.keep_assignments))

    def _diverged(self) -> Status:
        clips = np.concatenate(self._last_clips).tolist()
        logger.error("rank %d: a gradient was not finite; clips %s", self.worker.group.rank, clips)
        return Status("diverged", self.position.epoch, self.position.step, f"a gradient was not finite; clips {clips}")

    def _export(self) -> None:
        config = self.config
        save_encoder(
            storage.join(self.run_uri, ENCODER),
            self.method.encoder,
            config.encoder,
            config.front_end,
            config.crop,
            self.statistics.mean,
            self.statistics.std,
            {"method": "DECAR-v2", "epochs": config.epochs, "config": config.model_dump(mode="json")},
        )
