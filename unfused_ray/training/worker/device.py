"""The training device: its threads, precision and draws, and results on their way back without making it wait."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Literal

import torch
from torch import Tensor

from unfused_ray.config import RuntimeConfig
from unfused_ray.threads import Machine, choose_threads

logger = logging.getLogger(__name__)

Precision = Literal["float32", "bfloat16"]


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


def seed_draws(device: torch.device, seed: int) -> None:
    """Seed the generator that draws on a device, and no other, as ``torch.manual_seed`` would, which takes 0.1 ms."""
    if device.type == "cuda":
        index = torch.cuda.current_device() if device.index is None else device.index
        torch.cuda.default_generators[index].manual_seed(seed)
    else:
        torch.default_generator.manual_seed(seed)


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


def choose_precision(config: RuntimeConfig, device: torch.device, saved: str | None = None) -> Precision:
    """Return the number format that a training computes in.

    Args:
        config: settings of the runtime.
        device: of the training.
        saved: that the checkpoint to resume from was written in, which ``auto`` keeps.

    Raises:
        ValueError: bfloat16 is asked for, or was begun with, where the GPU lacks it.
    """
    known: Mapping[str | None, Precision] = {"float32": "float32", "bfloat16": "bfloat16"}
    wanted = known.get(config.precision) or known.get(saved)
    if wanted is None:
        return "bfloat16" if _has_bfloat16(device) else "float32"
    if wanted == "bfloat16" and device.type == "cuda" and not _has_bfloat16(device):
        begun = "" if config.precision == wanted else ", which the run was begun with"
        raise ValueError(
            f"runtime.precision={wanted}{begun}: this GPU has no instructions for it; a new run may use float32"
        )
    return wanted


def _has_bfloat16(device: torch.device) -> bool:
    """True if the device has instructions for bfloat16: a GPU's, or a processor's AVX512-BF16 or AMX."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name, False) for name in ("avx512_bf16", "amx_bf16"))


def refuse_unknown_backend(config: RuntimeConfig) -> None:
    """Refuse a backend that torch.compile does not have.

    Raises:
        ValueError: names those it has.
    """
    if config.compile_backend:
        known = torch.compiler.list_backends(exclude_tags=())
        if config.compile_backend not in known:
            raise ValueError(f"runtime.compile_backend={config.compile_backend} is none of {', '.join(known)}")
