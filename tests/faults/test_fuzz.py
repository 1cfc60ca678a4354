"""Generated damaged and hostile input is read, set aside with a reason, or refused; nothing else happens."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tarfile
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from support.archives import write_tar
from support.fuzz_readers import RATE, READERS, became_of, encoded
from support.paths import ROOT

from unfused_ray import storage
from unfused_ray.api import prepare
from unfused_ray.audio.decode import AudioError, decode, refuse_unusable
from unfused_ray.config import PrepareConfig
from unfused_ray.data.parts.rejects import REJECTS
from unfused_ray.data.sources.csv_files import list_csv
from unfused_ray.data.sources.hub_parquet import list_parquet
from unfused_ray.data.sources.items import Listing
from unfused_ray.data.sources.tar import list_tar

MEGABYTES = 200
"""Most megabytes that a reader may grow by on inputs of some kilobytes; libraries keep some freed memory."""


def fuzz(folder: Path, inputs: int) -> None:
    """Fuzz all readers in another process; fail if it crashed, hung or grew by too much memory."""
    command = [sys.executable, "-m", "support.fuzz"]
    options = ["--inputs", str(inputs), "--folder", str(folder)]
    ended = subprocess.run([*command, *options], cwd=ROOT / "tests", capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr[-3000:]
    report = json.loads(ended.stdout)
    assert report["inputs"] >= inputs
    assert report["outcomes"].keys() == READERS.keys()
    assert {name: grown for name, grown in report["grown_megabytes"].items() if grown > MEGABYTES} == {}


def test_of_a_thousand_damaged_inputs_each_is_read_set_aside_or_refused(tmp_path: Path) -> None:
    fuzz(tmp_path, 1_000)


@pytest.mark.slow
def test_of_a_hundred_thousand_damaged_inputs_each_is_read_set_aside_or_refused(tmp_path: Path) -> None:
    fuzz(tmp_path, 100_000)


VALUES = {"noise": None, "silence": 0.0, "dc": 0.5, "denormal": 1e-40, "NaN": np.nan, "infinite": np.inf, "huge": 1e38}


@settings(max_examples=60)
@given(
    rate=st.sampled_from([1, 8_000, 16_000, 44_100, 384_000]),
    channels=st.sampled_from([1, 2, 64]),
    num_samples=st.sampled_from([0, 1, 2, 5_000]),
    content=st.sampled_from(sorted(VALUES)),
)
def test_samples_of_any_kind_rate_and_number_of_channels(
    rate: int, channels: int, num_samples: int, content: str
) -> None:
    wave = np.random.default_rng(0).normal(0, 0.1, (num_samples, channels)).astype(np.float32)
    if (value := VALUES[content]) is not None:
        wave[num_samples // 2 :] = value
    buffer = io.BytesIO()
    soundfile.write(buffer, wave, rate, format="WAV", subtype="FLOAT")
    try:
        for piece in decode(io.BytesIO(buffer.getvalue()), RATE, RATE):
            refuse_unusable(piece, RATE, min_seconds=0.001, silence_peak=1e-4)
        reason = ""
    except AudioError as error:
        reason = error.reason
    if num_samples == 0:
        assert reason == "empty"
    elif rate == 1:
        assert reason == "wrong format"
    elif content in ("NaN", "infinite", "huge"):
        assert reason == "not finite"
    elif num_samples > 2:
        assert reason == ""
    else:
        assert reason in ("", "too short", "silent", "empty")


def test_ten_hours_are_read_piece_by_piece_from_a_file_that_is_mostly_a_hole(tmp_path: Path) -> None:
    wav = bytearray(encoded("wav", seconds=0.01))
    size = 36_000 * RATE * 2
    wav[4:8], wav[40:44] = (size + 36).to_bytes(4, "little"), size.to_bytes(4, "little")
    with (tmp_path / "hours.wav").open("wb") as file:
        file.write(wav)
        file.truncate(44 + size)
    with (tmp_path / "hours.wav").open("rb") as file:
        pieces = islice(decode(file, RATE, 10 * RATE), 20)
        assert [len(piece) for piece in pieces] == [10 * RATE] * 20


def header(name: str, size: int, kind: bytes = b"0") -> bytes:
    """Return the header of a tar's member with any number as size, even a negative one (base-256)."""
    block = bytearray(tarfile.TarInfo(name).tobuf(tarfile.GNU_FORMAT))
    block[124:136] = b"\x80" + size.to_bytes(11, "big") if size >= 0 else b"\xff" + (size % 256**11).to_bytes(11, "big")
    block[156:157], block[148:156] = kind, b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


@pytest.mark.parametrize("size", [-1, -512, -1536, -100_000, 2**33, 2**62, 2**63, 2**80])
@pytest.mark.parametrize("kind", [b"0", b"x", b"g", b"L", b"K", b"S", b"V"])
def test_a_tar_whose_headers_lie_of_sizes_gives_what_lies_before(tmp_path: Path, kind: bytes, size: int) -> None:
    wav = encoded("wav")
    good = header("a.wav", len(wav)) + wav + bytes(-len(wav) % 512)
    (tmp_path / "x.tar").write_bytes(good + header("b.wav", size, kind) + good)
    listing = list_tar(str(tmp_path / "x.tar"))
    assert set(listing.items["key"].to_pylist()) == {"a"}
    rejected = {reject.key for reject in listing.rejects}
    assert rejected == {"x.tar"} or (kind == b"S" and "b" in rejected)  # a sparse clip is set aside under its name
    assert became_of(listing) == "rejected"


def test_companions_and_names_in_a_tar_that_make_no_sense_set_their_clip_aside(tmp_path: Path) -> None:
    wav = encoded("wav")
    members = {f"{name}.wav": wav for name in ("deep", "surrogate", "\udcff", "good")}
    members |= {"deep.json": b"[" * 100_000, "surrogate.json": b'{"label": "\\ud800"}'}
    write_tar(tmp_path / "x.tar", members)
    listing = list_tar(str(tmp_path / "x.tar"))
    assert listing.items["key"].to_pylist() == ["good"]
    assert {(reject.key, reject.reason) for reject in listing.rejects} == {
        (key, "unreadable") for key in ("deep", "surrogate", "\\udcff")
    }


def test_rows_of_a_csv_that_name_no_file_are_set_aside_and_wait_for_nothing(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.wav")
    (tmp_path / "a.wav").write_bytes(encoded("wav"))
    odd = ["pipe.wav", "/dev/zero", "~nobody/a.wav", "http://host/a.wav", "s3:///a.wav", "x" * 5000, ".", "nul\0.wav"]
    (tmp_path / "x.csv").write_text("files\n" + "\n".join([*odd, "a.wav", f"file://{tmp_path}/a.wav"]))
    listing = list_csv(str(tmp_path / "x.csv"))
    assert [(reject.key, reject.reason) for reject in listing.rejects] == [("x.csv:9", "missing")]
    read = [row["key"] for row in listing.items.to_pylist() if became_of(Listing.from_rows([row])) == "read"]
    assert read == ["a.wav", f"file://{tmp_path}/a.wav"]
    assert len(listing.items) == len(odd) - 1 + 2


def test_a_parquet_file_whose_struct_holds_no_bytes_or_whose_metadata_are_not_the_hubs(tmp_path: Path) -> None:
    table = pa.table({"audio": [{"bytes": 5, "path": "a"}], "label": [0]})
    pq.write_table(table, tmp_path / "number.parquet")
    with pytest.raises(ValueError, match=r"number\.parquet has the columns audio, label, of which 0 hold bytes"):
        list_parquet(str(tmp_path / "number.parquet"))
    table = pa.table({"audio": [encoded("wav")], "label": [0]})
    for number, metadata in enumerate(
        ["[", "[]", '{"info": 1}', '{"info": {"features": {"label": []}}}', "[" * 100_000]
    ):
        path = tmp_path / f"{number}.parquet"
        pq.write_table(table.replace_schema_metadata({"huggingface": metadata}), path)
        assert list_parquet(str(path)).items["labels"].to_pylist() == [["0"]]


def test_links_that_lead_in_circles_are_followed_once(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / "in" / name).mkdir(parents=True)
        (tmp_path / "in" / name / "x.wav").write_bytes(b"")
        for link in range(3):
            (tmp_path / "in" / name / f"up{link}").symlink_to("..")
            (tmp_path / "in" / name / f"here{link}").symlink_to(".")
    (tmp_path / "elsewhere/below").mkdir(parents=True)
    (tmp_path / "elsewhere/y.wav").write_bytes(b"")
    (tmp_path / "elsewhere/below/back").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "in/link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "in/itself.wav").symlink_to("itself.wav")
    (tmp_path / "in/nowhere.wav").symlink_to("nowhere")
    found = [storage.relative(uri, str(tmp_path / "in")) for uri in storage.list_files(str(tmp_path / "in"), True)]
    assert found == ["a/x.wav", "b/x.wav", "link/y.wav"]


@pytest.mark.usefixtures("ray_session")
def test_a_whole_ingest_of_hostile_files_writes_its_output_and_nothing_else(tmp_path: Path) -> None:
    source, output = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    (source / "loop").symlink_to(".")
    os.mkfifo(source / "pipe.wav")
    (source / "fails.wav").symlink_to("/proc/self/mem")  # it opens, and reading it fails
    rejected = {
        "cut.flac": encoded("flac")[:900],
        "zip.wav": b"PK\x03\x04" + bytes(999),
        "none.mp3": b"",
        "ogg.wav": b"OggS",
    }
    good = {"wav.flac": encoded("wav"), "é ä.opus": encoded("opus", 48_000), "b.wav": encoded("wav")}
    for name, data in {**rejected, **good}.items():
        (source / name).write_bytes(data)
    Path(os.fsdecode(os.fsencode(source) + b"/\xff.wav")).write_bytes(encoded("wav"))
    before = sorted(map(str, tmp_path.rglob("*")))
    manifest = prepare(PrepareConfig(source=str(source), output=str(output)))
    assert manifest is not None and manifest.num_clips == len(good)
    set_aside = {row["key"]: row["reason"] for row in pq.read_table(output / REJECTS).to_pylist()}
    assert set_aside.keys() == {*rejected, "pipe.wav", "fails.wav", "\\udcff.wav"}
    assert [path for path in sorted(map(str, tmp_path.rglob("*"))) if not path.startswith(str(output))] == before


@pytest.mark.usefixtures("ray_session")
def test_a_tar_of_bombs_and_of_names_that_lead_elsewhere_is_read_within_its_output(tmp_path: Path) -> None:
    hours = io.BytesIO()
    soundfile.write(hours, np.zeros(RATE * 600, np.int16), RATE, format="FLAC")
    members = {
        "../../up.wav": encoded("wav"),
        "/abs.wav": encoded("wav"),
        "bomb.flac": hours.getvalue(),
        "a.zip": b"PK",
    }
    (tmp_path / "in").mkdir()
    write_tar(tmp_path / "in/x.tar", members, links={"link.wav": "/etc/passwd"})
    prepare(PrepareConfig(source=str(tmp_path / "in/x.tar"), output=str(tmp_path / "out")))
    rows = pq.read_table(tmp_path / "out" / REJECTS).to_pylist()
    assert {row["key"].partition("@")[0] for row in rows} == {"bomb"} and {row["reason"] for row in rows} == {"silent"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out"]


def test_a_shard_whose_column_names_are_not_utf8_is_damaged(tmp_path: Path) -> None:
    reader = READERS["shard"](tmp_path)
    assert reader.read(reader.originals[0].replace(b"num_samples", b"num_sample\xf3")) == "rejected"


@pytest.mark.parametrize("name", sorted(READERS.keys() - {"csv", "parquet"}))  # those two hold rows that are set aside
def test_what_is_fuzzed_is_read_where_it_is_intact(tmp_path: Path, name: str) -> None:
    reader = READERS[name](tmp_path)
    assert reader.read(reader.originals[0]) == "read"
