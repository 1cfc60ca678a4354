"""Copies arrays to a device without making it wait."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def to_device(array: np.ndarray, device: torch.device) -> Tensor:
    """Return an array as a tensor on ``device``; it is copied to a GPU through pinned memory, asynchronously.

    A GPU copies from unpinned memory only after all its earlier work, and the host waits for that. An array from
    :func:`pinned` is copied directly.
    """
    tensor = torch.from_numpy(np.require(array, requirements="W"))
    if device.type == "cpu":
        return tensor
    return (tensor if tensor.is_pinned() else tensor.pin_memory()).to(device, non_blocking=True)


def pinned(array: np.ndarray, device: torch.device) -> np.ndarray:
    """Copy an array into memory that a GPU reads by itself; for a CPU, return it unchanged. Any thread may call
    this."""
    if device.type == "cpu":
        return array
    with torch.cuda.device(device):  # otherwise a thread opens a context on the first GPU, which takes up memory there
        return torch.from_numpy(np.require(array, requirements="W")).pin_memory().numpy()
