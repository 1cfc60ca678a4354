"""Copies arrays to a device without making it wait."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def to_device(array: np.ndarray, device: torch.device) -> Tensor:
    """An array as a tensor on ``device``; to a GPU through pinned memory, asynchronously.

    A GPU copies from other memory only after all that it was given before, and the host waits for that. An array that
    :func:`pinned` has made is copied as it is.
    """
    tensor = torch.from_numpy(np.require(array, requirements="W"))
    if device.type == "cpu":
        return tensor
    return (tensor if tensor.is_pinned() else tensor.pin_memory()).to(device, non_blocking=True)


def pinned(array: np.ndarray, device: torch.device) -> np.ndarray:
    """A copy in memory that a GPU reads by itself; for a CPU the array as it is. Any thread may call it."""
    if device.type == "cpu":
        return array
    with torch.cuda.device(device):  # otherwise a thread opens a context on the first GPU, which takes memory there
        return torch.from_numpy(np.require(array, requirements="W")).pin_memory().numpy()
