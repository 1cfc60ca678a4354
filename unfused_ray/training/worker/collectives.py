"""Communication between the workers of a group, and its equivalent for a single worker."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

CONTROL_SECONDS = 12 * 3600
"""Longest wait for another worker, in seconds; it allows for the slow storage that the worker may read or write."""
GPU_SECONDS = 30 * 60
"""Longest wait for data that GPUs send each other, in seconds: sums of a step, and blocks of a batch. A worker whose
NCCL hangs reports nothing, and its GPUs cost money until it is given up. These sums wait only for a step of another
worker: for its data, and at most for the files that rank 0 writes at an epoch's end. Longer work (a search for a
checkpoint, a clustering, a pass that embeds every clip) is awaited in the control group, or in calls of actors."""


@dataclass(frozen=True)
class Votes:
    """Requests of any worker to all workers; all act on them at the same step."""

    stop: bool = False
    """End after a checkpoint."""
    checkpoint: bool = False
    """Write a checkpoint."""
    look: bool = False
    """Check, all together, which nodes are to be taken away."""


class LocalCollectives:
    """Collectives of a single worker."""

    rank = 0
    world = 1

    def share_weights(self, module: nn.Module) -> None:
        """Return at once: there are no other workers."""

    def add_gradients(self, module: nn.Module) -> None:
        """Return at once: the gradients are already those of all workers."""

    @property
    def all_reduce(self) -> Callable[[Tensor], object] | None:
        """None: there are no other workers."""
        return None

    def vote(self, votes: Votes) -> Votes:
        """Return the votes unchanged."""
        return votes

    def gather(self, tensor: Tensor) -> Tensor:
        """Return the tensor unchanged."""
        return tensor

    def gather_blocks(self, blocks: Tensor) -> Tensor:
        """Join the blocks, (n, B, …), one after the other: (n·B, …)."""
        return blocks.flatten(0, 1)

    def barrier(self) -> None:
        """Return at once."""


class DistributedCollectives:
    """Collectives of the process group that Ray Train has opened.

    Votes and barriers use a gloo group of their own, because on a GPU they must not wait for the device.

    Args:
        compress: True to send gradients in bfloat16.
    """

    def __init__(self, *, compress: bool = False) -> None:
        self.rank = dist.get_rank()
        self.world = dist.get_world_size()
        self._compress = compress
        # Ranks wait here while rank 0 looks for a checkpoint, or writes one.
        waits = timedelta(seconds=CONTROL_SECONDS)
        self._control: dist.ProcessGroup = dist.new_group(backend="gloo", timeout=waits)  # type: ignore[assignment]
        self._pending: tuple[dist.Work, Tensor] | None = None

    def agree(self, values: list[Any]) -> list[Any]:
        """Return the values of rank 0, on every worker; they are pickled, between processes of one run only."""
        agreed = list(values)
        dist.broadcast_object_list(agreed, group=self._control)
        return agreed

    def share_weights(self, module: nn.Module) -> None:
        """Give all workers the state of rank 0, because other processors may have drawn weights with other last
        bits."""
        for tensor in module.state_dict().values():
            dist.broadcast(tensor, 0)

    @torch.no_grad()
    def add_gradients(self, module: nn.Module) -> None:
        """Add up the gradients of all workers, in one message per step.

        DistributedDataParallel sends parts of the gradients while the last block's backward pass computes others. Here
        this would hide only a few milliseconds of one block among several, while its hooks cost more, in every block,
        and break the graph of a compiled step.
        """
        gradients = [parameter.grad for parameter in module.parameters() if parameter.grad is not None]
        sums = torch.cat([gradient.reshape(-1) for gradient in gradients])
        sums = sums.bfloat16() if self._compress else sums
        dist.all_reduce(sums)
        parts = sums.split([gradient.numel() for gradient in gradients])
        torch._foreach_copy_(gradients, [part.view_as(own) for part, own in zip(parts, gradients, strict=True)])

    @property
    def all_reduce(self) -> Callable[[Tensor], object] | None:
        """Sum a tensor over the workers, in place."""
        return dist.all_reduce

    def vote(self, votes: Votes) -> Votes:
        """Cast this step's votes and return the joint votes of the step before, so that nobody waits."""
        before = self._pending
        flags = torch.tensor([votes.stop, votes.checkpoint, votes.look], dtype=torch.int32)
        work = dist.all_reduce(flags, op=dist.ReduceOp.MAX, group=self._control, async_op=True)
        assert work is not None  # asynchronous, and this rank is in the group
        self._pending = (work, flags)
        if before is None:
            return Votes()
        before[0].wait()
        return Votes(*(bool(flag) for flag in before[1]))

    def gather(self, tensor: Tensor) -> Tensor:
        """Return the workers' tensors, which have one shape and lie on the CPU, one after the other."""
        tensors = [torch.empty_like(tensor) for _ in range(self.world)]
        dist.all_gather(tensors, tensor, group=self._control)
        return torch.cat(tensors)

    def gather_blocks(self, blocks: Tensor) -> Tensor:
        """Return the blocks of all workers, each (n, B, …), in the plan's order: (n·world·B, …).

        This worker's own blocks keep their gradient. If every worker computes the same loss of all blocks, no gradient
        needs to be sent.
        """
        everyone = [torch.empty_like(blocks) for _ in range(self.world)]
        dist.all_gather(everyone, blocks.detach().contiguous())
        everyone[self.rank] = blocks
        return torch.stack(everyone, dim=1).flatten(0, 2)  # block j is with rank j mod world

    def barrier(self) -> None:
        """Wait for all workers."""
        dist.barrier(group=self._control)


Collectives = LocalCollectives | DistributedCollectives
