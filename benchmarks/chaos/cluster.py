"""A training on a cluster of several nodes (raylets of this machine) that loses one node and gains others."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
import psutil
import ray
from moto.server import ThreadedMotoServer
from ray.cluster_utils import Cluster

from benchmarks.chaos.faults import Job, Outcome, inject
from benchmarks.chaos.training import newest
from unfused_ray import storage
from unfused_ray.runs.run import Run

_NODE = {"num_cpus": 1, "object_store_memory": 200_000_000}
_EPOCHS = 8


def lost_node(folder: Path, drums: Path) -> list[Outcome]:
    """Train with two workers and two assignment shards on four nodes; kill a node, add two, resume with four
    workers."""
    with _object_store() as options, _cluster() as cluster:
        data, output = (f"s3://bucket/{name}{options}" for name in ("drums", "run"))
        for path in drums.iterdir():
            storage.write_bytes(storage.join(data, path.name), path.read_bytes())
        _refused(folder, drums)

        def command(workers: int) -> list[str]:
            given = {
                "--data": data,
                "--output": output,
                "--epochs": str(_EPOCHS),
                "--batch.block": "4",
                "--method.assignment-shards": "2",
                "--checkpoint.every-minutes": "0.05",
                "--checkpoint.keep-assignments": str(_EPOCHS),
                "--runtime.kind": "workers",
                "--runtime.num-workers": str(workers),
                "--runtime.cpus-per-worker": "1",
                "--runtime.threads": "1",
            }
            return ["jobs/pretrain.py", "tiny", *(part for argument in given.items() for part in argument)]

        outcomes: list[tuple[str, float, int | None]] = []
        job = Job(folder, "cluster", command(2))
        job.reach(lambda: newest(output) > "e0001")
        before, at = newest(output), time.time()
        _kill(_with_worker(cluster))
        job.reach(lambda: newest(output) > before)
        outcomes.append(("a node is lost", time.time() - at, None))

        for _ in range(2):
            cluster.add_node(**_NODE)
        stopped = inject(job, "SIGTERM")
        assert stopped is not None
        resumed = newest(output)
        job = Job(folder, "cluster", command(4))
        job.reach(lambda: newest(output) > resumed)
        outcomes.append(("SIGTERM, then four workers", time.time() - stopped.at, stopped.code))
        job.finish()
        status = Run(output).status()
        finished = status is not None and (status.state, status.epoch) == ("finished", _EPOCHS)
        equal = finished and _first_labels(output) == _first_labels(_alone(folder, data))
    return [Outcome("pretrain, 4 nodes", fault, seconds, equal, code=code) for fault, seconds, code in outcomes]


def _refused(folder: Path, drums: Path) -> None:
    """Check that a local folder is refused before anything starts.

    Raises:
        RuntimeError: it is not refused.
    """
    given = ["--data", str(drums), "--output", str(folder / "refused"), "--runtime.kind", "workers"]
    job = Job(folder, "refused", ["jobs/pretrain.py", "tiny", *given])
    if job.process.wait() != 2 or "is a path of one machine" not in job.log.read_text():
        raise RuntimeError(f"a local output on several nodes is to be refused: see {job.log}")


def _with_worker(cluster: Cluster) -> Any:
    """Return a node, not the head, that has a train worker.

    Raises:
        RuntimeError: all workers or all assignment shards are on one node.
    """
    for name in ("ray::RayTrainWorker", "ray::_ShardActor"):
        nodes = [node for node in cluster.list_all_nodes() if _has(node, name)]
        if len(nodes) < 2:
            raise RuntimeError(f"all of {name} are on one node")
    return next(node for node in cluster.worker_nodes if _has(node, "ray::RayTrainWorker"))


def _raylet(node: Any) -> psutil.Process:
    return psutil.Process(node.all_processes["raylet"][0].process.pid)


def _has(node: Any, name: str) -> bool:
    """Return True if a process of this name runs on the node."""
    return any(name in " ".join(child.cmdline()[:1]) for child in _raylet(node).children())


def _kill(node: Any) -> None:
    """Send SIGKILL to a node's raylet; all processes of the node end with it."""
    _raylet(node).kill()


def _alone(folder: Path, data: str) -> str:
    """Train the first epoch of the same run in one process; return its folder."""
    output = str(folder / "cluster-undisturbed")
    given = ["--data", data, "--output", output, "--batch.block", "4", "--epochs", str(_EPOCHS), "--stop-after", "1"]
    Job(folder, "cluster-undisturbed", ["jobs/pretrain.py", "tiny", *given, "--runtime.threads", "1"]).finish()
    return output


def _first_labels(run: str) -> dict[str, bytes]:
    """Read the labels that the first epoch trained on; no sum before them depends on the number of workers."""
    folder = storage.join(run, "assignments", "epoch-0000")
    return {
        storage.name(uri): storage.read_bytes(uri)
        for uri in storage.list_files(folder)
        if storage.name(uri).endswith(".parquet")
    }


@contextmanager
def _object_store() -> Iterator[str]:
    """Start an S3 server on loopback and put its keys into the environment; yield the options for its URIs."""
    os.environ.update(AWS_ACCESS_KEY_ID="test", AWS_SECRET_ACCESS_KEY="test", AWS_EC2_METADATA_DISABLED="true")
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    boto3.client("s3", endpoint_url=f"http://{host}:{port}", region_name="us-east-1").create_bucket(Bucket="bucket")
    yield f"?endpoint_override={host}:{port}&scheme=http&region=us-east-1"
    server.stop()


@contextmanager
def _cluster() -> Iterator[Cluster]:
    """Start a head and three nodes of one CPU each; commands started inside the block join this cluster."""
    cluster = Cluster(initialize_head=True, head_node_args={**_NODE, "include_dashboard": False})
    for _ in range(3):
        cluster.add_node(**_NODE)
    os.environ["RAY_ADDRESS"] = cluster.address
    try:
        yield cluster
    finally:
        del os.environ["RAY_ADDRESS"]
        ray.shutdown()
        cluster.shutdown()
