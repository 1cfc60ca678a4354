"""Moving blocks to the training device and results back, without making the device wait."""

from __future__ import annotations

import logging
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from unfused_ray.config import RuntimeConfig
from unfused_ray.threads import Machine, choose_threads

logger = logging.getLogger(__name__)


def to_device(array: np.ndarray, device: torch.device) -> Tensor:
    """An array as a tensor on ``device``; to a GPU through pinned memory, asynchronously."""
    tensor = torch.from_numpy(np.require(array, requirements="W"))
    if device.type == "cpu":
        return tensor
    return tensor.pin_memory().to(device, non_blocking=True)


def to_host(tensor: Tensor) -> Callable[[], Tensor]:
    """Start copying a tensor to the host; the function returned waits for this copy alone and gives it."""
    if tensor.device.type == "cpu":
        return lambda: tensor
    host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    host.copy_(tensor, non_blocking=True)
    copied = torch.cuda.Event()
    copied.record()

    def wait() -> Tensor:
        copied.synchronize()
        return host

    return wait


def set_threads(config: RuntimeConfig, workers_on_node: int, saved: int | None = None) -> int:
    """Give this process its torch threads, of which Ray would leave it one; return their number.

    Args:
        config: settings of the runtime.
        workers_on_node: workers that share the node's cores.
        saved: threads that the checkpoint to resume from was written with.
    """
    threads, _ = choose_threads(config.threads, workers_on_node, Machine.now(), saved)
    torch.set_num_threads(threads)
    return threads


def warn_of_load(config: RuntimeConfig, workers: int, saved: int | None) -> None:
    """Warn if other processes of this machine leave its workers too few cores for their threads."""
    _, warning = choose_threads(config.threads, workers, Machine.now(), saved)
    if warning:
        logger.warning(warning)


def autocast_dtype(config: RuntimeConfig, device: torch.device) -> torch.dtype | None:
    """The lower precision to compute in, or None for float32.

    Raises:
        ValueError: bfloat16 is asked for where the GPU lacks it.
    """
    supported = device.type == "cuda" and torch.cuda.is_bf16_supported()
    if config.precision == "bfloat16" and device.type == "cuda" and not supported:
        raise ValueError("runtime.precision=bfloat16: this GPU does not support it; use auto or float32")
    return torch.bfloat16 if config.precision == "bfloat16" or (config.precision == "auto" and supported) else None


def refuse_unknown_backend(config: RuntimeConfig) -> None:
    """Refuse a backend that torch.compile does not have.

    Raises:
        ValueError: names those it has.
    """
    if config.compile_backend:
        known = torch.compiler.list_backends(exclude_tags=())
        if config.compile_backend not in known:
            raise ValueError(f"runtime.compile_backend={config.compile_backend} is none of {', '.join(known)}")
