"""The newest whole checkpoint is taken, whatever happened to the others, on disk and in an object store."""

from __future__ import annotations

import json
import logging
import uuid
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import IO

import pytest
import torch

from unfused_ray import storage
from unfused_ray.runs.checkpoints import CheckpointStore, Position
from unfused_ray.storage import writing


@pytest.fixture(params=["disk", "object store"])
def run_uri(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Path or URI of a new run's folder."""
    if request.param == "disk":
        return str(tmp_path)
    return f"s3://bucket/{uuid.uuid4().hex}{request.getfixturevalue('object_store')}"


def write(store: CheckpointStore, position: Position) -> str:
    """Write a checkpoint as a run does; weights and details hold its step."""
    folder = store.begin(position)
    storage.write_bytes(storage.join(folder, "bank", "bank.json"), b"embeddings")
    store.commit(position, {"model": {"w": torch.full((3,), float(position.step))}}, {"step": position.step})
    return folder


def found(store: CheckpointStore) -> Position | None:
    checkpoint = store.newest()
    if checkpoint is None:
        return None
    assert checkpoint.details == {"step": checkpoint.position.step}
    assert torch.equal(checkpoint.tensors("model")["w"], torch.full((3,), float(checkpoint.position.step)))
    assert storage.read_bytes(storage.join(checkpoint.bank_uri, "bank.json")) == b"embeddings"
    return checkpoint.position


def test_the_newest_is_taken_by_epoch_and_then_by_step(run_uri: str) -> None:
    store = CheckpointStore(run_uri)
    assert found(store) is None
    for position in (Position(0, 900), Position(10, 5), Position(9, 1_000_000)):
        write(store, position)
    assert found(store) == Position(10, 5)


def truncate(data: bytes) -> bytes:
    return data[: len(data) // 2]


def flip_a_bit(data: bytes) -> bytes:
    return data[:-3] + bytes([data[-3] ^ 1]) + data[-2:]


DAMAGES: dict[str, Callable[[bytes], bytes | None]] = {
    "truncated": truncate,
    "a bit flipped": flip_a_bit,
    "missing": lambda data: None,
    "empty": lambda data: b"",
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_named_and_the_one_before_is_taken(
    run_uri: str, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    store = CheckpointStore(run_uri)
    write(store, Position(0, 1))
    newest = write(store, Position(0, 2))
    files = [storage.relative(uri, newest) for uri in storage.list_files(newest, recursive=True)]
    assert files == ["bank/bank.json", "details.json", "manifest.json", "model.safetensors"]
    for file in files:
        uri = storage.join(newest, file)
        whole = storage.read_bytes(uri)
        damaged = DAMAGES[damage](whole)
        if damaged is None:
            storage.delete(uri)
        else:
            storage.write_bytes(uri, damaged)
        with caplog.at_level(logging.WARNING):
            assert found(store) == Position(0, 1)
        assert newest in caplog.text
        if file != "manifest.json":
            assert file in caplog.text
        caplog.clear()
        storage.write_bytes(uri, whole)
    assert found(store) == Position(0, 2)


def test_a_checkpoint_does_not_count_before_its_manifest_which_is_written_last(
    run_uri: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    store = CheckpointStore(run_uri)
    write(store, Position(0, 1))
    open_output = writing.open_output
    for allowed in range(4):  # the process ends before bank, model, details or manifest is written
        left = iter(range(allowed))

        def open_or_end(uri: str, left=left) -> AbstractContextManager[IO[bytes]]:
            if next(left, None) is None:
                raise KeyboardInterrupt
            return open_output(uri)

        with monkeypatch.context() as patch:
            patch.setattr(writing, "open_output", open_or_end)
            with pytest.raises(KeyboardInterrupt):
                write(store, Position(0, 2))
        assert found(store) == Position(0, 1)
        assert [storage.name(folder) for folder in store.committed()] == [Position(0, 1).folder]
    assert "its writing was interrupted" in caplog.text
    write(store, Position(0, 2))
    assert found(store) == Position(0, 2)


def test_where_no_committed_checkpoint_can_be_used_each_is_named_and_nothing_begins_again(tmp_path: Path) -> None:
    store = CheckpointStore(str(tmp_path))
    manifest = Path(write(store, Position(0, 1))) / "manifest.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "format_version": 99}))
    (Path(write(store, Position(0, 2))) / "model.safetensors").write_bytes(b"")
    Path(write(store, Position(0, 3)), "manifest.json").unlink()
    with pytest.raises(ValueError, match="Move these folders away") as refusal:
        store.newest()
    _, newer, older, _ = str(refusal.value).splitlines()
    assert "e0000-s000002" in newer
    assert "model.safetensors is damaged" in newer
    assert "e0000-s000001" in older
    assert "format_version 99" in older


def test_a_checkpoint_that_lacks_the_state_of_its_labels_is_not_committed(tmp_path: Path) -> None:
    store = CheckpointStore(str(tmp_path))
    store.begin(Position(0, 1))
    with pytest.raises(RuntimeError, match="reachable by one path or URI from every node"):
        store.commit(Position(0, 1), {}, {}, has_bank=True)
    assert not store.committed()


def test_storage_that_does_not_answer_is_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = CheckpointStore(str(tmp_path))
    write(store, Position(0, 1))

    def fail(uri: str) -> str:
        raise OSError(f"cannot read {uri}: time-out")

    monkeypatch.setattr(storage, "sha256_file", fail)
    with pytest.raises(OSError, match="time-out"):
        store.newest()


def positions(store: CheckpointStore) -> list[Position]:
    return [Position.of(storage.name(folder)) for folder in store.committed()]


def test_pruning_keeps_the_newest(run_uri: str) -> None:
    store = CheckpointStore(run_uri)
    for step in range(1, 5):
        write(store, Position(0, step))
        kept = store.prune(Position(0, step), keep=2)
        assert kept == positions(store) == [Position(0, s) for s in range(step, max(step - 2, 0), -1)]
        assert found(store) == Position(0, step)


def test_pruning_never_prefers_a_damaged_checkpoint_to_the_one_just_written(tmp_path: Path) -> None:
    store = CheckpointStore(str(tmp_path))
    write(store, Position(0, 1))
    newest = Path(write(store, Position(1, 0)))
    (newest / "model.safetensors").write_bytes(b"")
    assert found(store) == Position(0, 1)
    write(store, Position(0, 2))  # the run resumed from step 1
    assert store.prune(Position(0, 2), keep=1) == positions(store) == [Position(0, 2)]
    assert found(store) == Position(0, 2)


def test_pruning_removes_interrupted_checkpoints_and_nothing_else(tmp_path: Path) -> None:
    store = CheckpointStore(str(tmp_path))
    interrupted = Path(write(store, Position(0, 1)))
    (interrupted / "manifest.json").unlink()
    foreign = tmp_path / "checkpoints" / "my-backup"
    foreign.mkdir()
    write(store, Position(0, 2))
    store.prune(Position(0, 2), keep=2)
    assert not interrupted.exists()
    assert foreign.exists()
