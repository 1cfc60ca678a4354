"""Starts or joins a Ray cluster, and counts what fits on its nodes."""

from __future__ import annotations

import json
import logging
import math
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import ray
from ray._common.utils import get_default_ray_temp_dir
from ray._private import ray_constants
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from unfused_ray import kept_session, storage

logger = logging.getLogger(__name__)

AUTOSCALER = "UNFUSED_RAY_AUTOSCALER"
"""Environment variable of a cluster's nodes: the kinds of nodes that its autoscaler starts, as a list in JSON.

For each kind it holds the largest number of nodes and the resources of one, as in ``[{"nodes": 16, "CPU": 16},
{"nodes": 2, "CPU": 48, "GPU": 4}]``. A sum of all resources (``{"CPU": 352, "GPU": 8}``) is read too, and taken for a
single node. Ray has a field for this, but neither of its autoscalers fills it in.
"""

_PRIVATE = {
    # Ray replaces 127.0.0.1 by an outer address and listens on all interfaces, unless it takes the system for one on
    # which it does not support clusters.
    "ENABLE_RAY_CLUSTER": False,
    # Under `uv run`, Ray would start each worker by uv again, in a copy of the working directory. The workers are in
    # this environment already.
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": False,
}
"""Constants that Ray has while a private cluster starts."""
_MAX_TEMPORARY_BYTES = 40
"""Longest path of Ray's temporary folder, in bytes: sessions and names take 64 of a socket's 107, and process ids may
grow."""
_TEMPORARY = "/tmp"
_EXAMPLE = '[{"nodes": 16, "CPU": 16}, {"nodes": 2, "CPU": 48, "GPU": 4}]'


@contextmanager
def session(num_cpus: int | None = None) -> Iterator[None]:
    """Join the cluster named by ``RAY_ADDRESS`` (set inside ``ray job submit``), or start a private one here.

    If a session is already open in this process, it is used and left open.

    Args:
        num_cpus: number of CPUs of a private cluster; by default all of the machine's.

    Raises:
        RuntimeError: a private cluster would listen on the network.
    """
    if ray.is_initialized():
        yield
        return
    kept = kept_session.end_of_block()
    with ExitStack() if kept is None else nullcontext(kept) as until:
        _start(num_cpus)
        until.callback(ray.shutdown)
        yield


@contextmanager
def variables(values: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables for Ray within this block, except those that the user has set."""
    missing = {name: value for name, value in values.items() if name not in os.environ}
    os.environ.update(missing)
    try:
        yield
    finally:
        for name in missing:
            os.environ.pop(name, None)


def _start(num_cpus: int | None) -> None:
    # Workers print to Ray's log files; messages for people come through the coordinator.
    options: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    if os.environ.get("RAY_ADDRESS"):
        ray.init(**options)
        return
    # Ray gives its workers niceness 15, with which they starve beside other processes of the machine.
    options["_system_config"] = {"worker_niceness": 0}
    with _constants(_PRIVATE):
        # Without "local", ray.init would join any cluster that `ray start` left on this machine.
        ray.init("local", num_cpus=num_cpus, include_dashboard=False, _temp_dir=_short_temporary_folder(), **options)
    if not is_one_machine():
        ray.shutdown()
        raise RuntimeError(
            "Ray listens on more than loopback, although it was set to loopback alone: use a version of Ray that this "
            "project names"
        )


@contextmanager
def _constants(values: Mapping[str, Any]) -> Iterator[None]:
    """Change constants that Ray read from the environment at its import, and that it uses when it starts."""
    usual = {name: getattr(ray_constants, name) for name in values}
    vars(ray_constants).update(values)
    try:
        yield
    finally:
        vars(ray_constants).update(usual)


def _short_temporary_folder() -> str | None:
    """Return a folder for Ray's session if the environment's path is too long for its sockets; None keeps that one.

    Raises:
        ValueError: no other folder can be used; names the variable.
    """
    usual = get_default_ray_temp_dir()
    if len(os.fsencode(usual)) <= _MAX_TEMPORARY_BYTES:
        return None
    name = next(name for name in ("RAY_TMPDIR", "TMPDIR") if name in os.environ)
    too_long = f"{name}={os.environ[name]} is too long a path for Ray's sockets, whose limit is the system's"
    if not os.access(_TEMPORARY, os.W_OK | os.X_OK):
        raise ValueError(
            f"{too_long}: set RAY_TMPDIR to a folder of at most {_MAX_TEMPORARY_BYTES - len('/ray')} bytes"
        )
    logger.warning("%s: its session, logs and spilled objects are in %s/ray", too_long, _TEMPORARY)
    return f"{_TEMPORARY}/ray"


def is_one_machine() -> bool:
    """Return True if the cluster is a single node that others cannot reach."""
    nodes = [node for node in ray.nodes() if node["Alive"]]
    return len(nodes) == 1 and nodes[0]["NodeManagerAddress"] == "127.0.0.1"


def several_nodes() -> str:
    """Return the nodes, or the autoscaler that may add some, as text; '' if there will never be more than one node."""
    num_nodes = sum(node["Alive"] for node in ray.nodes())
    if num_nodes > 1:
        return f"{num_nodes} nodes"
    return "an autoscaler" if _autoscaler() else ""


def capacity() -> dict[str, float]:
    """Return the resources of the cluster, or those of its autoscaler, which may start nodes when there is work."""
    have, kinds = ray.cluster_resources(), _autoscaler()
    names = {*have, *(name for kind in kinds for name in kind.resources)}
    return {
        name: max(have.get(name, 0.0), sum(kind.nodes * kind.resources.get(name, 0.0) for kind in kinds))
        for name in names
    }


@dataclass(frozen=True)
class NodeKind:
    """A number of nodes with equal resources."""

    nodes: int
    resources: Mapping[str, float]
    """Resources of one node."""

    def room(self, cpus: float, gpus: float) -> int:
        """Return how many processes fit on these nodes together; each takes more than 0 CPUs, and perhaps GPUs."""
        fitting = _times(cpus, self.resources.get("CPU", 0.0))
        if gpus:
            fitting = min(fitting, processes(self.resources.get("GPU", 0.0), gpus))
        return self.nodes * fitting

    def __str__(self) -> str:
        gpus = self.resources.get("GPU", 0.0)
        return f"{self.nodes} × {self.resources.get('CPU', 0.0):g} CPUs" + f" and {gpus:g} GPUs" * bool(gpus)


def room(cpus: float, gpus: float) -> int:
    """Return how many processes with this many CPUs and GPUs fit on the cluster's nodes, or on its autoscaler's.

    Each process runs on one node: resources left over on several nodes do not add up for it.
    """
    return max(sum(kind.room(cpus, gpus) for kind in kinds) for kinds in (_nodes(), _autoscaler()))


def nodes_in_words() -> str:
    """Describe the CPUs and GPUs of the autoscaler's nodes if there is one, otherwise of the cluster's nodes."""
    return ", ".join(map(str, _autoscaler() or _nodes()))


def processes(gpus: float, each: float) -> int:
    """Return how many processes fit on ``gpus`` GPUs; a process with less than a whole GPU takes its share of a single
    one."""
    return math.floor(gpus) * _times(each, 1.0) if each <= 1 else _times(each, gpus)


def refuse_local_paths(fields: Mapping[str, tuple[str, ...]]) -> None:
    """Refuse paths of one machine on a cluster of several nodes, because each node would see another folder.

    Raises:
        ValueError: a field has a local path; names the field.
    """
    several = several_nodes()
    for field, uris in fields.items():
        for uri in uris:
            if several and storage.is_local(uri):
                raise ValueError(
                    f"{field}={uri} is a path of one machine, but the cluster has {several}: give a URI that "
                    "all of them reach, such as s3://bucket/folder"
                )


def on_this_node() -> dict[str, Any]:
    """Return the options of an actor that must live on the driver's node, and reserves none of its CPUs."""
    node = ray.get_runtime_context().get_node_id()
    return {"num_cpus": 0, "scheduling_strategy": NodeAffinitySchedulingStrategy(node, soft=False)}


def _times(each: float, there: float) -> int:
    """Return how often resources fit into those that are there, in the ten-thousandths that Ray counts."""
    return round(there * 1e4) // max(1, round(each * 1e4))


def _nodes() -> list[NodeKind]:
    """Return the nodes that are up."""
    alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    counted = Counter((each.get("CPU", 0.0), each.get("GPU", 0.0)) for each in alive)
    return [NodeKind(number, {"CPU": cpus, "GPU": gpus}) for (cpus, gpus), number in counted.items()]


def _autoscaler() -> list[NodeKind]:
    """Return the nodes that the autoscaler may start; none without an autoscaler.

    Raises:
        ValueError: the environment variable is no JSON of this form.
    """
    said = os.environ.get(AUTOSCALER, "")
    if not said or is_one_machine():  # or this is a private cluster on one of those nodes
        return []
    try:
        read = json.loads(said)
        kinds = [{"nodes": 1, **read}] if isinstance(read, dict) else [dict(kind) for kind in read]
        return [
            NodeKind(int(kind.pop("nodes")), {str(name): float(amount) for name, amount in kind.items()})
            for kind in kinds
        ]
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{AUTOSCALER}={said} is no JSON such as {_EXAMPLE}") from error
