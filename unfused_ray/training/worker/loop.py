"""The training loop: one method, one worker's share of every global batch, in any runtime.

An epoch has two phases (UnFuSeD, arXiv 2303.05668): *assignment* gives every clip a pseudo-label, if the method has
labels; *training* uses them. The state between two steps is (epoch, step), the weights and their average, the
optimiser's moments, and the state of the label source; everything else follows from the configuration.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from unfused_ray import storage
from unfused_ray.clustering.assignment import Assignment
from unfused_ray.clustering.health import signs_of_collapse
from unfused_ray.config import TrainingConfig
from unfused_ray.data.shards.format import Statistics
from unfused_ray.data.stream.plan import Pass, Planner
from unfused_ray.data.stream.prefetch import BlockSource, Prefetcher
from unfused_ray.data.stream.read import Block
from unfused_ray.labels.source import LabelSource
from unfused_ray.methods.method import Method
from unfused_ray.runs.checkpoints import Position
from unfused_ray.runs.files import write_file
from unfused_ray.runs.resume import ResumePoint
from unfused_ray.runs.run import DIVERGED
from unfused_ray.runs.start_times import StartTimes
from unfused_ray.runs.status import State, Status
from unfused_ray.runs.watched import best_look, judged_epochs
from unfused_ray.tracking.mlflow import metric_name
from unfused_ray.training.coordinator import CoordinatorClient
from unfused_ray.training.worker.checkpointer import Checkpointer
from unfused_ray.training.worker.collectives import Collectives, Votes
from unfused_ray.training.worker.embedding_queue import EmbeddingQueue
from unfused_ray.training.worker.epoch_sums import EpochSums
from unfused_ray.training.worker.exporter import Exporter
from unfused_ray.training.worker.learner import Learner
from unfused_ray.training.worker.optimizer import learning_rate
from unfused_ray.training.worker.reporter import Reporter
from unfused_ray.training.worker.watcher import Watcher

LOOK_SECONDS = 1.0
"""Seconds between two checks for nodes that are to be taken away; a check takes milliseconds. Ray Train checks as
often."""


@dataclass(frozen=True)
class Worker:
    """The surroundings that a runtime gives the loop."""

    collectives: Collectives
    device: torch.device
    planner: Planner
    source: BlockSource
    labels: LabelSource | None
    coordinator: CoordinatorClient
    start_times: StartTimes = field(default_factory=StartTimes)
    leaving_nodes: Callable[[], Sequence[str]] = tuple
    """Nodes of the group that are to be taken away; all workers call it together and get the same answer."""


def passes_left(epochs: int, labels: LabelSource | None, resume_point: ResumePoint | None) -> Iterator[Pass]:
    """Yield every pass over the data that a run still makes, in order.

    Args:
        epochs: number of epochs after which the run ends.
        labels: label source of the run.
        resume_point: checkpoint to continue from.
    """
    position = resume_point.position if resume_point else Position()
    for epoch in range(position.epoch, epochs):
        step = position.step if epoch == position.epoch else 0
        if step == 0 and labels is not None:
            is_empty = epoch == position.epoch and (resume_point is None or resume_point.bank_uri is None)
            yield from labels.passes(epoch, is_empty)
        yield Pass("train", epoch, step)


class Loop:
    """Trains a method to the end of its run, or until it is asked to stop.

    Args:
        config: settings of the run.
        run_uri: folder of the run.
        statistics: statistics of the data's log-mels.
        method: method to train, with the weights to begin with.
        worker: device, data, labels and group of this worker.
        resume_point: checkpoint to continue from.
    """

    prefetcher: Prefetcher

    def __init__(
        self,
        config: TrainingConfig,
        run_uri: str,
        statistics: Statistics,
        method: Method,
        worker: Worker,
        resume_point: ResumePoint | None,
    ) -> None:
        self.config, self.run_uri, self.worker = config, run_uri, worker
        self.steps_per_epoch = worker.planner.num_steps("train")
        self.num_steps = config.epochs * self.steps_per_epoch  # of the schedule, which may go on after the run's end
        self.position = resume_point.position if resume_point else Position()
        self._saved = self.position
        self.sums = EpochSums()
        checkpoint = resume_point.checkpoint if resume_point else None
        history = resume_point.history if resume_point else []
        if checkpoint is not None and self.position.step and worker.collectives.rank == 0:
            self.sums = EpochSums(**checkpoint.details["sums"])  # the first worker continues with the sums of all
        last_step = config.last_epoch * self.steps_per_epoch
        self.reporter = Reporter(worker.coordinator, worker.collectives.rank, last_step, history)
        self.exporter = Exporter(config, run_uri, statistics, method.name)
        self.watcher = Watcher(config, worker.collectives, worker.device, self.reporter, self.exporter)
        if worker.labels is not None:
            worker.labels.restore(resume_point.bank_uri if resume_point else None, self.position.epoch)
        worker.collectives.barrier()  # no worker pushes before all have restored
        self.learner = Learner(config, statistics, method, worker.collectives, worker.device, checkpoint)
        if checkpoint is not None and worker.collectives.rank == 0:
            self._note_other_arithmetic(checkpoint.details)
        self.reporter.arithmetic = worker.start_times.arithmetic = self.learner.arithmetic
        self.queue = EmbeddingQueue(worker.labels, self.learner.blocks_per_step) if worker.labels else None
        in_thread = worker.device.type == "cuda"
        self.checkpointer = Checkpointer(
            config.checkpoint, run_uri, self.learner.state, worker.labels, worker.collectives, in_thread
        )
        self._last_look = time.perf_counter()
        self._known_leaving: set[str] = set()

    def _note_other_arithmetic(self, saved: Mapping[str, Any]) -> None:
        """Send a message if threads or device differ from those that the checkpoint's details name."""
        threads, arithmetic = torch.get_num_threads(), self.learner.arithmetic
        if self.worker.device.type == "cpu" and saved.get("threads") not in (None, threads):
            self.worker.coordinator.note(
                f"resuming with {threads} threads a worker, the checkpoint was written with {saved['threads']}: the "
                "last bits of the result will differ"
            )
        elif (before := saved.get("arithmetic", arithmetic)) != arithmetic:
            self.worker.coordinator.note(
                f"resuming in {arithmetic}, the checkpoint was written in {before}: the result will differ"
            )

    def run(self, prefetcher: Prefetcher) -> Status:
        """Train; return how it ended.

        Args:
            prefetcher: reads ahead all passes of :func:`passes_left`.

        Raises:
            Exception: a worker, the data or the label source failed; the runtime then starts a new group.
        """
        self.prefetcher = prefetcher
        with closing(self.checkpointer):
            for pass_ in prefetcher.passes:
                if self.watcher.has_ended_early:
                    break
                ended = self._embed(pass_) if pass_.kind == "embed" else self._epoch(pass_)
                if ended is not None:
                    return ended
        if self.worker.collectives.rank == 0:
            self._export()
        self.worker.collectives.barrier()
        is_finished = self.position.epoch >= self.config.epochs or self.watcher.has_ended_early
        return self._status("finished" if is_finished else "stopped", self.watcher.early_end(self.position.epoch))

    @property
    def steps_done(self) -> int:
        """Number of global batches done since the start of the run."""
        return self.position.steps(self.steps_per_epoch)

    def _embed(self, pass_: Pass) -> Status | None:
        """Push an embedding of every clip; return None if the run continues."""
        assert self.queue is not None  # only runs with labels make such a pass
        self.learner.method.train()  # batch norm over the block, as in training
        blocks = self.worker.planner.num_steps("embed") * self.learner.blocks_per_step
        for done, block in enumerate(self.prefetcher.blocks(pass_)):
            self.worker.start_times.reach("first block")
            self.queue.push(block, self.learner.embed(block))
            self.reporter.report("embedding every clip", self.steps_done, {"share": done / blocks})
            if self.worker.collectives.vote(Votes(stop=self.reporter.asked_to_stop)).stop:
                if self.position != self._saved:  # its epochs ended too soon after a checkpoint to write their own
                    self._checkpoint()
                return self._status("stopped")
        return None

    def _epoch(self, pass_: Pass) -> Status | None:
        """Do assignment, then training, of one epoch or of the rest of one; return None if the run continues."""
        assignment = self._assign(pass_)
        labels = assignment.labels if assignment else ()
        blocks = self.prefetcher.blocks(pass_)
        self.learner.method.train()
        votes, leaving = Votes(), False
        for step in range(pass_.first_step, self.steps_per_epoch):
            started, waited = time.perf_counter(), self.prefetcher.seconds_waited
            self._step(Position(pass_.epoch, step), blocks, labels)
            # Checked a step late, so as not to wait for a GPU, but before the gradient can reach a checkpoint.
            if found := self.learner.finite_check.first_not_finite(late=1):
                return self._diverged(*found)
            if self.worker.start_times.reach("first step") and self.worker.collectives.rank == 0:
                self.worker.start_times.write(self.run_uri)
            votes = self.worker.collectives.vote(self._votes())
            self.sums.spend("train", time.perf_counter() - started)
            self.sums.spend("wait", self.prefetcher.seconds_waited - waited)
            leaving = votes.look and self._finds_leaving_nodes()
            if step + 1 < self.steps_per_epoch and (votes.stop or votes.checkpoint or leaving):
                if found := self.learner.finite_check.first_not_finite(late=0):
                    return self._diverged(*found)
                self._checkpoint()
                if votes.stop:
                    return self._status("stopped")
        if next(blocks, None) is not None:
            raise RuntimeError(f"the stream gave more than the {self.steps_per_epoch} steps of epoch {pass_.epoch}")
        if found := self.learner.finite_check.first_not_finite(late=0):
            return self._diverged(*found)
        signs = self._end_epoch(pass_.epoch, assignment, votes.stop or votes.checkpoint or leaving)
        if signs and (ended := self._collapse(pass_.epoch, signs)) is not None:
            return ended
        return self._status("stopped") if votes.stop and self.position.epoch < self.config.last_epoch else None

    def _assign(self, pass_: Pass) -> Assignment | None:
        """Return the labels of an epoch; None if the method has none."""
        started, assignment = time.perf_counter(), None
        if self.worker.labels is not None and self.queue is not None:
            if self.worker.labels.are_renewed:
                self.reporter.report("clustering", self.steps_done, {}, now=True)
            self.queue.flush()
            assignment = self.worker.labels.labels(pass_.epoch)
            self.learner.method.begin_epoch(assignment.prototypes)
        self.worker.start_times.reach("labels")
        self.sums.spend("cluster", time.perf_counter() - started)
        if pass_.first_step == 0:
            health = {f"cluster/{key}": value for key, value in assignment.health.items()} if assignment else {}
            self.reporter.report("training", self.steps_done, health, now=True)
        return assignment

    def _step(self, position: Position, blocks: Iterator[Block], labels: Sequence[np.ndarray]) -> None:
        """Make one optimiser step on one global batch."""
        lr = learning_rate(
            self.config.optimizer, position.steps(self.steps_per_epoch), self.steps_per_epoch, self.num_steps
        )
        collects = self.worker.labels is not None and self.worker.labels.collects_in_training
        push = self.queue.push if self.queue is not None and collects else None
        self.learner.step(position, self._noted(blocks), labels, lr, self.sums, push)
        self.position = Position(position.epoch, position.step + 1)

    def _noted(self, blocks: Iterator[Block]) -> Iterator[Block]:
        """Yield the blocks, and note the time of the first."""
        for block in blocks:
            self.worker.start_times.reach("first block")
            yield block

    def _end_epoch(self, epoch: int, assignment: Assignment | None, saves: bool) -> list[str]:
        """Report an epoch; write its checkpoint if one is asked for or due, or if the run ends with it.

        Args:
            epoch: epoch that has ended.
            assignment: assignment that it has trained on.
            saves: True if a checkpoint was asked for.

        Returns:
            The signs of a collapse, the same on all workers.
        """
        labels, measured = self.worker.labels, dict[str, float]()
        if labels is None:  # the health of labels is reported when they are made
            measured["effective_rank"] = self.learner.effective_rank()
        health, signs = {**(assignment.health if assignment else {}), **measured}, list[str]()
        if labels is None or labels.are_renewed:
            signs = signs_of_collapse(health, self.config.health)
            measured["collapse_signs"] = health["collapse_signs"] = float(len(signs))
        watched = self._look(epoch)
        lr = self.learner.state.learning_rate
        metrics = self.reporter.end_epoch(epoch, self._totals(), self.sums.seconds, health | watched, lr) | measured
        self.sums = EpochSums()
        told = {f"epoch/{k}": v for k, v in metrics.items()} | {metric_name(k): v for k, v in watched.items()}
        self.reporter.report("training", self.steps_done, told, now=True)
        self.position = Position(epoch + 1, 0)
        ends = epoch + 1 >= self.config.last_epoch or self.watcher.has_ended_early
        collapsed = bool(signs) and self.config.health.on_collapse == "stop"
        if saves or ends or collapsed or self.checkpointer.is_wanted():
            self._checkpoint()
        return signs

    def _look(self, epoch: int) -> dict[str, float]:
        """Return watched accuracies of the network that would be exported now, if it is time to look."""
        if not self.watcher.is_due(epoch):
            return {}
        started = time.perf_counter()
        self.reporter.report("watching", self.steps_done, {}, now=True)
        watched = self.watcher.look(epoch, self.learner.state.exported)
        self.sums.spend("watch", time.perf_counter() - started)
        return watched

    def _collapse(self, epoch: int, signs: Sequence[str]) -> Status | None:
        """End a run with signs of a collapse, or send a message and return None, as the settings say."""
        message = f"signs of a collapse after epoch {epoch + 1}: {', '.join(signs)}"
        if self.config.health.on_collapse == "stop":
            return self._status("collapsed", message)
        if self.worker.collectives.rank == 0:
            self.worker.coordinator.note(f"{message}; training continues")
        return None

    def _votes(self) -> Votes:
        """Return this worker's requests to all workers after a step."""
        if self.worker.collectives.rank != 0:
            return Votes()
        self.reporter.report_step(self.steps_done, self.position.step * self.config.batch.clips_per_step, self.sums)
        look = time.perf_counter() - self._last_look > LOOK_SECONDS
        if look:
            self._last_look = time.perf_counter()
        return Votes(self.reporter.asked_to_stop, self.checkpointer.is_due(), look)

    def _finds_leaving_nodes(self) -> bool:
        """Return True if a further node is to be taken away; all workers call it at the same step."""
        new = sorted(set(self.worker.leaving_nodes()) - self._known_leaving)
        self._known_leaving.update(new)
        if new and self.worker.collectives.rank == 0:
            self.worker.coordinator.note(f"node {', '.join(new)} will be taken away; a checkpoint is written")
        return bool(new)

    def _totals(self) -> dict[str, float]:
        """Return the epoch's sums so far, over all workers."""
        return self.sums.totals(self.worker.device, self.worker.collectives.all_reduce)

    def _checkpoint(self) -> None:
        """Write the state of the run; all workers call it at the same step."""
        started = time.perf_counter()
        if self.queue is not None:
            self.queue.flush()
        sums = {"values": self._totals(), "seconds": self.sums.seconds} if self.position.step else {}
        details = {"history": self.reporter.history, "sums": sums, "threads": torch.get_num_threads()}
        details |= {"precision": self.learner.precision, "arithmetic": self.learner.arithmetic}
        self.checkpointer.save(self.position, details)
        self._saved = self.position
        self.sums.spend("checkpoint", time.perf_counter() - started)

    def _diverged(self, position: Position, clip_ids: np.ndarray) -> Status:
        self.position = Position(position.epoch, position.step + 1)
        clips = sorted(self.worker.collectives.gather(torch.from_numpy(clip_ids)).tolist())
        if self.worker.collectives.rank == 0:
            write_file(self.run_uri, DIVERGED, {"epoch": position.epoch, "step": position.step, "clip_ids": clips})
        uri = storage.join(self.run_uri, DIVERGED)
        return self._status("diverged", f"a gradient was not finite, on the clips {clips} (listed in {uri})")

    def _status(self, state: State, message: str = "") -> Status:
        parts = [message] if message else []
        if state != "collapsed" and (collapsed := self.reporter.collapsed_epochs):
            of = len(self.reporter.history)
            parts.append(f"signs of a collapse after {len(collapsed)} of {of} epochs, first after epoch {collapsed[0]}")
        if damaged := self.reporter.damaged_clips:
            parts.append(f"damaged clips were left out {damaged:,} times")
        return Status(state, self.position.epoch, self.position.step, "; ".join(parts))

    def _export(self) -> None:
        watch = self.config.watch
        best = best_look(judged_epochs(self.reporter.history, watch, self.config.epochs), watch)
        if remark := self.exporter.export(self.learner.state.exported(), self.position.epoch, best):
            self.worker.coordinator.note(remark)
