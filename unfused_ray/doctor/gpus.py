"""Findings on GPUs: whether torch and faiss see them, why not, and whether one node holds all workers of a training."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from unfused_ray.config import RuntimeConfig, TrainingConfig
from unfused_ray.doctor.finding import Finding
from unfused_ray.doctor.node import NodeReport

_SENT_BYTES = 64 << 20
"""About the size of the gradients of one step of DECAR-v2, 59 MB."""
_SEND_SECONDS = 60.0


def wanted_by(config: TrainingConfig) -> float:
    """Return the GPUs that a run's workers, and the processes that cluster for it, request."""
    shares = config.flat()
    clustering = shares.get("method.assignment_gpus", 0.0) * shares.get("method.assignment_shards", 1)
    return config.runtime.num_workers * config.runtime.gpus_per_worker + clustering


def look_at_gpus(reports: Mapping[str, NodeReport], config: TrainingConfig) -> Iterator[Finding]:
    """Find out how many GPUs torch and faiss see on nodes with GPUs; a run that needs none gets only warnings."""
    wanted = wanted_by(config)
    seen = {node: report for node, report in reports.items() if report.torch_gpus is not None}
    if wanted and not seen:
        fix = "ask again when one is up"
        yield Finding("GPUs", "warning", "no node with a GPU is up: none could be checked", fix)
    for node, report in seen.items():
        if not report.torch_gpus:
            fix = "install a driver of NVIDIA there that is as new as torch's CUDA, and a torch built with CUDA"
            found = f"{node}: torch sees none: {report.no_gpu}"
            yield Finding("GPUs", "problem" if wanted else "warning", found, fix)
            continue
        faiss = "".join(f", {name} {version}" for name, version in report.faiss.items())
        sees = f"{report.torch_gpus} visible to torch" + (" and faiss" if report.faiss_gpus else "")
        found = f"{node}: {sees} (driver {report.driver or 'unknown'}, torch's CUDA {report.cuda}{faiss})"
        if report.faiss_gpus == 0:
            fix = "faiss-gpu needs a driver of CUDA 12.6 or newer"
            yield Finding("GPUs", "warning", f"{found}; faiss sees none", fix)
        else:
            yield Finding("GPUs", "ok", found)


def look_at_faiss(reports: Mapping[str, NodeReport], config: TrainingConfig) -> Iterator[Finding]:
    """Find nodes with two distributions of faiss, or without one for GPUs if the run clusters on GPUs."""
    on_gpus = config.flat().get("method.assignment_gpus", 0.0) > 0
    for node, report in reports.items():
        installed = " and ".join(f"{name} {version}" for name, version in report.faiss.items())
        if len(report.faiss) > 1:
            fix = f"pip uninstall {' '.join(report.faiss)}, then install one: faiss-gpu where a GPU is, else faiss-cpu"
            yield Finding("faiss", "problem", f"{node}: {installed} are the same module", fix)
        elif on_gpus and report.torch_gpus is not None and report.faiss_gpus is None:
            fix = "pip uninstall faiss-cpu, then pip install 'unfused-ray[gpu]', or method.assignment_gpus=0"
            found = f"{node}: {installed or 'none'}, and method.assignment_gpus asks for one that computes on GPUs"
            yield Finding("faiss", "problem", found, fix)


def look_at_placement(nodes: Sequence[Mapping[str, Any]], runtime: RuntimeConfig) -> Iterator[Finding]:
    """Find out whether one node has all GPUs of a training; if not, how fast gradients would travel.

    Args:
        nodes: nodes that are up.
        runtime: runtime settings of the run.
    """
    wanted = runtime.num_workers * runtime.gpus_per_worker
    with_gpus = [node for node in nodes if node["Resources"].get("GPU", 0) > 0]
    most = max((node["Resources"]["GPU"] for node in with_gpus), default=0.0)
    if runtime.kind == "in-process" or not with_gpus or wanted <= most:
        return
    found = f"{wanted:g} GPUs are asked for, and no node that is up has more than {most:g}: gradients use the network"
    if len(with_gpus) > 1:
        rate = _send(with_gpus[0]["NodeID"], with_gpus[1]["NodeID"])
        found += f"; between two nodes Ray moved {8 * rate / 1e9:.2g} Gb/s, which NCCL may exceed"
    fix = (
        "one node with all GPUs; or nodes in a cluster placement group with 25 Gb/s or more, and "
        "--runtime.compress-gradients: at 10 Gb/s a step's gradients take an estimated 50 ms, longer than the step"
    )
    yield Finding("GPU placement", "warning", found, fix)


def _send(sender: str, receiver: str) -> float:
    """Return bytes per second from one node's object store to another's; 0 if nothing arrives."""

    def on(node: str) -> dict[str, Any]:
        there = NodeAffinitySchedulingStrategy(node, soft=False)
        return {"num_cpus": 0, "max_retries": 0, "scheduling_strategy": there}

    sent = ray.remote(_payload).options(**on(sender)).remote()
    ray.wait([sent], timeout=_SEND_SECONDS, fetch_local=False)
    taken = ray.remote(_seconds_to_get).options(**on(receiver)).remote([sent])
    try:
        seconds: float = ray.get(taken, timeout=_SEND_SECONDS)
    except ray.exceptions.RayError:
        return 0.0
    return _SENT_BYTES / seconds


def _payload() -> bytes:
    return bytes(_SENT_BYTES)


def _seconds_to_get(references: list[ray.ObjectRef]) -> float:
    started = time.perf_counter()
    ray.get(references)
    return time.perf_counter() - started
