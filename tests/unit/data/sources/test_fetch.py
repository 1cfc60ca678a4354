"""Fetching the bytes of listed clips: a failing file sets its clip aside; a failing store or disk ends the reading."""

from __future__ import annotations

import errno
import io
import os
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.archives import write_tar
from support.fuzz_readers import MAX_SECONDS, RATE, encoded

from unfused_ray import storage
from unfused_ray.data.parts.rejects import Reject
from unfused_ray.data.sources import fetch as fetching
from unfused_ray.data.sources.fetch import fetch
from unfused_ray.data.sources.hub_parquet import list_parquet
from unfused_ray.data.sources.items import Listing
from unfused_ray.data.sources.pieces import Piece, pieces
from unfused_ray.data.sources.tar import list_tar
from unfused_ray.storage import file_systems


def unreadable_file(path: Path) -> Path:
    """Make a file that opens, but fails with EIO at its first byte."""
    path.symlink_to("/proc/self/mem")
    return path


def ends(rows: list[dict[str, Any]]) -> list[Piece | Reject]:
    """Return the last piece, or the reject, of each clip."""
    return [list(pieces(item, source, RATE, MAX_SECONDS))[-1] for item, source in fetch(Listing.from_rows(rows).items)]


def test_local_files_that_cannot_be_read_are_set_aside_and_the_next_is_read(tmp_path: Path) -> None:
    (tmp_path / "good.wav").write_bytes(encoded("wav"))
    write_tar(tmp_path / "gone.tar", {"a.wav": encoded("wav")})
    (in_tar,) = list_tar(str(tmp_path / "gone.tar")).items.to_pylist()
    (tmp_path / "gone.tar").unlink()
    bad = unreadable_file(tmp_path / "bad.wav")
    rows = [
        {"key": "bad", "uri": str(bad)},
        {"key": "bad tar", "uri": str(bad), "offset": 0, "num_bytes": 9},
        {"key": "gone", "uri": str(tmp_path / "gone.wav")},
        in_tar | {"key": "gone tar"},
        {"key": "good", "uri": str(tmp_path / "good.wav")},
    ]
    *rejects, good = ends(rows)
    assert [(reject.key, reject.reason) for reject in rejects if isinstance(reject, Reject)] == [
        ("bad", "unreadable"),
        ("bad tar", "unreadable"),
        ("gone", "missing"),
        ("gone tar", "missing"),
    ]
    assert all("Input/output error" in reject[2] for reject in rejects[:2])
    assert isinstance(good, Piece)


@pytest.mark.parametrize("list_file", [list_tar, list_parquet])
@pytest.mark.parametrize(
    ("data", "detail"), [(b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"), (b"\x1f\x8b\x08", "gzip")]
)
def test_archives_that_stand_for_others_say_so(tmp_path: Path, list_file: Any, data: bytes, detail: str) -> None:
    (tmp_path / "x").write_bytes(data)
    (reject,) = list_file(str(tmp_path / "x")).rejects
    assert reject.reason == "unreadable" and detail in reject.detail


@pytest.mark.parametrize("list_file", [list_tar, list_parquet])
def test_local_archives_that_cannot_be_read_are_set_aside(tmp_path: Path, list_file: Any) -> None:
    for path, reason in ((unreadable_file(tmp_path / "bad"), "unreadable"), (tmp_path / "gone", "missing")):
        listing = list_file(str(path))
        assert [(reject.key, reject.reason) for reject in listing.rejects] == [(path.name, reason)]
        assert len(listing.items) == 0


@pytest.mark.parametrize(("module", "fails"), [(storage, "open_input"), (file_systems, "_connect")])
def test_a_store_that_does_not_answer_is_no_reason_of_a_clip(
    monkeypatch: pytest.MonkeyPatch, module: ModuleType, fails: str
) -> None:
    def gone(*args: object) -> None:
        raise OSError("no connection")

    monkeypatch.setattr(module, fails, gone)
    with pytest.raises(OSError, match="no connection"):
        ends([{"key": "k", "uri": "s3://bucket/k.wav"}])
    with pytest.raises((OSError, ValueError), match="no connection"):
        list_tar("s3://bucket/k.tar")


@pytest.mark.parametrize("code", [errno.ENOTCONN, errno.ESTALE, errno.EDQUOT, errno.EMFILE])
def test_a_network_folder_that_does_not_answer_is_no_reason_of_a_clip(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    (tmp_path / "a.wav").write_bytes(encoded("wav"))
    write_tar(tmp_path / "x.tar", {"a.wav": encoded("wav")})
    pq.write_table(pa.table({"audio": [encoded("wav")]}), tmp_path / "x.parquet")
    in_parquet = list_parquet(str(tmp_path / "x.parquet")).items.to_pylist()
    a_wav = [{"key": "a", "uri": str(tmp_path / "a.wav")}]

    def gone(*args: object) -> Any:
        raise OSError(code, os.strerror(code))

    class Gone(io.BytesIO):
        readinto = gone

    with monkeypatch.context() as patches:
        patches.setattr(Path, "open", gone)
        patches.setattr("unfused_ray.storage.reading.resolve", lambda uri: (SimpleNamespace(open_input_file=gone), uri))
        for read in (
            lambda: ends(a_wav),
            lambda: ends(in_parquet),
            lambda: list_tar(str(tmp_path / "x.tar")),
            lambda: list_parquet(str(tmp_path / "x.parquet")),
        ):
            with pytest.raises(OSError, match=os.strerror(code)):
                read()
    item = Listing.from_rows(a_wav).items.to_pylist()[0]
    with pytest.raises(OSError, match=rf"{os.strerror(code)}: '.*a\.wav'"):
        list(pieces(item, Gone(encoded("wav")), RATE, MAX_SECONDS))


def test_a_full_disk_for_temporary_files_is_no_reason_of_a_clip(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_tar(tmp_path / "x.tar", {"a.wav": encoded("wav")})
    monkeypatch.setattr(fetching.tempfile, "SpooledTemporaryFile", lambda size: io.FileIO("/dev/full", "r+"))
    with pytest.raises(OSError) as raised:
        ends(list_tar(str(tmp_path / "x.tar")).items.to_pylist())
    assert raised.value.errno == errno.ENOSPC
