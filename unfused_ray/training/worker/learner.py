"""One worker's part of an optimiser step: views, losses, gradients, and the update of the weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from unfused_ray.audio import randomness
from unfused_ray.audio.transfer import to_device
from unfused_ray.audio.views import Views
from unfused_ray.clustering.health import effective_rank
from unfused_ray.config import TrainingConfig
from unfused_ray.methods.method import BatchMethod, BlockOutput, Method
from unfused_ray.models.batch_norm import update_running_statistics
from unfused_ray.runs.checkpoints import Checkpoint, Position
from unfused_ray.training.worker.collectives import Collectives
from unfused_ray.training.worker.device import choose_precision, describe_arithmetic, seed_draws
from unfused_ray.training.worker.epoch_sums import EpochSums
from unfused_ray.training.worker.finite_check import FiniteCheck
from unfused_ray.training.worker.state import TrainingState

if TYPE_CHECKING:
    from unfused_ray.data.shards.format import Statistics
    from unfused_ray.data.stream.read import Block


class Learner:
    """A method in training on one worker.

    Args:
        config: settings of the run.
        statistics: statistics of the data's log-mels.
        method: method with the weights to begin with.
        collectives: collectives of the worker group.
        device: device to train on.
        checkpoint: state to begin with instead, and the precision to compute in if the configuration leaves it open.
    """

    def __init__(
        self,
        config: TrainingConfig,
        statistics: Statistics,
        method: Method,
        collectives: Collectives,
        device: torch.device,
        checkpoint: Checkpoint | None = None,
    ) -> None:
        self.config, self.collectives, self.device = config, collectives, device
        self.blocks_per_step = config.batch.blocks_per_step // collectives.world
        self.method = method.to(device)
        self.views = Views(
            config.front_end, config.augment, statistics.mean, statistics.std, config.seed, self.method.num_views
        ).to(device)
        self.state = TrainingState(config, self.method)
        if checkpoint is not None:
            self.state.load(checkpoint)
        if backend := config.runtime.compile_backend:
            self.method.compile(backend=backend)
        collectives.share_weights(self.method)
        self.finite_check = FiniteCheck()
        # Older versions computed in float32 on a processor, and did not record it.
        begun = "float32" if device.type == "cpu" else None
        saved = checkpoint.details.get("precision", begun) if checkpoint else None
        self.precision = choose_precision(config.runtime, device, saved)
        self.arithmetic = describe_arithmetic(config.runtime, device, self.precision)
        """Number format and device, as text for people."""
        self._embeddings: list[Tensor] = []  # embeddings of the newest step

    def embed(self, block: Block) -> Tensor:
        """Return embeddings of a block's clips, ``(b, D)``, to be clustered."""
        waves = to_device(block.waves, self.device)
        with self._autocast():
            return self.method.embed(self.views.plain(waves))

    def step(
        self,
        position: Position,
        blocks: Iterator[Block],
        labels: Sequence[np.ndarray],
        learning_rate: float,
        sums: EpochSums,
        push: Callable[[Block, Tensor], None] | None = None,
    ) -> None:
        """Make one optimiser step on one global batch.

        Args:
            position: position before the step.
            blocks: yields this worker's blocks of the batch first.
            labels: labels of all clips, for each head.
            learning_rate: learning rate of the step.
            sums: sums to which loss and terms are added.
            push: receives each block with its embeddings; None if they are not collected.

        Raises:
            RuntimeError: there are too few blocks.
        """
        self.state.optimizer.zero_grad(set_to_none=True)
        self._embeddings = []
        clip_ids: list[np.ndarray] = []
        taken = self._taken(blocks, clip_ids)
        batch: Mapping[str, Tensor] = {}
        if isinstance(self.method, BatchMethod):
            batch = self._batch_gradient(self.method, position.epoch, taken, labels, sums)
        else:
            for block in taken:
                output = self._block_gradient(position.epoch, block, labels)
                sums.add(block, {"loss": output.loss.detach(), **output.terms}, labels)
                if push is not None and output.embeddings is not None:
                    push(block, output.embeddings)
        self.collectives.add_gradients(self.method)
        update_running_statistics(self.method, self.collectives.all_reduce)
        self.finite_check.note(self.method, position, clip_ids)
        self.state.step(learning_rate)
        self.method.after_step(batch)

    def effective_rank(self) -> float:
        """Return the effective rank of the newest step's embeddings; near 1 is a collapse. All workers call it
        together."""
        embeddings_ND = torch.cat(self._embeddings).double().cpu()
        if not isinstance(self.method, BatchMethod):  # a BatchMethod has those of the whole batch anyway
            embeddings_ND = self.collectives.gather(embeddings_ND)
        return effective_rank((embeddings_ND.T @ embeddings_ND).numpy())

    def _taken(self, blocks: Iterator[Block], clip_ids: list[np.ndarray]) -> Iterator[Block]:
        """Yield this worker's blocks of a step, and add their clip_ids to the list."""
        for _ in range(self.blocks_per_step):
            block = next(blocks, None)
            if block is None:
                missing = self.blocks_per_step - len(clip_ids)
                raise RuntimeError(f"the stream ended {missing} blocks before the step")
            clip_ids.append(block.clip_ids)
            yield block

    def _block_gradient(self, epoch: int, block: Block, labels: Sequence[np.ndarray]) -> BlockOutput:
        """Add the gradient of a block's loss."""
        output: BlockOutput = self._forward(epoch, block, labels)
        self._backward(output)
        return output

    def _batch_gradient(
        self,
        method: BatchMethod,
        epoch: int,
        blocks: Iterator[Block],
        labels: Sequence[np.ndarray],
        sums: EpochSums,
    ) -> Mapping[str, Tensor]:
        """Compute the gradient of a global batch's loss; return the loss's inputs."""
        features: list[Mapping[str, Tensor]] = []
        weights: list[Tensor] = []
        for block in blocks:
            features.append(self._forward(epoch, block, labels))
            weights.append(to_device(block.weights, self.device))
            sums.add(block, {})
        gather = self.collectives.gather_blocks
        batch = {name: gather(torch.stack([output[name] for output in features])) for name in features[0]}
        output = method.batch_loss(batch, gather(torch.stack(weights)))
        self._backward(output)
        values = {"loss": output.loss.detach(), **output.terms}
        sums.add_values({name: value / self.collectives.world for name, value in values.items()})  # same on all workers
        return {name: tensor.detach() for name, tensor in batch.items()}

    def _backward(self, output: BlockOutput) -> None:
        # The next run of a compiled block may overwrite its outputs, as with the backend cudagraphs.
        compiled = bool(self.config.runtime.compile_backend)
        kept = [parameter for parameter in self.method.parameters() if compiled and parameter.grad is None]
        # The workers' gradients are added up later, so dividing by the global batch, whose size never changes, gives
        # its mean.
        (output.loss * (1 / self.config.batch.clips_per_step)).backward()
        for parameter in kept:  # autograd adds the gradients of later blocks to these
            parameter.grad = None if parameter.grad is None else parameter.grad.clone()
        if output.embeddings is not None:
            self._embeddings.append(output.embeddings.clone() if compiled else output.embeddings)

    def _forward(self, epoch: int, block: Block, labels: Sequence[np.ndarray]) -> Any:
        """Return the method's output for a block."""
        # Only the block's labels are copied, because the workers of a node share the table of all clips.
        own = np.array([head[block.clip_ids] for head in labels], np.int64).reshape(len(labels), len(block.clip_ids))
        views = self.views(to_device(block.waves, self.device), epoch, block.index)
        # Seeded by the block, so that dropout does not depend on this worker's earlier draws.
        seed_draws(self.device, randomness.derived_seed(self.config.seed, "dropout", epoch, block.index))
        with self._autocast():
            return self.method(views, to_device(block.weights, self.device), to_device(own, self.device))

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.precision == "bfloat16")
