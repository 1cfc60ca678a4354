"""Worker groups that a cluster could never schedule are refused with the field to change."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from unfused_ray import cluster
from unfused_ray.config import RuntimeConfig
from unfused_ray.training.runtimes.worker_resources import refuse_few_gpus, refuse_shared_gpus, worker_cpus


@pytest.mark.parametrize(
    ("cpus", "workers", "each"),
    [(2, 1, 1.0), (2, 2, 0.5), (3, 2, 1.0), (8, 4, 1.0), (4, 6, 0.5)],
)
def test_workers_leave_a_cpu_to_ray_data(
    cluster_has: Callable[..., None], cpus: int, workers: int, each: float
) -> None:
    cluster_has({"CPU": float(cpus)})
    assert worker_cpus(RuntimeConfig(num_workers=workers)) == each
    assert workers * each + 1 <= cpus


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"num_workers": 3}, r"runtime\.num_workers=3 .* need 2\.5 CPUs, the cluster has 2"),
        ({"cpus_per_worker": 1.5}, r"× 1\.5 CPUs .* lower runtime\.num_workers or runtime\.cpus_per_worker"),
        ({"gpus_per_worker": 1}, r"runtime\.gpus_per_worker=1 need 1 GPUs, the cluster has 0"),
    ],
)
def test_what_cannot_run_is_refused(cluster_has: Callable[..., None], fields: dict[str, float], words: str) -> None:
    cluster_has({"CPU": 2.0})
    with pytest.raises(ValueError, match=words):
        worker_cpus(RuntimeConfig(**fields))


def test_workers_that_would_share_a_gpu_are_refused(cluster_has: Callable[..., None]) -> None:
    cluster_has({"CPU": 8.0, "GPU": 2.0})
    with pytest.raises(ValueError, match=r"gpus_per_worker=0\.5 and runtime\.num_workers=2 put .* more than 0\.5, or"):
        worker_cpus(RuntimeConfig(num_workers=2, gpus_per_worker=0.5))
    for workers, gpus in ((1, 0.5), (2, 0.0), (2, 0.75)):
        worker_cpus(RuntimeConfig(num_workers=workers, gpus_per_worker=gpus))
    refuse_shared_gpus(RuntimeConfig(kind="in-process", num_workers=2, gpus_per_worker=0.5))


def test_nodes_that_the_autoscaler_would_start_count(cluster_has: Callable[..., None]) -> None:
    runtime = RuntimeConfig(num_workers=4, gpus_per_worker=1)
    cluster_has({"memory": 1e9}, most={"CPU": 32, "GPU": 4})
    assert cluster.capacity() == {"memory": 1e9, "CPU": 32, "GPU": 4}
    assert worker_cpus(runtime) == 1.0
    cluster_has({"memory": 1e9}, most={"CPU": 32, "GPU": 3})
    with pytest.raises(ValueError, match="need 4 GPUs, the cluster has 3"):
        worker_cpus(runtime)


KINDS = [{"nodes": 16, "CPU": 16}, {"nodes": 2, "CPU": 48, "GPU": 4}]


@pytest.mark.parametrize(
    ("fields", "fitting"),
    [
        ({"num_workers": 1, "cpus_per_worker": 64}, 0),
        ({"num_workers": 1, "cpus_per_worker": 24, "gpus_per_worker": 8}, 0),
        ({"num_workers": 4, "cpus_per_worker": 30, "gpus_per_worker": 1}, 2),
        ({"num_workers": 20, "cpus_per_worker": 16}, 22),
        ({"num_workers": 8, "cpus_per_worker": 12, "gpus_per_worker": 1}, 8),
        ({"num_workers": 12, "cpus_per_worker": 1, "gpus_per_worker": 0.6}, 8),
    ],
)
def test_workers_that_fit_on_the_sum_of_the_nodes_but_on_no_single_one_are_refused(
    cluster_has: Callable[..., None], fields: dict[str, float], fitting: int
) -> None:
    cluster_has({"CPU": 0.0}, most=KINDS)
    assert cluster.capacity() == {"CPU": 352, "GPU": 8}
    runtime = RuntimeConfig(**fields)
    assert cluster.room(runtime.cpus_per_worker, runtime.gpus_per_worker) == fitting
    if fitting >= runtime.num_workers:
        assert worker_cpus(runtime) == runtime.cpus_per_worker
        return
    words = rf"\(16 × 16 CPUs, 2 × 48 CPUs and 4 GPUs\), which have room for {fitting}: lower runtime\.num_workers"
    with pytest.raises(ValueError, match=words):
        worker_cpus(runtime)


def test_a_clustering_on_gpus_that_would_wait_for_the_workers_is_refused(cluster_has: Callable[..., None]) -> None:
    cluster_has({"CPU": 8.0, "GPU": 2.0})
    refuse_few_gpus(RuntimeConfig(num_workers=2, gpus_per_worker=1), 2, 0.0)
    refuse_few_gpus(RuntimeConfig(num_workers=2, gpus_per_worker=0.75), 2, 0.25)
    cluster_has({"CPU": 8.0, "GPU": 3.0})
    refuse_few_gpus(RuntimeConfig(num_workers=3, gpus_per_worker=0.8), 3, 0.2)  # 3.0000000000000004
    cluster_has({"CPU": 8.0, "GPU": 2.0})
    with pytest.raises(ValueError, match=r"method\.assignment_gpus=0\.25 .* need 2\.5 GPUs, the cluster has 2"):
        refuse_few_gpus(RuntimeConfig(num_workers=2, gpus_per_worker=1), 2, 0.25)
