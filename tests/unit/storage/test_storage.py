"""Storage behaves the same on a local disk and in an object store, and a write is whole or absent."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from moto.s3.exceptions import S3ClientError
from moto.s3.models import S3Backend

from unfused_ray import storage
from unfused_ray.storage import unfinished


@pytest.fixture(params=["local", "s3"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A folder that does not exist yet."""
    if request.param == "local":
        return str(tmp_path / "a folder")
    options = request.getfixturevalue("object_store")
    return f"s3://bucket/{tmp_path.name}/a folder{options}"


def test_a_written_file_is_read_back_and_replaced(folder: str):
    uri = storage.join(folder, "deep/er", "a file.bin")
    for data in (b"first", b"", b"x" * 100_000):
        storage.write_bytes(uri, data)
        assert storage.read_bytes(uri) == data
        assert storage.sha256_file(uri) == hashlib.sha256(data).hexdigest() == storage.sha256(data)
    with storage.open_input(uri) as file:
        file.seek(99_990)
        assert file.read() == b"x" * 10


@pytest.mark.parametrize("name", ["a b.wav", "50%25.wav", "x#1.wav", "why?.wav", "ü/é.wav", "..wav", "a=b&c.wav"])
def test_names_are_taken_literally_and_listed_as_they_are(folder: str, name: str):
    uri = storage.join(folder, name)
    storage.write_bytes(uri, name.encode())
    assert storage.list_files(folder, recursive=True) == [uri]
    assert storage.read_bytes(storage.list_files(folder, recursive=True)[0]) == name.encode()
    assert storage.relative(uri, folder) == name
    assert storage.name(uri) == name.rpartition("/")[2]
    assert storage.join(storage.parent(uri), storage.name(uri)) == uri


@pytest.mark.parametrize(
    ("uri", "parent"),
    [
        *(("/data", "/"), ("/data/", "/"), ("/", "/"), ("/data/a", "/data"), ("a", ""), ("", "")),
        *(("s3://bucket/a", "s3://bucket"), ("s3://bucket", "s3://bucket"), ("s3://bucket/", "s3://bucket")),
        ("s3://bucket?region=r", "s3://bucket?region=r"),
    ],
)
def test_the_folder_above_a_folder_of_the_root_is_the_root_and_a_bucket_is_a_root(uri: str, parent: str):
    """What was left of s3://bucket was s3:/, a path in the working directory."""
    assert storage.parent(uri) == parent


def test_listing_is_sorted_and_tells_files_from_folders(folder: str):
    assert storage.list_files(folder) == [] == storage.list_folders(folder)
    names = ["b", "a", "sub/d", "sub/deeper/c"]
    for name in names:
        storage.write_bytes(storage.join(folder, name), b"1")
    assert storage.list_files(folder) == [storage.join(folder, name) for name in ("a", "b")]
    assert storage.list_files(folder, recursive=True) == sorted(storage.join(folder, name) for name in names)
    assert storage.list_folders(folder) == [storage.join(folder, "sub")]
    assert storage.is_folder(folder) and not storage.is_folder(storage.join(folder, "a"))


def test_delete_removes_files_and_trees_and_nothing_else(folder: str):
    for name in ("a", "sub/b", "sub/c", "subway"):
        storage.write_bytes(storage.join(folder, name), b"1")
    storage.delete(storage.join(folder, "sub"))
    storage.delete(storage.join(folder, "a"))
    storage.delete(storage.join(folder, "never there"))
    assert storage.list_files(folder, recursive=True) == [storage.join(folder, "subway")]
    assert not storage.exists(storage.join(folder, "a"))


def test_a_big_file_arrives_whole(folder: str):
    content = os.urandom(20 << 20)
    storage.write_bytes(storage.join(folder, "big"), content)
    assert storage.sha256_file(storage.join(folder, "big")) == hashlib.sha256(content).hexdigest()


def test_an_upload_interrupted_between_two_pieces_leaves_the_old_bytes(
    object_store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    uri = f"s3://bucket/{tmp_path.name}/file{object_store}"
    storage.write_bytes(uri, b"old")

    def interrupt(source: IO[bytes], target: IO[bytes], length: int) -> None:
        target.write(source.read(5))
        raise KeyboardInterrupt

    monkeypatch.setattr(shutil, "copyfileobj", interrupt)
    with pytest.raises(KeyboardInterrupt):
        storage.write_bytes(uri, b"new bytes")
    assert storage.read_bytes(uri) == b"old"


def test_a_write_that_fails_leaves_the_old_bytes_and_no_rubbish(folder: str):
    uri = storage.join(folder, "file")
    storage.write_bytes(uri, b"old")
    with pytest.raises(RuntimeError, match="power cut"), storage.open_output(uri) as output:
        output.write(b"new, but not who")
        raise RuntimeError("power cut")
    assert storage.read_bytes(uri) == b"old"
    assert storage.list_files(folder) == [uri]


def test_what_the_block_of_a_write_raises_comes_out_as_it_is(folder: str):
    raised = FileNotFoundError("the shard that was to be read is not there")
    with pytest.raises(FileNotFoundError) as caught, storage.open_output(storage.join(folder, "file")) as output:
        output.write(b"a part")
        raise raised
    assert caught.value is raised
    assert not storage.list_files(folder)


@pytest.mark.parametrize(
    "write",
    [
        pytest.param(lambda output: pq.write_table(pa.table({"a": range(10_000)}), output), id="while it is written"),
        pytest.param(lambda output: output.write(bytes(5_000)), id="at its end"),
    ],
)
def test_a_file_that_finds_no_room_is_named(write: Callable[[IO[bytes]], object], tmp_path: Path):
    uri, (soft, hard) = str(tmp_path / "file"), resource.getrlimit(resource.RLIMIT_FSIZE)
    storage.write_bytes(uri, b"old")
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000, hard))  # for all files of this process
    try:
        with pytest.raises(OSError, match=f"^cannot write {uri}: .*too large$"), storage.open_output(uri) as output:
            write(output)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert storage.read_bytes(uri) == b"old"
    assert len(list(tmp_path.iterdir())) == 1


def test_an_upload_that_the_store_refuses_midway_leaves_the_old_bytes(
    object_store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    uri = f"s3://bucket/{tmp_path.name}/file{object_store}"
    storage.write_bytes(uri, b"old")
    upload_part = S3Backend.upload_part

    def refuse_second(self: S3Backend, *args: Any, **options: Any) -> Any:
        if 2 in (*args, *options.values()):
            raise S3ClientError("AccessDenied", "no more of it")
        return upload_part(self, *args, **options)

    monkeypatch.setattr(S3Backend, "upload_part", refuse_second)
    with pytest.raises(OSError, match="no more of it"):
        storage.write_bytes(uri, os.urandom(30 << 20))
    assert storage.read_bytes(uri) == b"old"


def test_a_missing_file_is_named(folder: str):
    uri = storage.join(folder, "nothing")
    assert not storage.exists(uri)
    for read in (storage.read_bytes, storage.open_input, storage.sha256_file):
        with pytest.raises(FileNotFoundError, match="nothing"):
            read(uri)


def test_what_a_killed_writer_leaves_is_not_listed_and_can_be_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with storage.open_output(str(tmp_path / "file")) as output:
        (leftover,) = tmp_path.iterdir()
        output.write(b"1")
        monkeypatch.setattr(unfinished, "_OF_THIS_PROCESS", "0" * 16)  # as if seen by another process
        leftover_name = leftover.name
    (tmp_path / leftover_name).write_bytes(b"half")
    (tmp_path / ".hidden.tmp").write_bytes(b"the user's own")
    assert [storage.name(uri) for uri in storage.list_files(str(tmp_path))] == [".hidden.tmp", "file"]
    storage.delete_unfinished(str(tmp_path))
    assert sorted(path.name for path in tmp_path.iterdir()) == [".hidden.tmp", "file"]


def test_a_file_that_this_process_is_writing_is_not_removed(tmp_path: Path):
    """A lease may be renewed in a folder while a job there deletes the leftovers of an earlier process."""
    with storage.open_output(str(tmp_path / "lease.json")) as output:
        output.write(b"1")
        storage.delete_unfinished(str(tmp_path))
    assert (tmp_path / "lease.json").read_bytes() == b"1"


def test_the_endpoint_may_come_from_the_environment(object_store: str, monkeypatch: pytest.MonkeyPatch):
    storage.write_bytes(f"s3://bucket/endpoint/x{object_store}", b"1")
    host = object_store.partition("endpoint_override=")[2].partition("&")[0]
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}")
    assert storage.list_files("s3://bucket/endpoint?region=us-east-1") == ["s3://bucket/endpoint/x?region=us-east-1"]


@pytest.mark.parametrize("name", ["x.mp3?dl=1", "y.wav?token=a&b=c", "z?regions=2"])
def test_a_question_mark_in_a_key_begins_no_options(object_store: str, monkeypatch: pytest.MonkeyPatch, name: str):
    """wget saves what follows the question mark of an address in the name of the file."""
    host = object_store.partition("endpoint_override=")[2].partition("&")[0]
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}")
    uri = f"s3://bucket/saved/{name}"
    storage.write_bytes(uri, b"1")
    assert uri in storage.list_files("s3://bucket/saved") and storage.read_bytes(uri) == b"1"
    assert (storage.name(uri), storage.parent(uri)) == (name, "s3://bucket/saved")
    assert storage.relative(uri, "s3://bucket/saved") == name
    storage.delete(uri)
    with_secret = "s3://bucket/saved?secret_key=s&region=r&x=y"
    assert storage.join(with_secret, name) == f"s3://bucket/saved/{name}?secret_key=s&region=r&x=y"
    assert storage.name(storage.join(with_secret, name)) == name


def test_local_uris_become_absolute_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/somebody")
    assert storage.absolute("data/x") == str(tmp_path / "data/x")
    assert storage.absolute("~/x") == "/home/somebody/x"
    assert storage.absolute("file:///data/x") == "/data/x"
    assert storage.absolute("s3://bucket/x") == "s3://bucket/x"
    assert [storage.is_local(uri) for uri in ("x", "/x", "file:///x", "s3://b/x")] == [True, True, True, False]


def test_an_unknown_scheme_is_refused_with_the_way_out():
    with pytest.raises(ValueError, match=r"ftp://host/x.*s3://bucket/folder"):
        storage.exists("ftp://host/x")


def test_a_folder_in_the_way_is_named(tmp_path: Path):
    (tmp_path / "taken").mkdir()
    with pytest.raises(OSError, match="taken"):
        storage.write_bytes(str(tmp_path / "taken"), b"1")
    (tmp_path / "file").write_bytes(b"1")
    with pytest.raises(OSError, match="file/below"):
        storage.write_bytes(str(tmp_path / "file/below"), b"1")


@given(
    secret=st.text("abcXYZ0123456789:._-%", min_size=8),
    odd=st.text("aZ0/@?#=:%+", min_size=6),
    name=st.sampled_from(["secret_key", "token", "x-password", "sig", "SAS"]),
)
def test_no_secret_of_a_uri_survives(secret: str, odd: str, name: str) -> None:
    for uri in (
        f"s3://{secret}@bucket/a",
        f"see http://me:{secret}@host:1/a?b=c",
        f"s3://b/c?region=r&{name}={secret}",
        f"https://account.example/container?{name}={secret}&x=1",
    ):
        assert secret not in storage.masked(uri)
        assert storage.masked(storage.masked(uri)) == storage.masked(uri)
        assert json.loads(storage.masked(json.dumps([uri, 1]))) == [storage.masked(uri), 1]
    assert storage.masked(f"http://me:{odd}@host/a") == "http://…@host/a"


@pytest.mark.parametrize("uri", ["s3://bucket/a@b?region=r", "http://host:9000/a?design=1&x=2", "/a:b@c?x=1"])
def test_a_uri_without_secrets_stays(uri: str) -> None:
    assert storage.masked(uri) == uri
