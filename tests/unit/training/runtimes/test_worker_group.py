"""After every failed worker group, Ray Train's controller asks the coordinator whether another may start."""

from __future__ import annotations

import pickle
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import pytest
from ray.core.generated.common_pb2 import ActorDiedErrorContext, NodeDeathInfo
from ray.exceptions import ActorDiedError, ActorUnavailableError, NodeDiedError, RayError, RayTaskError
from ray.train import ControllerError, FailureConfig, PreemptionError, WorkerGroupError
from ray.train.v2._internal.exceptions import (
    WorkerGroupStartupFailedError,
    WorkerGroupStartupTimeoutError,
    WorkerHealthCheckFailedError,
)
from ray.train.v2._internal.execution.callback_manager import CallbackManager
from ray.train.v2._internal.execution.controller import TrainController
from ray.train.v2._internal.execution.controller.state import (
    PreemptingState,
    ReschedulingState,
    RestartingState,
    RunningState,
    ShuttingDownState,
)
from ray.train.v2._internal.execution.failure_handling import create_failure_policy

from unfused_ray.training.runtimes import worker_group
from unfused_ray.training.runtimes.worker_group import (
    GivenUpError,
    GroupTorchConfig,
    LoopbackTorchConfig,
    NoteFailures,
)

NODE_DIED = (
    "The actor died because its node has died. Node Id: 5f\n\tthe actor's node was terminated unexpectedly: gone"
)
PROCESS_DIED = "The actor is dead because its worker process has died. Worker exit type: SYSTEM_ERROR"
AWAY = "The actor None is unavailable: it starts anew. The task may or may not have been executed on the actor."


def died(message: str, reason: int = NodeDeathInfo.UNSPECIFIED) -> ActorDiedError:
    """Return Ray's error for a dead actor; ``reason`` is that of its node's death, if the node is dead too."""
    context = ActorDiedErrorContext(error_message=message, actor_id=b"0" * 16)
    if reason:
        context.node_death_info.reason = reason
    return ActorDiedError(context)


def of_workers(*errors: Exception) -> WorkerGroupError:
    return WorkerGroupError("they failed", dict(enumerate(errors)))


def unhealthy(error: Exception) -> WorkerHealthCheckFailedError:
    return WorkerHealthCheckFailedError("A worker health check failed.", error)


def failed_to_start(cause: Exception) -> ControllerError:
    try:
        raise WorkerGroupStartupFailedError("At least one of the worker actors failed to initialize.") from cause
    except WorkerGroupStartupFailedError as error:
        return ControllerError(error)


def in_task(error: Exception) -> Exception:
    """Return the error as a worker sees it if the assignment actor raises it for a lost shard."""
    raised: Exception = RayTaskError("labels", f"Traceback …\n{error}", RuntimeError(str(error))).as_instanceof_cause()
    return raised


class Told:
    """A coordinator that records the failures it is given."""

    def __init__(self, answer: str = "") -> None:
        self.answer, self.failures = answer, list[tuple[list[str], bool]]()

    def note_failure(self, causes: list[str], lost_node: bool) -> str:
        self.failures.append((causes, lost_node))
        return self.answer


def told(error: Exception, after: type[RestartingState | ReschedulingState] = RestartingState) -> Any:
    """Return the causes that the coordinator gets for a failed group, and whether it lost a node."""
    coordinator: Any = Told()
    NoteFailures(coordinator).after_controller_state_update(RunningState(), after(error))
    (heard,) = coordinator.failures
    return heard


@pytest.mark.parametrize(
    "error",
    [
        of_workers(unhealthy(died(NODE_DIED))),
        of_workers(
            RuntimeError("Connection reset by peer"),
            unhealthy(died("gone", NodeDeathInfo.AUTOSCALER_DRAIN_PREEMPTED)),
        ),
        of_workers(unhealthy(ActorUnavailableError("connection lost", b"0" * 16))),
        of_workers(RayError(NODE_DIED)),
        of_workers(in_task(died(NODE_DIED))),
        of_workers(NodeDiedError("the node is dead")),
        PreemptionError(SimpleNamespace(preempted_ranks=[1])),
        failed_to_start(died(NODE_DIED)),
    ],
    ids=[
        "died",
        "taken away",
        "out of reach",
        "of a shard",
        "of a shard's actor",
        "of a task",
        "drained",
        "at the start",
    ],
)
def test_lost_nodes_are_told_from_failures(error: Exception) -> None:
    assert told(error)[1]


@pytest.mark.parametrize(
    ("error", "causes"),
    [
        (of_workers(RuntimeError("out of memory")), ["worker 0 failed (out of memory)"]),
        (
            of_workers(unhealthy(died(PROCESS_DIED)), KeyError()),
            [f"worker 0 failed ({PROCESS_DIED})", "worker 1 failed (KeyError)"],
        ),
        (failed_to_start(died(PROCESS_DIED)), [f"the worker group failed ({PROCESS_DIED})"]),
        (of_workers(in_task(died(PROCESS_DIED))), [f"worker 0 failed ({PROCESS_DIED})"]),
        (of_workers(ActorUnavailableError("it starts anew", None)), [f"worker 0 failed ({AWAY})"]),
    ],
    ids=["raised", "killed", "at the start", "a shard", "the assignment actor"],
)
def test_failures_of_workers_are_told_with_their_causes(error: Exception, causes: list[str]) -> None:
    assert told(error) == (causes, False)


class Workers:
    """A worker group on these nodes."""

    def __init__(self, *nodes: str) -> None:
        self._nodes = nodes

    def get_workers(self) -> list[Any]:
        return [SimpleNamespace(metadata=SimpleNamespace(node_id=node)) for node in self._nodes]


@pytest.mark.parametrize(
    ("nodes", "dead", "errors", "is_lost"),
    [
        (("a", "b"), "b", 1, True),
        (("a", "b"), "", 1, False),
        (("a", "b"), "another", 1, False),
        (("a", "b"), "b", 2, False),
        (("a", "a"), "a", 1, False),
    ],
    ids=["lost", "killed", "one without a worker", "all have told why", "of one node none would be left"],
)
def test_a_worker_that_fails_by_the_loss_of_another_waits_for_what_is_known_of_its_node(
    nodes: tuple[str, ...], dead: str, errors: int, is_lost: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = list[float]()

    def alive() -> list[dict[str, Any]]:  # Ray's head notices after some looks
        return [{"NodeID": node, "Alive": node != dead or len(looks) < 3} for node in ("a", "b", "another")]

    monkeypatch.setattr(worker_group.ray, "nodes", alive)
    monkeypatch.setattr(worker_group.time, "sleep", looks.append)
    monkeypatch.setattr(worker_group.time, "monotonic", lambda: float(len(looks)))
    coordinator: Any = Told()
    notes = NoteFailures(coordinator)
    notes.after_worker_group_start(Workers(*nodes))
    failed = RestartingState(of_workers(*[RuntimeError("Connection closed by peer")] * errors))
    notes.after_controller_state_update(RunningState(), failed)
    assert [lost for _, lost in coordinator.failures] == [is_lost]


def test_a_failure_while_a_node_is_taken_away_is_a_lost_node() -> None:
    coordinator: Any = Told()
    failed = RestartingState(of_workers(RuntimeError("Connection closed by peer")))
    NoteFailures(coordinator).after_controller_state_update(PreemptingState(SimpleNamespace(), 0.0), failed)
    assert [lost for _, lost in coordinator.failures] == [True]


def test_a_group_that_waits_for_nodes_has_not_failed() -> None:
    coordinator: Any = Told("no more")
    notes = NoteFailures(coordinator)
    waiting = ReschedulingState(ControllerError(WorkerGroupStartupTimeoutError(2)))
    notes.after_controller_state_update(RunningState(), waiting)
    notes.after_controller_state_update(waiting, RunningState())
    assert coordinator.failures == []


def test_a_run_that_is_given_up_ends_with_the_reason() -> None:
    coordinator: Any = Told("the workers have failed 3 times before their first step: worker 0 failed (gone)")
    failed = RestartingState(of_workers(OSError("gone")))
    with pytest.raises(GivenUpError, match="3 times before their first step") as raised:
        NoteFailures(coordinator).after_controller_state_update(RunningState(), failed)
    ended = pickle.loads(pickle.dumps(ControllerError(raised.value)))  # as it is sent from controller to driver
    assert str(ended.controller_failure) == coordinator.answer
    NoteFailures(coordinator).after_controller_state_update(failed, failed)  # no other group began
    assert len(coordinator.failures) == 1


@pytest.mark.parametrize("answer", ["", "the workers have failed 3 times"])
def test_the_controller_of_ray_train_ends_the_run_that_is_given_up(answer: str) -> None:
    controller = TrainController.__new__(TrainController)  # without __init__, which needs a cluster
    controller._state, controller._run_attempt_id = RunningState(), "attempt"
    controller._failure_policy = create_failure_policy(FailureConfig(max_failures=-1))
    coordinator: Any = Told(answer)
    controller._controller_callback_manager = CallbackManager([NoteFailures(coordinator)])
    failed = RestartingState(of_workers(OSError("gone")))
    controller._set_state(failed)
    if not answer:
        assert controller.get_state() is failed
        return
    ending = controller.get_state()
    assert isinstance(ending, ShuttingDownState)
    assert str(ending.next_state.training_failed_error.controller_failure) == answer


@pytest.mark.parametrize("config", [GroupTorchConfig(), LoopbackTorchConfig(folder="/tmp/meet")])
def test_a_group_that_cannot_be_opened_is_started_once_more(config: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def lost(*arguments: Any) -> None:
        raise RayTaskError("open", "Traceback …\nOSError: address in use", OSError())

    monkeypatch.setattr(worker_group._TorchBackend, "on_start", lost)
    monkeypatch.setattr(worker_group.ray, "get", lost)
    group = MagicMock()
    group.__len__.return_value = 2
    group.get_resources_per_worker.return_value = {"GPU": 1.0}
    with pytest.raises(WorkerGroupStartupFailedError) as raised:
        config.backend_cls().on_start(group, config)
    assert "address in use" in told(ControllerError(raised.value))[0][0]


def test_workers_of_one_machine_wait_as_long_as_they_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = list[tuple[Any, ...]]()

    class Group:
        def __len__(self) -> int:
            return 2

        def get_resources_per_worker(self) -> dict[str, float]:
            return {"GPU": 1.0}

        def execute_single_async(self, rank: int, function: Any, *arguments: Any) -> None:
            asked.append((function, *arguments))

    monkeypatch.setattr(worker_group.ray, "get", lambda references: references)
    config = LoopbackTorchConfig(timeout_s=1800, folder="/tmp/meet")
    config.backend_cls().on_start(Group(), config)
    assert [each[2:] for each in asked] == [("nccl", rank, 2, 1800) for rank in range(2)]
