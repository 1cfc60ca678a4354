"""Runs with shards and output in an object store equal those on a local disk."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from support.faulty_store import Fault, FaultyStore
from support.runs import tiny, tiny_student, train
from support.sources import write_source

from unfused_ray import storage
from unfused_ray.clustering.assignment import read_assignment
from unfused_ray.models.export import load_encoder, load_student


def put(folder: Path, uri: str) -> None:
    """Copy a local folder to an object store."""
    for path in folder.rglob("*.*"):
        storage.write_bytes(storage.join(uri, *path.relative_to(folder).parts), path.read_bytes())


def test_a_run_in_an_object_store_stopped_and_taken_up_equals_a_local_one(
    object_store: str, tmp_path: Path, stop_after: Callable[[int], None]
) -> None:
    tracking_uri = f"sqlite:///{tmp_path}/mlflow.db"
    source, shards = tmp_path / "source", f"s3://bucket/shards{object_store}"
    write_source(source, [[40, 30], [30]])
    put(source, shards)
    local = tiny(source, tmp_path / "local", tracking_uri)
    assert train(local).state == "finished"

    output = f"s3://bucket/runs/remote{object_store}"
    remote = local.replace(data=(shards,), output=output)
    stop_after(2)
    assert train(remote).state == "stopped"
    stop_after(-1)
    assert train(remote).state == "finished"

    wave = np.sin(np.arange(16_000) / 20).astype(np.float32)
    vectors = [load_encoder(storage.join(uri, "encoder")).embed(wave, 16_000) for uri in (local.output, output)]
    np.testing.assert_array_equal(*vectors)
    assert not storage.exists(storage.join(output, "lease.json"))

    here = tiny_student(source, tmp_path / "student", tracking_uri, teacher=local.output)
    distilled = f"s3://bucket/runs/student{object_store}"
    there = here.replace(data=(shards,), teacher=output, output=distilled)
    assert [train(config).state for config in (here, there)] == ["finished", "finished"]
    labels = [read_assignment(storage.join(uri, "pseudo-labels")).labels for uri in (here.output, distilled)]
    np.testing.assert_array_equal(*labels)
    vectors = [load_student(uri).embed(wave, 16_000) for uri in (here.output, distilled)]
    np.testing.assert_array_equal(*vectors)


def test_a_large_file_goes_to_an_object_store_in_parts(store: FaultyStore, object_store: str) -> None:
    asked: list[bytes] = []

    def note(head: bytes) -> Fault:
        asked.append(head.partition(b"\r\n")[0])
        return ""

    store.judge = note
    data = np.random.default_rng(0).bytes(25 << 20)
    storage.write_bytes(f"s3://bucket/large{store.options}", data)
    assert sum(b"partNumber=" in line for line in asked if line.startswith(b"PUT")) >= 3
    assert storage.read_bytes(f"s3://bucket/large{object_store}") == data
