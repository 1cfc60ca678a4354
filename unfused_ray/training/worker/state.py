"""The state that training changes: the method's weights, their average, and the optimiser's moments."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from unfused_ray.config import TrainingConfig
from unfused_ray.methods.method import Method
from unfused_ray.models.encoder import AudioNTT2020
from unfused_ray.runs.checkpoints import Checkpoint
from unfused_ray.training.worker.average import WeightAverage
from unfused_ray.training.worker.optimizer import (
    build_optimizer,
    flatten_optimizer,
    set_learning_rate,
    unflatten_optimizer,
)


class TrainingState:
    """A method in training; the same on all workers.

    Args:
        config: settings of the run.
        method: method on the device it is trained on.
    """

    def __init__(self, config: TrainingConfig, method: Method) -> None:
        self.method = method
        self.optimizer = build_optimizer(config.optimizer, method)
        self.average = WeightAverage(method.encoder, config.ema_decay) if config.ema_decay else None

    def step(self, lr: float) -> None:
        """Update the weights by their gradients, and the average by the weights."""
        set_learning_rate(self.optimizer, lr)
        self.optimizer.step()
        if self.average is not None:
            self.average.update(self.method.encoder)

    @property
    def learning_rate(self) -> float:
        """Learning rate of the newest step."""
        lr: float = self.optimizer.param_groups[0]["lr"]
        return lr

    def tensors(self) -> Mapping[str, Mapping[str, Tensor]]:
        """Return the whole state by file name, then by tensor name, for a checkpoint."""
        tensors = {"model": self.method.state_dict(), "optimizer": flatten_optimizer(self.optimizer)}
        return tensors if self.average is None else tensors | {"average": self.average.state_dict()}

    def load(self, checkpoint: Checkpoint) -> None:
        """Load the :meth:`tensors` of a checkpoint."""
        self.method.load_state_dict(checkpoint.tensors("model"))
        unflatten_optimizer(self.optimizer, checkpoint.tensors("optimizer"))
        if self.average is not None:
            self.average.load_state_dict(checkpoint.tensors("average"))

    def exported(self) -> AudioNTT2020:
        """Return the encoder to export: averaged if the run has an average, cut as the method says."""
        encoder = self.method.encoder if self.average is None else self.average.network
        return encoder.truncated(self.method.export_cut)
