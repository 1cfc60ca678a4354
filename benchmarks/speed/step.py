"""The training step of DECAR-v2 and UnFuSeD on tensors in memory, against a plain encoder's and the machine's peak.

    python -m benchmarks.speed.step [--clips 64] [--rounds 7] [--compile-backend inductor]

The plain step is written as a researcher would write it: eager modules as in the papers' code, PyTorch's default AdamW,
glibc's default memory. Both see the same views and have heads of the same size, in float32; "auto" is the precision
that a run would choose here. "Share of the peak" takes the floating point operations of our step's matrix products and
convolutions (PyTorch's counter) relative to the rate of a large matrix product, by MKL or by oneDNN, whichever is
faster.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
from collections.abc import Callable
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F
from torch.profiler import ProfilerActivity, profile

from benchmarks.measure import Figure, by_turns, figure, ratio, report
from benchmarks.speed.reference import PlainEncoder
from unfused_ray.config import (
    DecarConfig,
    EncoderConfig,
    FrontEndConfig,
    OptimizerConfig,
    RuntimeConfig,
    UnfusedConfig,
)
from unfused_ray.machine import memory
from unfused_ray.methods.decar import DecarV2
from unfused_ray.methods.method import Method
from unfused_ray.methods.unfused import Unfused
from unfused_ray.models.batch_norm import update_running_statistics
from unfused_ray.models.cost import Operations
from unfused_ray.training.worker.device import Precision, choose_precision
from unfused_ray.training.worker.optimizer import build_optimizer

CLUSTERS, FRAMES, GEMM = 512, 96, 2048
PROFILED = 8
PRODUCT, CONVOLUTION = "matrix product of 2,048³", "the same as a 1 × 1 convolution"
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
Step = Callable[[], object]


def waiting(work: Step) -> Step:
    """Return the same work, followed by waiting for the device."""

    def waited() -> None:
        work()
        if DEVICE.type == "cuda":
            torch.cuda.synchronize()

    return waited


def our_step(method: Method, clips: int, precision: Precision, backend: str = "") -> Step:
    """Return a step as the loop makes it: forward, backward, statistics, gradient norm and optimiser."""
    method.to(DEVICE).train()
    if backend:
        method.compile(backend=backend)
    optimizer = build_optimizer(OptimizerConfig(), method)
    views = torch.randn(method.num_views, clips, method.encoder.num_mels, FRAMES, device=DEVICE)
    weights = torch.ones(clips, device=DEVICE)
    labels = torch.randint(CLUSTERS, (1, clips), device=DEVICE)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(DEVICE.type, dtype=torch.bfloat16, enabled=precision == "bfloat16"):
            output = method(views, weights, labels)
        (output.loss / clips).backward()
        update_running_statistics(method)
        torch.nn.utils.get_total_norm([p.grad for p in method.parameters() if p.grad is not None])
        optimizer.step()

    return waiting(step)


def plain_step(clips: int, num_views: int) -> Step:
    """Return a step of the same training as a researcher would write it."""
    config = DecarConfig()
    encoder = PlainEncoder()
    with torch.no_grad():
        dim = encoder(torch.zeros(2, FrontEndConfig().num_mels, FRAMES)).shape[1]
    head = nn.Sequential(
        nn.Linear(dim, config.projection_hidden),
        nn.BatchNorm1d(config.projection_hidden),
        nn.ReLU(),
        nn.Linear(config.projection_hidden, config.projection_dim),
    )
    model = nn.Sequential(encoder, head).to(DEVICE).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4)
    views = torch.randn(num_views * clips, FrontEndConfig().num_mels, FRAMES, device=DEVICE)
    labels = torch.randint(CLUSTERS, (num_views * clips,), device=DEVICE)
    prototypes = F.normalize(torch.randn(CLUSTERS, config.projection_dim, device=DEVICE), dim=1)

    def step() -> None:
        optimizer.zero_grad()
        F.cross_entropy(F.normalize(model(views), dim=1) @ prototypes.T / config.temperature, labels).backward()
        optimizer.step()

    return waiting(step)


def decar(clips: int, precision: Precision = "float32", backend: str = "") -> Step:
    """Return a step of pre-training."""
    config = DecarConfig(num_clusters=(CLUSTERS,))
    method = DecarV2(config, EncoderConfig(), FrontEndConfig().num_mels)
    method.to(DEVICE).begin_epoch([F.normalize(torch.randn(CLUSTERS, config.projection_dim), dim=1).numpy()])
    return our_step(method, clips, precision, backend)


def unfused(clips: int, precision: Precision = "float32") -> Step:
    """Return a step of distillation."""
    method = Unfused(UnfusedConfig(), EncoderConfig(), FrontEndConfig().num_mels, [CLUSTERS])
    return our_step(method, clips, precision)


def products() -> dict[str, Step]:
    """Return a large matrix product in torch's two forms: on a CPU, MKL computes the first and oneDNN the second."""
    left, right = torch.randn(2, GEMM, GEMM, device=DEVICE)
    out = torch.empty(GEMM, GEMM, device=DEVICE)
    images, kernels = left.T[None, :, :, None].contiguous(memory_format=torch.channels_last), right[:, :, None, None]
    return {
        PRODUCT: waiting(lambda: torch.mm(left, right, out=out)),
        CONVOLUTION: waiting(lambda: F.conv2d(images, kernels)),
    }


def contenders(clips: int, backend: str) -> dict[str, Step]:
    """Return all contenders by name, steps of two views first."""
    torch.manual_seed(0)
    compiled = {"DECAR-v2, compiled": decar(clips, backend=backend)} if backend else {}
    low = choose_precision(RuntimeConfig(), DEVICE)
    return {
        "plain, 2 views": plain_step(clips, 2),
        "DECAR-v2": decar(clips),
        **compiled,
        "plain, 1 view": plain_step(clips, 1),
        "UnFuSeD": unfused(clips),
        "DECAR-v2, auto": decar(clips, low),
        "UnFuSeD, auto": unfused(clips, low),
        **products(),
    }


def serve(pipe: Connection, clips: int, backend: str) -> None:
    """Run the contenders one at a time, at the other process's request: glibc's memory is set for a whole process."""
    steps = contenders(clips, backend)
    for name in iter(pipe.recv, ""):
        steps[name]()
        pipe.send(None)


class Server:
    """A separate process, with freed memory kept or given back."""

    def __init__(self, clips: int, backend: str, environment: dict[str, str]) -> None:
        self.pipe, theirs = multiprocessing.Pipe()
        os.environ.update(environment)
        context = multiprocessing.get_context("spawn")
        context.Process(target=serve, args=(theirs, clips, backend), daemon=True).start()
        for name in environment:
            del os.environ[name]

    def run(self, name: str) -> None:
        """Have one step done; the message takes microseconds."""
        self.pipe.send(name)
        self.pipe.recv()

    def close(self) -> None:
        """End the process."""
        self.pipe.send("")


def operations(step: Step) -> int:
    """Count the floating point operations of a step."""
    with Operations() as operations:
        step()
    return operations.count


def profiled(step: Step) -> list[Figure]:
    """Return the shares of the operators that take most of a step's processor time."""
    for _ in range(5):
        step()
    with profile(activities=[ProfilerActivity.CPU]) as record:
        for _ in range(3):
            step()
    events = record.key_averages()
    total = sum(event.self_cpu_time_total for event in events)
    events = sorted(events, key=lambda event: -event.self_cpu_time_total)[:PROFILED]
    return [Figure(f"  {event.key}", 100 * event.self_cpu_time_total / total, "% of a step") for event in events]


def main() -> None:
    """Time, count, profile and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=64, help="of a block")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--compile-backend", default="", help="of torch.compile, such as inductor; none by default")
    parser.add_argument("--output", type=Path, default=Path("output/bench"))
    options = parser.parse_args()
    clips, backend = options.clips, options.compile_backend
    kept, returned = Server(clips, backend, memory.ENVIRONMENT), Server(clips, "", {})
    names = ["plain, 2 views", "DECAR-v2", "plain, 1 view", "UnFuSeD"]
    compiled = ["DECAR-v2, auto", "UnFuSeD, auto", *(["DECAR-v2, compiled"] if backend else [])]
    work: dict[str, Step] = {f"{name}, memory given back": partial(returned.run, name) for name in names}
    work |= {f"{name}, memory kept": partial(kept.run, name) for name in (*names, *compiled, PRODUCT, CONVOLUTION)}
    taken = by_turns(work, options.rounds, warmups=3)  # the heap takes some steps to settle
    kept.close()
    returned.close()

    def rate(name: str) -> Figure:
        return figure(name, [clips / seconds for seconds in taken[name]], "clips/s")

    figures = [rate(name) for name in work if PRODUCT not in name and CONVOLUTION not in name]
    for ours, plain in (("DECAR-v2", "plain, 2 views"), ("UnFuSeD", "plain, 1 view")):
        above, below = taken[f"{plain}, memory given back"], taken[f"{ours}, memory kept"]
        figures.append(ratio(f"{ours} against the plain encoder", above, below, "≥ 1.5" if ours == "DECAR-v2" else ""))
        figures.append(ratio("  of it, by keeping memory", taken[f"{ours}, memory given back"], below))
    for name in ("DECAR-v2", "UnFuSeD"):
        above, below = taken[f"{name}, memory kept"], taken[f"{name}, auto, memory kept"]
        figures.append(ratio(f"{name}: precision auto against float32", above, below, "≥ 2"))
    rates = {
        name: [2 * GEMM**3 / seconds for seconds in taken[f"{name}, memory kept"]] for name in (PRODUCT, CONVOLUTION)
    }
    figures += [figure(f"peak: {name}", [rate / 1e9 for rate in found], "GFLOP/s") for name, found in rates.items()]
    peak = [max(pair) for pair in zip(*rates.values(), strict=True)]
    for name, step in (("DECAR-v2", decar(clips)), ("UnFuSeD", unfused(clips))):
        count = operations(step)
        reached = [count / seconds / top for seconds, top in zip(taken[f"{name}, memory kept"], peak, strict=True)]
        figures.append(Figure(f"{name}: operations of a step", count / 1e9, "GFLOP"))
        figures.append(figure(f"{name}: share of the peak", [100 * value for value in reached], "%"))
    memory.keep_freed()
    figures += profiled(decar(clips))
    report("step", figures, options.output)


if __name__ == "__main__":
    main()
