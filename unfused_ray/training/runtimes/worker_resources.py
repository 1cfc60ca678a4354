"""Refuses worker groups that the cluster could never schedule."""

from __future__ import annotations

from unfused_ray import cluster
from unfused_ray.config import RuntimeConfig


def worker_cpus(runtime: RuntimeConfig) -> float:
    """Return the number of CPUs that each training worker reserves, such that one is left for Ray Data.

    Raises:
        ValueError: the cluster has too few CPUs or GPUs, or workers would share one; names the field to change.
    """
    refuse_shared_gpus(runtime)
    have = cluster.capacity()
    cpus, gpus = have.get("CPU", 0.0), have.get("GPU", 0.0)
    workers = runtime.num_workers
    each = runtime.cpus_per_worker or (1.0 if workers + 1 <= cpus else 0.5)
    if _exceeds(workers * each + 1, cpus):
        raise ValueError(
            f"runtime.num_workers={workers} × {each:g} CPUs and one CPU for Ray Data need {workers * each + 1:g} CPUs, "
            f"the cluster has {cpus:g}: lower runtime.num_workers or runtime.cpus_per_worker, or use "
            "--runtime.kind in-process"
        )
    if _exceeds(workers * runtime.gpus_per_worker, gpus):
        raise ValueError(
            f"runtime.num_workers={workers} × runtime.gpus_per_worker={runtime.gpus_per_worker:g} need "
            f"{workers * runtime.gpus_per_worker:g} GPUs, the cluster has {gpus:g}: lower one of them, "
            "or add nodes with GPUs"
        )
    if (fitting := cluster.room(each, runtime.gpus_per_worker)) < workers:
        raise ValueError(
            f"runtime.num_workers={workers} × {each:g} CPUs and {runtime.gpus_per_worker:g} GPUs, each worker on one "
            f"node, do not fit on the cluster's nodes ({cluster.nodes_in_words()}), which have room for {fitting}: "
            "lower runtime.num_workers, runtime.cpus_per_worker or runtime.gpus_per_worker, or take larger nodes"
        )
    return each


def refuse_shared_gpus(runtime: RuntimeConfig) -> None:
    """Refuse a worker group of which Ray would put two workers on one GPU, because their first sum would fail.

    Raises:
        ValueError: workers would share a GPU; names the fields to change.
    """
    if runtime.shares_gpus:
        raise ValueError(
            f"runtime.gpus_per_worker={runtime.gpus_per_worker:g} and runtime.num_workers={runtime.num_workers} put "
            "several workers on one GPU, which NCCL refuses: give each worker more than 0.5, or take one worker"
        )


def refuse_few_gpus(runtime: RuntimeConfig, shards: int, gpus_per_shard: float) -> None:
    """Refuse a clustering on GPUs that leaves the workers too few GPUs, because both would wait for ever.

    Raises:
        ValueError: there are too few GPUs; names the field.
    """
    wanted = runtime.num_workers * runtime.gpus_per_worker + shards * gpus_per_shard
    gpus = cluster.capacity().get("GPU", 0.0)
    if gpus_per_shard and _exceeds(wanted, gpus):
        raise ValueError(
            f"method.assignment_gpus={gpus_per_shard:g} × method.assignment_shards={shards} and "
            f"runtime.gpus_per_worker={runtime.gpus_per_worker:g} × runtime.num_workers={runtime.num_workers} need "
            f"{wanted:g} GPUs, the cluster has {gpus:g}: lower one of them (shares such as 0.1 and 0.9 fit on one GPU)"
        )


def _exceeds(wanted: float, there: float) -> bool:
    """Return True if resources are more than those that are there, in the ten-thousandths that Ray counts."""
    return round(wanted, 4) > round(there, 4)
