"""The training device: its threads, its precision, its random draws, and copies of results that do not make it wait."""

from __future__ import annotations

import logging
import os
import socket
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor

from unfused_ray.config import RuntimeConfig
from unfused_ray.machine.nvidia import cuda_version, driver_version, why_no_gpu
from unfused_ray.machine.threads import Machine, choose_threads, load_warning, usable_cores

logger = logging.getLogger(__name__)

Precision = Literal["float32", "bfloat16"]

_BFLOAT16_INSTRUCTIONS = {"avx512_bf16": "AVX512-BF16", "amx_bf16": "AMX"}
_FIRST_WITH_TF32 = (8, 0)
"""Compute capability of Ampere, the first with TF32."""


def to_host(tensor: Tensor) -> Callable[[], Tensor]:
    """Start copying a tensor to the host; return a function that waits for this copy alone and returns it."""
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


def snapshot(groups: Mapping[str, Mapping[str, Tensor]]) -> Callable[[], dict[str, dict[str, Tensor]]]:
    """Start copying tensors, as they are now, to the host; return a function that waits for the copies and returns
    them."""
    copies = {
        name: {key: to_host(value.detach().clone()) for key, value in group.items()} for name, group in groups.items()
    }
    return lambda: {name: {key: copied() for key, copied in group.items()} for name, group in copies.items()}


def seed_draws(device: torch.device, seed: int) -> None:
    """Seed the random generator of one device only; ``torch.manual_seed`` seeds all of them, which takes 0.1 ms."""
    if device.type == "cuda":
        index = torch.cuda.current_device() if device.index is None else device.index
        torch.cuda.default_generators[index].manual_seed(seed)
    else:
        torch.default_generator.manual_seed(seed)


def set_threads(config: RuntimeConfig, workers_on_node: int, saved: int | None = None) -> int:
    """Set the torch threads of this process, to which Ray would leave one; return their number.

    Args:
        config: settings of the runtime.
        workers_on_node: number of workers that share the node's cores.
        saved: number of threads that the checkpoint to resume from was written with.
    """
    threads = choose_threads(config.threads, workers_on_node, usable_cores(), saved)
    torch.set_num_threads(threads)
    return threads


def warn_of_load(config: RuntimeConfig, workers: int, saved: int | None) -> None:
    """Warn if other processes of this machine leave its workers too few cores for their threads."""
    threads = choose_threads(config.threads, workers, usable_cores(), saved)
    if threads > 1 and (warning := load_warning(threads, workers, Machine.now())):  # Machine.now takes up to 0.2 s
        logger.warning(warning)


def choose_precision(config: RuntimeConfig, device: torch.device, saved: str | None = None) -> Precision:
    """Return the number format that a training computes in.

    Args:
        config: settings of the runtime.
        device: device of the training.
        saved: number format of the checkpoint to resume from, which ``auto`` keeps.

    Raises:
        ValueError: the run asks for bfloat16, or was begun with it, and the GPU lacks it.
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


def set_workspace(config: RuntimeConfig) -> None:
    """Give cuBLAS the workspace of deterministic algorithms, before a process's first matrix product, when torch reads
    it."""
    if config.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


@contextmanager
def chosen_kernels(config: RuntimeConfig, device: torch.device) -> Iterator[None]:
    """Make torch choose a GPU's kernels by speed within this block, or among those that repeat results bit by bit.

    Nothing is set on a CPU, whose kernels always repeat results. The settings are the process's and are restored after
    the block, except cuBLAS's workspace, which torch reads once.
    """
    if device.type != "cuda":
        yield
        return
    cudnn, deterministic = torch.backends.cudnn, torch.utils.deterministic
    before = cudnn.benchmark, cudnn.deterministic, deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    algorithms = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    # Shapes never change, so searching for the fastest convolution pays; the one that is chosen differs between runs.
    cudnn.benchmark, cudnn.deterministic = not config.deterministic, config.deterministic
    torch.use_deterministic_algorithms(config.deterministic)
    set_workspace(config)
    if config.deterministic:
        deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # it is never read
    try:
        yield
    finally:
        cudnn.benchmark, cudnn.deterministic, deterministic.fill_uninitialized_memory = before  # type: ignore[attr-defined]
        torch.use_deterministic_algorithms(algorithms[0], warn_only=algorithms[1])


def describe_arithmetic(config: RuntimeConfig, device: torch.device, precision: Precision) -> str:
    """Name number format and device of a training, as in "bfloat16 on 2 threads of a CPU with AVX512-BF16"."""
    if device.type != "cuda":
        threads = torch.get_num_threads()
        names = [text for name, text in _BFLOAT16_INSTRUCTIONS.items() if torch.cpu.get_capabilities().get(name)]
        instructions = f"with {' and '.join(names)}" if names else "without instructions for bfloat16"
        return f"{precision} on {threads} thread{'s' * (threads > 1)} of a CPU {instructions}"
    rounded = precision == "float32" and torch.cuda.get_device_capability(device) >= _FIRST_WITH_TF32
    exact = ", by deterministic algorithms" if config.deterministic else ""
    return f"{precision}{' (TF32 in convolutions)' * rounded} on {torch.cuda.get_device_name(device)}{exact}"


def refuse_missing_gpu(config: RuntimeConfig) -> None:
    """Refuse to train without the GPU that is asked for.

    Raises:
        ValueError: torch sees none in this process; says why.
    """
    if config.gpus_per_worker and not torch.cuda.is_available():
        raise ValueError(
            f"runtime.gpus_per_worker={config.gpus_per_worker:g} asks for a GPU, but torch sees none: "
            f"{reason_without_gpu()}. Give 0 to train on CPUs"
        )


def warn_of_idle_gpu() -> None:
    """Warn if a training in this process is on CPUs while GPUs of a cluster or of this machine may be idle.

    The cluster is not asked whether it has GPUs, because this training works without Ray.
    """
    if torch.cuda.is_available():
        return
    if os.environ.get("RAY_ADDRESS") and "ray" not in sys.modules:  # not in a sweep's trial, which Ray has placed
        logger.warning(
            "training in this process, on the CPUs of %s, and not on the cluster of RAY_ADDRESS. If that has GPUs: "
            "`ray job submit --entrypoint-num-gpus 1` runs this process on a node with one, --runtime.kind workers "
            "trains on its nodes",
            socket.gethostname(),
        )
    if driver_version():
        logger.warning("training on the CPU, although this machine has an NVIDIA driver: %s", reason_without_gpu())


def reason_without_gpu() -> str:
    """Return why torch sees no GPU in this process, with the versions of driver and CUDA; '' if it sees one."""
    if not (reason := why_no_gpu()):
        return ""
    return f"{reason} (driver {driver_version() or 'none'}, torch's CUDA {cuda_version() or 'none'})"


def _has_bfloat16(device: torch.device) -> bool:
    """Return True if the device, a GPU or a processor, has instructions for bfloat16."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name, False) for name in _BFLOAT16_INSTRUCTIONS)


def refuse_unknown_backend(config: RuntimeConfig) -> None:
    """Refuse a backend that torch.compile does not have.

    Raises:
        ValueError: there is no such backend; names those there are.
    """
    if config.compile_backend:
        known = torch.compiler.list_backends(exclude_tags=())
        if config.compile_backend not in known:
            raise ValueError(f"runtime.compile_backend={config.compile_backend} is not one of {', '.join(known)}")
