"""The exponential moving average of an encoder's weights that a run exports."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from unfused_ray.models.encoder import AudioNTT2020

_UPDATES, _NETWORK = "n_averaged", "module."  # names in checkpoints, as in torch's AveragedModel


class WeightAverage:
    """An average of weights and running statistics, whose decay grows with the number of updates.

    The n-th update keeps (1 + n) / (10 + n) of the average, at most ``decay``; the first takes the weights as they are.
    The values equal those of torch's ``AveragedModel`` bit for bit. But updates are counted on the host, because
    ``AveragedModel`` copies its counter to the device for each tensor, and each copy waits for the device.

    Args:
        network: the network to average, on its device.
        decay: decay of late updates.
    """

    def __init__(self, network: AudioNTT2020, decay: float) -> None:
        self.network = copy.deepcopy(network).requires_grad_(False)
        """The average as a network."""
        self._decay = decay
        self._updates = 0

    @torch.no_grad()
    def update(self, network: AudioNTT2020) -> None:
        """Move the average towards a network of the same shape."""
        n, one = self._updates, np.float32(1)  # in float32, like the values in older checkpoints
        kept = min(np.float32(1 + n) / np.float32(10 + n), np.float32(self._decay)) if n else np.float32(0)
        ours, theirs = (list(each.state_dict().values()) for each in (self.network, network))
        torch._foreach_lerp_(ours, theirs, float(one - kept))
        self._updates += 1

    def state_dict(self) -> dict[str, Tensor]:
        """Return the average and the number of its updates, for a checkpoint."""
        named = {f"{_NETWORK}{name}": value for name, value in self.network.state_dict().items()}
        return {_UPDATES: torch.tensor(self._updates), **named}

    def load_state_dict(self, tensors: Mapping[str, Tensor]) -> None:
        """Load the result of :meth:`state_dict`."""
        self._updates = int(tensors[_UPDATES])
        named = {name.removeprefix(_NETWORK): value for name, value in tensors.items() if name != _UPDATES}
        self.network.load_state_dict(named)
