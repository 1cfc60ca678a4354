"""Measures DECAR-v2's step as a training runs it: clips/s in several forms, kernels, and waits of the host."""

from __future__ import annotations

import itertools
import shutil
import time
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch.autograd import DeviceType  # type: ignore[attr-defined]
from torch.profiler import ProfilerActivity, profile

from benchmarks.gpu.learning import NoiseBlock, labels, learner
from benchmarks.gpu.timing import SetAsideError, seconds, wait
from benchmarks.measure import Figure, figure
from unfused_ray import recipes
from unfused_ray.config import TrainingConfig
from unfused_ray.models import kernels
from unfused_ray.models.roofline import CARDS, Work, count, estimate
from unfused_ray.runs.checkpoints import Position
from unfused_ray.training.worker.device import chosen_kernels
from unfused_ray.training.worker.epoch_sums import EpochSums

CLUSTERS, ROUNDS = 512, 5


def settings(small: bool, **changes: Any) -> TrainingConfig:
    """Return the paper's network and batch in one process, or a toy's."""
    recipe = recipes.PRETRAIN["tiny" if small else "decar-v2-audioset"][1]
    here = {"runtime.kind": "in-process", "runtime.num_workers": 1, "runtime.gpus_per_worker": 0.0}
    return recipe.replace(here | {name.replace("__", "."): value for name, value in changes.items()})


def step_of(config: TrainingConfig, device: torch.device) -> Callable[[], None]:
    """Return a training's step on blocks in host memory, one after another."""
    learning, num_blocks = learner(config, device, CLUSTERS), config.batch.blocks_per_step
    blocks = [NoiseBlock.of(config, index) for index in range(num_blocks)]
    given, sums = labels(config, num_blocks * config.batch.block, CLUSTERS), EpochSums()
    endless, steps = itertools.cycle(blocks), itertools.count()

    def step() -> None:
        learning.step(Position(0, next(steps)), endless, given, 1e-4, sums, lambda clip_ids, embeddings: None)
        learning.finite_check.first_not_finite(late=8)

    return step


def measure(device: torch.device, small: bool) -> list[Figure]:
    """Measure the step in both number formats, its kernels, and its bounds."""
    figures, repeats = [], 1 if small else 10
    for precision in ("bfloat16", "float32"):
        config = settings(small, runtime__precision=precision)
        step = step_of(config, device)
        with chosen_kernels(config.runtime, device):
            taken = seconds(step, device, ROUNDS, repeats)
            rates = [config.batch.clips_per_step / each for each in taken]
            figures.append(figure(f"step, eager, {precision}", rates, "clips/s"))
            if precision == "bfloat16":
                figures += _waits(step, device)
                figures += _kernels(step, device, config.batch.blocks_per_step)
    return [*figures, *_bounds(small)]


def measure_inductor(device: torch.device, small: bool) -> list[Figure]:
    """Measure clips/s with kernels fused by torch.compile's inductor, and how long compiling took.

    Raises:
        SetAsideError: there is no C compiler.
    """
    if not any(map(shutil.which, ("gcc", "cc", "clang"))):
        raise SetAsideError("inductor needs a C compiler")
    return _compiled("inductor", device, small)


def measure_graph(device: torch.device, small: bool) -> list[Figure]:
    """Measure clips/s with each block as a CUDA graph; the host launches all its kernels at once.

    Raises:
        SetAsideError: there is no GPU.
    """
    if device.type != "cuda":
        raise SetAsideError("a CUDA graph needs a GPU")
    return _compiled("cudagraphs", device, small)


def _compiled(backend: str, device: torch.device, small: bool) -> list[Figure]:
    if small:
        raise SetAsideError("compiling takes a minute, which a small run does not have")
    config = settings(small, runtime__precision="bfloat16", runtime__compile_backend=backend)
    step = step_of(config, device)
    with chosen_kernels(config.runtime, device):
        started = time.perf_counter()
        step()
        wait(device)
        compiling = time.perf_counter() - started
        rates = [config.batch.clips_per_step / taken for taken in seconds(step, device, ROUNDS, 10)]
    return [figure(f"step, {backend}, bfloat16", rates, "clips/s"), Figure("its first step", compiling, "s")]


def _waits(step: Callable[[], None], device: torch.device) -> list[Figure]:
    """Count the places where the host waits for the device, as torch detects them; empty on a processor."""
    if device.type != "cuda":
        return []
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as found:
            warnings.simplefilter("always")
            step()
    finally:
        torch.cuda.set_sync_debug_mode(before)
    waits = sum("synchroniz" in str(each.message) for each in found)
    return [Figure("synchronisations of a step", waits, "", reach="≤ 0")]


def _kernels(step: Callable[[], None], device: torch.device, num_blocks: int) -> list[Figure]:
    """Count the kernels and copies of a step, and measure the share of it in which the device computes."""
    if device.type != "cuda":
        with kernels.as_on_gpu(), Work() as work:
            step()
        return [Figure("operators a block", work.num_operators / num_blocks, "")]
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiled:
        step()
        wait(device)
    on_device = [event for event in profiled.events() if event.device_type == DeviceType.CUDA]
    copies = [event for event in on_device if event.name.startswith("Mem")]
    pageable = sum("Pageable" in event.name for event in copies)
    intervals = sorted((event.time_range.start, event.time_range.end) for event in on_device)
    busy, until = 0.0, float("-inf")
    for start, end in intervals:
        busy += max(0.0, end - max(start, until))
        until = max(until, end)
    span = until - intervals[0][0] if intervals else 1.0
    return [
        Figure("kernels a block", (len(on_device) - len(copies)) / num_blocks, ""),
        Figure("copies of a step through pageable memory", pageable, "", reach="≤ 0"),
        Figure("share of a step in which the device is busy, while it is profiled", 100 * busy / span, "%"),
        Figure("most memory of the device", torch.cuda.max_memory_allocated(device) / 1e9, "GB"),
    ]


def _bounds(small: bool) -> list[Figure]:
    """Count operations and bytes of a step, to divide by the ceilings; estimate known cards as a dry run does."""
    config = settings(small, runtime__precision="bfloat16", batch__blocks_per_step=1)
    with kernels.as_on_gpu():
        work = count(step_of(config, torch.device("cpu")))
    found = {name: estimate(work, config.batch.block, card) for name, card in CARDS.items()}
    return [
        Figure("a step of one block: operations", work.count / 1e9, "GFLOP"),
        Figure("a step of one block: bytes read and written, each operator for itself", work.num_bytes / 1e9, "GB"),
        Figure("a step of one block: operators", work.num_operators, ""),
        *(Figure(f"a dry run's estimate for {name}", each.clips_per_second, "clips/s") for name, each in found.items()),
    ]
