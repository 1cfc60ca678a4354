"""What can be scheduled, and what is refused with the field to change."""

from __future__ import annotations

import pytest

from unfused_ray import cluster
from unfused_ray.config import RuntimeConfig


@pytest.mark.parametrize(
    ("cpus", "workers", "each"),
    [(2, 1, 1.0), (2, 2, 0.5), (3, 2, 1.0), (8, 4, 1.0), (4, 6, 0.5)],
)
def test_workers_leave_a_cpu_to_ray_data(monkeypatch: pytest.MonkeyPatch, cpus: int, workers: int, each: float) -> None:
    monkeypatch.setattr(cluster.ray, "cluster_resources", lambda: {"CPU": float(cpus)})
    assert cluster.worker_cpus(RuntimeConfig(num_workers=workers)) == each
    assert workers * each + 1 <= cpus


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"num_workers": 3}, r"runtime\.num_workers=3 .* need 2\.5 CPUs, the cluster has 2"),
        ({"cpus_per_worker": 1.5}, r"× 1\.5 CPUs .* lower runtime\.num_workers or runtime\.cpus_per_worker"),
        ({"gpus_per_worker": 1}, r"runtime\.gpus_per_worker=1 need 1 GPUs, the cluster has 0"),
    ],
)
def test_what_cannot_run_is_refused(monkeypatch: pytest.MonkeyPatch, fields: dict[str, float], words: str) -> None:
    monkeypatch.setattr(cluster.ray, "cluster_resources", lambda: {"CPU": 2.0})
    with pytest.raises(ValueError, match=words):
        cluster.worker_cpus(RuntimeConfig(**fields))


def test_the_session_is_off_the_network(ray_session: None) -> None:
    assert cluster.is_one_machine()
