"""The training loop: one method, one worker's share of every global batch, in any runtime.

An epoch is two phases (UnFuSeD's brief): *assignment*, one call of the clusterer that returns a pseudo-label for every
clip, and *training* with them. The state between two steps is (epoch, step), the weights and their average, the
optimiser's moments and the clusterer's bank; everything else follows from the configuration.
"""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unfused_ray import storage
from unfused_ray.audio import randomness
from unfused_ray.audio.views import Views
from unfused_ray.clustering.clusterer import Clusterer
from unfused_ray.clustering.health import effective_rank, signs_of_collapse
from unfused_ray.config import TrainingConfig
from unfused_ray.data.shards.format import Statistics
from unfused_ray.data.stream.plan import Pass, Planner
from unfused_ray.data.stream.prefetch import BlockSource, Prefetcher
from unfused_ray.data.stream.read import Block
from unfused_ray.methods.method import BatchMethod, BlockOutput, Method
from unfused_ray.models.batch_norm import update_running_statistics
from unfused_ray.models.export import save_encoder
from unfused_ray.runs.checkpoints import (
    Checkpoint,
    CheckpointStore,
    Position,
)
from unfused_ray.runs.files import write_file
from unfused_ray.runs.run import DIVERGED, Run
from unfused_ray.runs.start_times import Milestones
from unfused_ray.runs.status import State, Status
from unfused_ray.training.coordinator import Coordinator, RemoteCoordinator
from unfused_ray.training.worker.collectives import Group, Votes
from unfused_ray.training.worker.device import autocast_dtype, to_device
from unfused_ray.training.worker.embedding_queue import Outbox
from unfused_ray.training.worker.epoch_sums import means
from unfused_ray.training.worker.finite_check import GradientWatch
from unfused_ray.training.worker.optimizer import learning_rate
from unfused_ray.training.worker.reporter import Journal
from unfused_ray.training.worker.state import TrainingState

logger = logging.getLogger(__name__)

LOOK_SECONDS = 5.0
"""Between two looks for nodes that are to be taken away, of milliseconds each; Ray Train itself looks as often."""


@dataclass(frozen=True)
class Worker:
    """What a runtime gives the loop."""

    group: Group
    device: torch.device
    planner: Planner
    source: BlockSource
    clusterer: Clusterer
    coordinator: Coordinator | RemoteCoordinator
    milestones: Milestones = field(default_factory=Milestones)
    leaving_nodes: Callable[[], Sequence[str]] = tuple
    """Nodes of the group that are to be taken away; all workers call it together and are told the same."""


@dataclass(frozen=True)
class Start:
    """Where a loop goes on."""

    checkpoint: Checkpoint
    position: Position
    bank_uri: str | None
    """The clusterer's state; None where every clip must be embedded anew."""


def passes_left(epochs: int, labels_from: str, start: Start | None) -> Iterator[Pass]:
    """Every pass over the data that a run still makes, in order.

    Args:
        epochs: after which it ends.
        labels_from: of its method.
        start: where it goes on.
    """
    position = start.position if start else Position()
    for epoch in range(position.epoch, epochs):
        step = position.step if epoch == position.epoch else 0
        empty = epoch == position.epoch and (start is None or start.bank_uri is None)
        if step == 0 and (labels_from == "full_pass" or (labels_from == "bank" and empty)):
            yield Pass("embed", epoch)
        yield Pass("train", epoch, step)


class Loop:
    """Trains a method to the end of its run, or until it is asked to stop.

    Args:
        config: of the run.
        run_uri: folder of the run.
        statistics: of the data's log-mels.
        method: what is trained, with the weights to begin with.
        worker: this worker's device, data, clusterer and group.
        start: where to go on.
    """

    prefetcher: Prefetcher

    def __init__(
        self,
        config: TrainingConfig,
        run_uri: str,
        statistics: Statistics,
        method: Method,
        worker: Worker,
        start: Start | None,
    ) -> None:
        self.config, self.run_uri, self.statistics, self.worker = config, run_uri, statistics, worker
        self.store = CheckpointStore(run_uri, config.checkpoint.keep)
        self.steps_per_epoch = worker.planner.num_steps("train")
        self.num_steps = config.epochs * self.steps_per_epoch
        self.blocks_per_step = config.batch.blocks_per_step // worker.group.world
        self.method = method.to(worker.device)
        self.views = Views(
            config.front_end, config.augment, statistics.mean, statistics.std, config.seed, self.method.num_views
        ).to(worker.device)
        self.state = TrainingState(config, self.method)
        self.journal = Journal(worker.coordinator, worker.group.rank, self.num_steps)
        self.position = Position()
        if start is not None:
            saved = start.checkpoint
            self.state.load(saved)
            self.position = start.position
            self.journal.load(saved.details, in_epoch=self.position.step > 0)
            self._note_other_threads(saved.details.get("threads"))
        worker.clusterer.restore(start.bank_uri if start else None, self.position.epoch)
        worker.group.barrier()  # nobody pushes before all have restored
        if backend := config.runtime.compile_backend:
            self.method.compile(backend=backend)
        self.model = worker.group.wrap(self.method)
        self.autocast = autocast_dtype(config.runtime, worker.device)
        self.outbox = Outbox(worker.clusterer, self.blocks_per_step)
        self.gradients = GradientWatch()
        self._embedded: list[Tensor] = []  # in the newest step, where they are not clustered
        self._last_checkpoint = self._last_look = time.perf_counter()
        self._leaving: set[str] = set()  # nodes whose leaving is known

    def _note_other_threads(self, saved: int | None) -> None:
        threads = torch.get_num_threads()
        if self.worker.group.rank == 0 and self.worker.device.type == "cpu" and saved not in (None, threads):
            self.worker.coordinator.note(
                f"going on with {threads} threads a worker, the checkpoint was written with {saved}: the last bits of "
                "the result will differ"
            )

    def run(self, prefetcher: Prefetcher) -> Status:
        """Train; returns how it ended.

        Args:
            prefetcher: of all that :func:`passes_left` names.

        Raises:
            Exception: whatever a worker, the data or the clusterer raised: the runtime starts a new group.
        """
        self.prefetcher = prefetcher
        for pass_ in prefetcher.passes:
            ended = self._embed(pass_) if pass_.kind == "embed" else self._epoch(pass_)
            if ended is not None:
                return ended
        if self.worker.group.rank == 0:
            self._export()
        self.worker.group.barrier()
        return self._status("finished" if self.position.epoch >= self.config.epochs else "stopped")

    @property
    def steps_done(self) -> int:
        """Global batches done since the start of the run."""
        return self.position.steps(self.steps_per_epoch)

    def _embed(self, pass_: Pass) -> Status | None:
        """Fill the bank with an embedding of every clip; None where the run goes on."""
        self.method.train()  # batch norm over the block, as in training
        blocks = self.worker.planner.num_steps("embed") * self.blocks_per_step
        for done, block in enumerate(self.prefetcher.blocks(pass_)):
            self.worker.milestones.reach("first block")
            self.embed(block)
            self.journal.report("embedding every clip", self.steps_done, {"share": done / blocks})
            if self.worker.group.vote(Votes(stop=self.journal.asked_to_stop)).stop:
                return self._status("stopped")
        return None

    def embed(self, block: Block) -> None:
        """Give the clusterer an embedding of every clip of a block."""
        waves = to_device(block.waves, self.worker.device)
        with self._autocast():
            embeddings = self.method.embed(self.views.plain(waves))
        self.outbox.push(block.clip_ids, embeddings)

    def _epoch(self, pass_: Pass) -> Status | None:
        """Assignment, then training, of one epoch or of the rest of one; None where the run goes on."""
        started = time.perf_counter()
        if self.method.labels_from in ("bank", "full_pass"):
            self.journal.report("clustering", self.steps_done, {}, now=True)
        assignment = self.worker.clusterer.labels(pass_.epoch, self.worker.group.rank, self.outbox.drain())
        self.method.begin_epoch(assignment.prototypes)
        self.worker.milestones.reach("labels")
        self.journal.sums.spend("cluster", time.perf_counter() - started)
        if pass_.first_step == 0:
            health = {f"cluster/{key}": value for key, value in assignment.health.items()}
            self.journal.report("training", self.steps_done, health, now=True)
        blocks = self.prefetcher.blocks(pass_)
        self.method.train()
        votes = Votes()
        for step in range(pass_.first_step, self.steps_per_epoch):
            started, waited = time.perf_counter(), self.prefetcher.seconds_waited
            self.step(pass_.epoch, step, blocks, assignment.labels)
            self.position = Position(pass_.epoch, step + 1)
            # A step late, so that a GPU is not waited for; but before it reaches a checkpoint.
            if found := self.gradients.first_not_finite(late=1):
                return self._diverged(*found)
            if self.worker.milestones.reach("first step") and self.worker.group.rank == 0:
                self.worker.milestones.write(self.run_uri)
            votes = self.worker.group.vote(self._votes())
            self.journal.sums.spend("train", time.perf_counter() - started)
            self.journal.sums.spend("wait", self.prefetcher.seconds_waited - waited)
            told = votes.look and self._told_of_leaving_nodes()
            if step + 1 < self.steps_per_epoch and (votes.stop or votes.checkpoint or told):
                if found := self.gradients.first_not_finite(late=0):
                    return self._diverged(*found)
                self._checkpoint()
                if votes.stop:
                    return self._status("stopped")
        if next(blocks, None) is not None:
            raise RuntimeError(f"the stream gave more than the {self.steps_per_epoch} steps of epoch {pass_.epoch}")
        if found := self.gradients.first_not_finite(late=0):
            return self._diverged(*found)
        measured = self._health() if self.method.labels_from == "none" else {}  # labels told theirs as they were made
        health, signs = {**assignment.health, **measured}, list[str]()
        if self.method.labels_from != "fixed":
            signs = signs_of_collapse(health, self.config.health)
            measured["collapse_signs"] = health["collapse_signs"] = float(len(signs))
        figures = self.journal.end_epoch(pass_.epoch, self._totals(), health, self.state.learning_rate) | measured
        self.journal.report("training", self.steps_done, {f"epoch/{k}": v for k, v in figures.items()}, now=True)
        self.position = Position(pass_.epoch + 1, 0)
        self._checkpoint()
        if signs and (ended := self._collapse(pass_.epoch, signs)) is not None:
            return ended
        return self._status("stopped") if votes.stop and self.position.epoch < self.config.last_epoch else None

    def step(self, epoch: int, step: int, blocks: Iterator[Block], labels: Sequence[np.ndarray]) -> None:
        """One optimiser step on one global batch."""
        group, config = self.worker.group, self.config
        self.state.optimizer.zero_grad(set_to_none=True)
        self._embedded = []
        clip_ids: list[np.ndarray] = []
        taken = self._taken(blocks, clip_ids)
        batch: Mapping[str, Tensor] = {}
        if isinstance(self.method, BatchMethod):
            batch = self._batch_gradient(self.method, epoch, taken, labels)
        else:
            for i, block in enumerate(taken):
                with self._sync_at_last(i):
                    self._block_gradient(epoch, block, labels)
        update_running_statistics(self.method, group.all_reduce)
        self.gradients.note(self.method, Position(epoch, step), clip_ids)
        done = epoch * self.steps_per_epoch + step
        self.state.step(learning_rate(config.optimizer, done, self.steps_per_epoch, self.num_steps))
        self.method.after_step(batch)

    def _taken(self, blocks: Iterator[Block], clip_ids: list[np.ndarray]) -> Iterator[Block]:
        """This worker's blocks of a step, whose clip_ids are noted."""
        for block in itertools.islice(blocks, self.blocks_per_step):
            self.worker.milestones.reach("first block")
            clip_ids.append(block.clip_ids)
            yield block
        if len(clip_ids) < self.blocks_per_step:
            raise RuntimeError(f"the stream ended {self.blocks_per_step - len(clip_ids)} blocks before the step")

    def _sync_at_last(self, i: int) -> AbstractContextManager[None]:
        """Gradients are sent with the last of a step's blocks."""
        return nullcontext() if i == self.blocks_per_step - 1 else self.worker.group.no_sync(self.model)

    def _block_gradient(self, epoch: int, block: Block, labels: Sequence[np.ndarray]) -> None:
        """Add the gradient of a block's loss."""
        output: BlockOutput = self._forward(epoch, block, labels)
        self._backward(output)
        self.journal.sums.add(block, {"loss": output.loss.detach(), **output.terms})
        if self.method.labels_from == "bank" and output.embeddings is not None:
            self.outbox.push(block.clip_ids, output.embeddings)

    def _batch_gradient(
        self, method: BatchMethod, epoch: int, blocks: Iterator[Block], labels: Sequence[np.ndarray]
    ) -> Mapping[str, Tensor]:
        """The gradient of a global batch's loss; returns what it was made of."""
        features: list[Mapping[str, Tensor]] = []
        weights: list[Tensor] = []
        for i, block in enumerate(blocks):
            with self._sync_at_last(i):
                features.append(self._forward(epoch, block, labels))
            weights.append(to_device(block.weights, self.worker.device))
            self.journal.sums.add(block, {})
        group = self.worker.group
        batch = {name: group.join(torch.stack([output[name] for output in features])) for name in features[0]}
        output = method.batch_loss(batch, group.join(torch.stack(weights)))
        self._backward(output)
        values = {"loss": output.loss.detach(), **output.terms}
        self.journal.sums.add_values({name: value / group.world for name, value in values.items()})  # all have the same
        return {name: tensor.detach() for name, tensor in batch.items()}

    def _backward(self, output: BlockOutput) -> None:
        # DDP averages over the workers; the loss is the mean over the global batch, whose size never changes.
        (output.loss * (self.worker.group.world / self.config.batch.clips_per_step)).backward()
        if self.method.labels_from == "none" and output.embeddings is not None:
            self._embedded.append(output.embeddings)

    def _forward(self, epoch: int, block: Block, labels: Sequence[np.ndarray]) -> Any:
        """What the method gives for a block."""
        device = self.worker.device
        # Only the block's labels are copied: the table of all clips is shared by the workers of a node.
        own = np.array([head[block.clip_ids] for head in labels], np.int64).reshape(len(labels), len(block.clip_ids))
        views = self.views(to_device(block.waves, device), epoch, block.index)
        # Dropout is a function of the block, not of what this worker has drawn before.
        torch.manual_seed(randomness.derived_seed(self.config.seed, "dropout", epoch, block.index))
        with self._autocast():
            return self.model(views, to_device(block.weights, device), to_device(own, device))

    def _health(self) -> dict[str, float]:
        """Effective rank of what the epoch's last step embedded: near 1 is collapse. All workers call it together."""
        embeddings_ND = torch.cat(self._embedded).double().cpu()
        if not isinstance(self.method, BatchMethod):  # there every worker has embeddings of the whole batch
            embeddings_ND = self.worker.group.gather(embeddings_ND)
        return {"effective_rank": effective_rank((embeddings_ND.T @ embeddings_ND).numpy())}

    def _collapse(self, epoch: int, signs: Sequence[str]) -> Status | None:
        """Say the signs of a collapse: as the end of the run where it is to end, otherwise on its way."""
        said = f"signs of a collapse after epoch {epoch}: {', '.join(signs)}"
        if self.config.health.on_collapse == "stop":
            return self._status("collapsed", said)
        if self.worker.group.rank == 0:
            self.worker.coordinator.note(f"{said}; going on")
        return None

    def _autocast(self) -> torch.autocast:
        return torch.autocast(
            self.worker.device.type, dtype=self.autocast or torch.bfloat16, enabled=self.autocast is not None
        )

    def _votes(self) -> Votes:
        """What this worker asks of all after a step."""
        if self.worker.group.rank != 0:
            return Votes()
        sums = self.journal.sums
        clips, seconds = self.position.step * self.config.batch.clips_per_step, sums.seconds.get("train", 0.0)
        waited = sums.seconds.get("wait", 0.0)
        rate = {"clips_per_second": clips / seconds, "wait_share": waited / seconds} if seconds else {}
        self.journal.report("training", self.steps_done, {**means(sums.values), **rate})
        due = time.perf_counter() - self._last_checkpoint > 60 * self.config.checkpoint.every_minutes
        if due:
            self._last_checkpoint = time.perf_counter()  # asked for once: the answer may come a step later
        look = time.perf_counter() - self._last_look > LOOK_SECONDS
        if look:
            self._last_look = time.perf_counter()
        return Votes(self.journal.asked_to_stop, due, look)

    def _told_of_leaving_nodes(self) -> bool:
        """Whether a node is to be taken away of which that was not known; all workers call it at the same step."""
        new = sorted(set(self.worker.leaving_nodes()) - self._leaving)
        self._leaving.update(new)
        if new and self.worker.group.rank == 0:
            self.worker.coordinator.note(f"to be taken away: node {', '.join(new)}; writing a checkpoint and going on")
        return bool(new)

    def _totals(self) -> dict[str, float]:
        """The epoch's sums over all workers, so far."""
        return self.journal.sums.totals(self.worker.device, self.worker.group.all_reduce)

    def _checkpoint(self) -> None:
        """Write the state of the run; all workers call it at the same step."""
        started = time.perf_counter()
        self.outbox.flush()
        self.worker.group.barrier()  # every worker's embeddings have arrived
        sums = {"values": self._totals(), "seconds": self.journal.sums.seconds} if self.position.step else {}
        if self.worker.group.rank == 0:
            folder = self.store.begin(self.position)
            self.worker.clusterer.save(storage.join(folder, "bank"))
            history = self.journal.history
            details = {"history": history, "sums": sums, "threads": torch.get_num_threads()}
            self.store.commit(self.position, self.state.tensors(), details)
            Run(self.run_uri).write_history(history)
            self._prune()
        self.worker.group.barrier()
        self._last_checkpoint = time.perf_counter()
        self.journal.sums.spend("checkpoint", self._last_checkpoint - started)

    def _prune(self) -> None:
        """Delete what neither the rule nor a kept checkpoint needs."""
        oldest = min(position.epoch for position in self.store.prune(self.position))
        self.worker.clusterer.forget(min(oldest, self.position.epoch - self.config.checkpoint.keep_assignments))

    def _diverged(self, position: Position, clip_ids: np.ndarray) -> Status:
        self.position = Position(position.epoch, position.step + 1)
        clips = sorted(self.worker.group.gather(torch.from_numpy(clip_ids)).tolist())
        if self.worker.group.rank == 0:
            write_file(self.run_uri, DIVERGED, {"epoch": position.epoch, "step": position.step, "clip_ids": clips})
        uri = storage.join(self.run_uri, DIVERGED)
        return self._status("diverged", f"a gradient was not finite; it is of the clips {clips} (in {uri} too)")

    def _status(self, state: State, message: str = "") -> Status:
        parts = [message] if message else []
        if state != "collapsed" and (collapsed := self.journal.collapsed_epochs):
            of = len(self.journal.history)
            parts.append(f"signs of a collapse after {len(collapsed)} of {of} epochs, first after epoch {collapsed[0]}")
        if damaged := self.journal.damaged_clips:
            parts.append(f"{damaged:,} times a clip was left out, being damaged")
        return Status(state, self.position.epoch, self.position.step, "; ".join(parts))

    def _export(self) -> None:
        config = self.config
        save_encoder(
            storage.join(self.run_uri, config.export),
            self.state.exported(),
            config.front_end,
            config.crop,
            self.statistics.mean,
            self.statistics.std,
            {"method": self.method.name, "epochs": self.position.epoch, "config": config.model_dump(mode="json")},
        )
