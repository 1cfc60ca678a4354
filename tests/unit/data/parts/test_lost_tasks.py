"""A task that Ray gives up raises an error for a person, with a remedy."""

from __future__ import annotations

import pytest
import ray

from unfused_ray import cluster
from unfused_ray.data.parts import ray_tasks
from unfused_ray.data.parts.executor import TaskEndedError


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ray.exceptions.WorkerCrashedError(), r"ended from outside.*memory \(WorkerCrashedError: "),
        (ray.exceptions.OutOfMemoryError("a\nreport"), r"ended from outside.* \(OutOfMemoryError: a report\)"),
        (ray.exceptions.NodeDiedError("node 7 died"), r"ended from outside.* \(NodeDiedError: node 7 died\)"),
        (ray.exceptions.RuntimeEnvSetupError("no pip"), r"Ray could not run a task \(RuntimeEnvSetupError: .*no pip"),
    ],
)
def test_a_task_that_ray_gives_up_is_told_with_what_may_help(
    error: ray.exceptions.RayError, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def get(reference: str) -> str:
        if reference == "second":
            raise error
        return reference

    monkeypatch.setattr(ray, "get", get)
    monkeypatch.setattr(ray, "wait", lambda references, num_returns: (references[:1], references[1:]))
    monkeypatch.setattr(cluster, "capacity", lambda: {"CPU": 1.0})
    results = ray_tasks._results(lambda value: value, [("first",), ("second",)], {})
    assert next(results) == (0, "first")
    with pytest.raises(TaskEndedError, match=said):
        next(results)
