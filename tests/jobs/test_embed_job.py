"""The embedding job, from shards or any audio to vectors: values, windows, interruption, refusals, object stores."""

from __future__ import annotations

import io
import json
import os
import shutil
import tarfile
from collections.abc import Callable
from itertools import groupby
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.paths import contents
from support.sources import tone, write_source
from support.terminal import Ended, text_of

from unfused_ray import storage
from unfused_ray.api import embed
from unfused_ray.audio.decode import decode, read_flac
from unfused_ray.config import CropConfig, EmbedConfig, EncoderConfig, FrontEndConfig
from unfused_ray.data.parts.executor import IN_PROCESS
from unfused_ray.data.parts.rejects import REJECTS
from unfused_ray.data.shards.format import MANIFEST
from unfused_ray.data.shards.index import ClipIndex
from unfused_ray.data.sources.fetch import fetch
from unfused_ray.data.sources.items import ITEMS, Listing
from unfused_ray.embedding import write
from unfused_ray.embedding.clips import read_out
from unfused_ray.embedding.job import check, describe, run
from unfused_ray.embedding.parts import audio_parts, plan_parts, shard_parts
from unfused_ray.embedding.vectors import METRIC, VectorManifest, from_source, vector_schema, within_source
from unfused_ray.embedding.waves import embed_waves, windows
from unfused_ray.embedding.write import write_vectors
from unfused_ray.lease import InUseError, Lease
from unfused_ray.models.encoder import AudioNTT2020
from unfused_ray.models.export import load_encoder, save_encoder
from unfused_ray.models.frozen import FrozenEncoder
from unfused_ray.progress import Progress

RATE = 16_000
FRONT_END = FrontEndConfig()
CROP = CropConfig(seconds=0.3, short_clips="tile")


def tiny_encoder(seed: int) -> AudioNTT2020:
    torch.manual_seed(seed)
    return AudioNTT2020(EncoderConfig(channels=4, width=12), FRONT_END.num_mels)


@pytest.fixture(scope="module")
def encoder_uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = str(tmp_path_factory.mktemp("run") / "encoder")
    save_encoder(folder, tiny_encoder(0), FRONT_END, CROP, -7.0, 4.0, {})
    return folder


@pytest.fixture(scope="module")
def encoder(encoder_uri: str) -> FrozenEncoder:
    return load_encoder(encoder_uri)


def rows_of(manifest: VectorManifest) -> list[dict]:
    tables = [pq.read_table(io.BytesIO(storage.read_bytes(storage.join(manifest.uri, p.file)))) for p in manifest.parts]
    return pa.concat_tables(tables).to_pylist()


def wav_folder(folder: Path, seconds: list[float], rate: int = RATE) -> Path:
    folder.mkdir()
    for number, length in enumerate(seconds):
        soundfile.write(folder / f"{number:03d}.wav", tone(number, round(length * rate), rate), rate)
    return folder


@given(num_samples=st.integers(1, 300), length=st.integers(0, 60), hop=st.integers(1, 90))
def test_windows_are_those_of_a_naive_loop_and_end_with_the_wave(num_samples: int, length: int, hop: int):
    expected, start = [], 0
    while length and start + length <= num_samples:
        expected.append((start, start + length))
        start += hop
    if not expected:
        expected = [(0, num_samples)]
    elif expected[-1][1] != num_samples:
        expected.append((num_samples - length, num_samples))
    found = windows(num_samples, length, hop)
    assert found == expected
    starts, ends = zip(*found, strict=True)
    assert starts == tuple(sorted(set(starts))) and starts[0] == 0 and ends[-1] == num_samples
    if hop <= length:
        assert set().union(*(range(*window) for window in found)) == set(range(num_samples))


def test_waves_in_batches_have_the_vectors_of_each_alone(encoder: FrozenEncoder):
    lengths = [1, 4_800, 700, *[8_000] * 70, 8_001, 8_100, *[8_000] * 3, 500_000, 9_000]
    waves = [tone(number, length) for number, length in enumerate(lengths)]
    seen = []
    for numbers, layers in embed_waves(encoder, enumerate(waves)):
        seen += numbers
        for place, number in enumerate(numbers):
            for layer, expected in encoder.layers(waves[number], RATE).items():
                np.testing.assert_allclose(layers[layer][place], expected[0], rtol=1e-4, atol=1e-5)
    assert sorted(seen) == list(range(len(waves)))


@pytest.mark.parametrize(
    ("uri", "source", "inner"),
    [
        ("/in/a/b.wav", "/in", "a/b.wav"),
        ("/in.tar", "/in.tar", ""),
        ("/other/b.wav", "/in", "/other/b.wav"),
        ("/d/1.tar", "/d/*.tar", "/d/1.tar"),
        ("s3://b/in/a.wav?region=x", "s3://b/in?region=x", "a.wav"),
        ("s3://b/a.wav?region=x", "s3://b/in?region=x", "s3://b/a.wav?region=x"),
    ],
)
def test_a_place_is_within_its_source_or_as_it_is(uri: str, source: str, inner: str):
    assert within_source(uri, source) == inner
    assert from_source(inner, source) == uri


@given(sizes=st.lists(st.tuples(st.booleans(), st.integers(1, 40)), min_size=1, max_size=12), most=st.integers(1, 50))
def test_parts_hold_every_clip_once_and_whole_row_groups(sizes: list[tuple[bool, int]], most: int):
    rows = []
    for number, (is_row_group, size) in enumerate(sizes):
        place = [{"row_group": number, "row": row} if is_row_group else {} for row in range(size)]
        rows += [{"key": f"{number}:{row}", "uri": "a.parquet", **where} for row, where in enumerate(place)]
    parts = [part.items.to_pylist() for part in audio_parts(Listing.from_rows(rows).items, most)]
    assert [row for part in parts for row in part] == pa.Table.from_pylist(
        [{"labels": [], "split": "", "group": "", **row} for row in rows], ITEMS
    ).to_pylist()
    row_groups = [{row["row_group"] for row in part} - {None} for part in parts]
    assert sum(map(len, row_groups)) == len(set().union(*row_groups))
    for part in parts:
        assert len(part) <= most or len({row["row_group"] for row in part}) == 1


@pytest.mark.parametrize(("vectors", "samples"), [(7, 1 << 24), (4096, 50_000)])
def test_a_part_written_in_several_row_groups_holds_the_same_rows(
    vectors: int, samples: int, tmp_path: Path, encoder: FrozenEncoder, monkeypatch: pytest.MonkeyPatch
):
    (part,) = shard_parts(ClipIndex([write_source(tmp_path / "in", [[20]])]), clips_per_part=20)
    config = EmbedConfig(output=str(tmp_path), window_seconds=0.4, hop_seconds=0.3)
    schema = vector_schema(12, "0" * 64, "last")
    whole = write_vectors("whole.parquet", part, encoder, config, schema)
    monkeypatch.setattr(write, "_ROW_GROUP_VECTORS", vectors)
    monkeypatch.setattr(write, "_ROW_GROUP_SAMPLES", samples)
    cut = write_vectors("cut.parquet", part, encoder, config, schema)
    assert pq.ParquetFile(tmp_path / "whole.parquet").num_row_groups == 1
    assert pq.ParquetFile(tmp_path / "cut.parquet").num_row_groups > 2
    assert (
        (cut.file.num_clips, cut.file.num_vectors) == (whole.file.num_clips, whole.file.num_vectors) == (20, 45)
    )  # 7, 7 and 6 clips with 1, 2 and 4 windows
    ours, theirs = (pq.read_table(tmp_path / file) for file in ("cut.parquet", "whole.parquet"))
    assert ours.drop_columns("vector").equals(theirs.drop_columns("vector"))
    for our, their in zip(ours["vector"].to_pylist(), theirs["vector"].to_pylist(), strict=True):
        np.testing.assert_allclose(our, their, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("seconds", "windows"), [(2.007, 2), (0.00001, 1_600)])
def test_windows_are_as_long_as_asked_for(seconds: float, windows: int, tmp_path: Path, encoder: FrozenEncoder) -> None:
    """In floating point, 2.007 s at 16 kHz are slightly more than 32,112 samples: no reason for another one."""
    (part,) = shard_parts(
        ClipIndex([write_source(tmp_path / "in", [[1]], (40_000 if seconds > 1 else 1_600,))]), clips_per_part=1
    )
    config = EmbedConfig(output=str(tmp_path), window_seconds=seconds, hop_seconds=0)
    write_vectors("part.parquet", part, encoder, config, vector_schema(12, "0" * 64, "last"))
    rows = pq.read_table(tmp_path / "part.parquet")
    assert rows.num_rows == windows
    assert rows["end_seconds"][0].as_py() == max(seconds, 1 / 16_000)


@pytest.mark.usefixtures("ray_session")
@pytest.mark.parametrize("readout", ["last", "both"])
def test_shards_give_the_vectors_of_the_frozen_encoder(
    readout: str, tmp_path: Path, encoder_uri: str, encoder: FrozenEncoder
):
    lengths = (3_000, 9_000, 20_000)
    write_source(tmp_path / "in", [[20, 15], [10]], lengths, splits=["train", "test"])
    config = EmbedConfig(
        encoder=encoder_uri, source=str(tmp_path / "in"), output=str(tmp_path / "out"), readout=readout
    )
    manifest = embed(config)
    assert manifest is not None and (manifest.num_clips, manifest.num_vectors, manifest.rejects) == (45, 45, {})
    assert len(manifest.parts) > 1
    rows = rows_of(manifest)
    assert [row["clip_id"] for row in rows] == list(range(45))
    for clip, row in enumerate(rows):
        wave = tone(clip, lengths[clip % 3])
        layers = {layer: vector.numpy() for layer, vector in encoder.layers(wave, RATE).items()}
        np.testing.assert_allclose(row["vector"], read_out(layers, "fc2", readout)[0], rtol=1e-4, atol=1e-5)
        assert row["key"] == f"clip-{clip}" and row["split"] == ("train" if clip < 35 else "test")
        assert (row["start_seconds"], row["end_seconds"]) == (0.0, len(wave) / RATE)
        assert (row["labels"], row["group"]) == ([str(clip % 8)], "")
        assert row["place"]["uri"] == f"0000{clip // 35}.parquet"
        ((_, audio),) = fetch(
            pa.Table.from_pylist([row["place"] | {"uri": from_source(row["place"]["uri"], config.source)}], ITEMS)
        )
        assert np.array_equal(read_flac(audio.read(), 0, len(wave)), wave)
    assert sorted(contents(tmp_path / "out")) == [MANIFEST, *(part.file for part in manifest.parts), REJECTS]
    description = json.loads((Path(encoder_uri) / "encoder.json").read_text())
    schema = pq.read_schema(tmp_path / "out" / manifest.parts[0].file)
    assert (
        schema.metadata[b"metric"].decode() == json.loads((tmp_path / "out" / MANIFEST).read_text())["metric"] == METRIC
    )
    assert schema.metadata[b"encoder_sha256"].decode() == description["sha256"]
    assert schema.metadata[b"readout"].decode() == readout
    assert schema.field("vector").type.list_size == manifest.dim == len(rows[0]["vector"])
    assert VectorManifest.load(str(tmp_path / "out")) == manifest
    test_only = config.replace(splits=("test",), output=str(tmp_path / "test"))
    assert [row["vector"] for row in rows_of(embed(test_only))] == [
        pytest.approx(row["vector"], rel=1e-4, abs=1e-5) for row in rows[35:]
    ]


@pytest.mark.usefixtures("ray_session")
def test_any_audio_slides_windows_over_its_pieces_and_sets_broken_files_aside(
    tmp_path: Path, encoder_uri: str, encoder: FrozenEncoder
):
    source = wav_folder(tmp_path / "in", [0.2, 0.5, 1.0, 1.3, 5.25], rate=22_050)
    (source / "broken.wav").write_bytes(b"RIFF and nothing more")
    (source / "half.wav").write_bytes((source / "004.wav").read_bytes()[:30])
    config = EmbedConfig(
        encoder=encoder_uri,
        source=str(source),
        output=str(tmp_path / "out"),
        window_seconds=0.5,
        hop_seconds=0.4,
        max_seconds=2.0,
    )
    manifest = embed(config)
    assert manifest is not None and manifest.num_clips == 5
    rejects = pq.read_table(tmp_path / "out" / REJECTS).to_pylist()
    assert [reject["key"] for reject in rejects] == ["broken.wav", "half.wav"]
    assert sum(manifest.rejects.values()) == 2
    found = {key: list(rows) for key, rows in groupby(rows_of(manifest), lambda row: row["key"])}
    assert list(found) == [f"{number:03d}.wav" for number in range(5)]
    for key, rows in found.items():
        with (source / key).open("rb") as file:
            pcm = np.concatenate(list(decode(file, RATE, 1 << 30)))
        times = [
            (first + start, first + stop)
            for first in range(0, len(pcm), 2 * RATE)
            for start, stop in windows(len(pcm[first : first + 2 * RATE]), 8_000, 6_400)
        ]
        assert [(row["start_seconds"] * RATE, row["end_seconds"] * RATE) for row in rows] == times
        for row, (start, stop) in zip(rows, times, strict=True):
            expected = encoder.embed(pcm[start:stop], RATE)[0]
            np.testing.assert_allclose(row["vector"], expected, rtol=1e-4, atol=1e-5)
            assert row["clip_id"] is None


@pytest.mark.usefixtures("ray_session")
def test_a_damaged_row_group_of_shards_is_set_aside(tmp_path: Path, encoder_uri: str):
    write_source(tmp_path / "in", [[20, 20]])
    shard = tmp_path / "in" / "00000.parquet"
    with shard.open("r+b") as file:
        file.seek(4)
        file.write(bytes(20_000))
    manifest = embed(EmbedConfig(encoder=encoder_uri, source=str(tmp_path / "in"), output=str(tmp_path / "out")))
    assert manifest is not None and manifest.rejects == {"unreadable": 20}
    assert [row["clip_id"] for row in rows_of(manifest)] == list(range(20, 40))


@pytest.mark.usefixtures("ray_session")
def test_interrupted_and_run_again_ends_with_the_same_bytes(
    tmp_path: Path, encoder_uri: str, monkeypatch: pytest.MonkeyPatch
):
    source = wav_folder(tmp_path / "in", [0.4] * 40)
    (source / "000.wav").write_bytes(b"")
    config = EmbedConfig(encoder=encoder_uri, source=str(source), output=str(tmp_path / "whole"), clips_per_part=10)
    whole = embed(config)
    assert whole is not None and len(whole.parts) == 4

    output = tmp_path / "resumed"
    config = config.replace(output=str(output))
    update = Progress.update

    def interrupt(self: Progress, done: int, **figures: float | str) -> None:
        update(self, done, **figures)
        if done >= 30:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Progress, "update", interrupt)
        with pytest.raises(KeyboardInterrupt):
            embed(config)
    assert not (output / MANIFEST).exists()
    finished = sorted(path.stem for path in (output / "_embed").glob("0*.json"))
    assert len(finished) >= 3
    kept, truncated, missing = (output / f"part-{number}.parquet" for number in finished[:3])
    untouched = kept.stat().st_mtime_ns
    truncated.write_bytes(truncated.read_bytes()[:-100])
    missing.unlink()
    with pytest.raises(ValueError, match=r"readout: last there, both asked for"):
        embed(config.replace(readout="both"))
    assert "parts finished before" in text_of(describe(check(config)))
    assert truncated.read_bytes() != (tmp_path / "whole" / truncated.name).read_bytes()  # a check repairs nothing
    manifest = embed(config)
    assert manifest is not None
    assert kept.stat().st_mtime_ns == untouched
    ours, theirs = contents(output), contents(tmp_path / "whole")
    assert ours.pop(MANIFEST) == theirs.pop(MANIFEST)
    assert ours == theirs


@pytest.mark.usefixtures("ray_session")
def test_a_finished_output_is_left_alone_or_refused(tmp_path: Path, encoder_uri: str):
    source = wav_folder(tmp_path / "in", [0.4] * 3)
    config = EmbedConfig(encoder=encoder_uri, source=str(source), output=str(tmp_path / "out"))
    manifest = embed(config)
    before = contents(tmp_path / "out")
    assert embed(config) == manifest
    assert "already finished" in text_of(describe(check(config)))
    with pytest.raises(ValueError, match=r"window_seconds: 0\.0 there, 0\.5 asked for"):
        embed(config.replace(window_seconds=0.5))
    other = str(tmp_path / "other")
    save_encoder(other, tiny_encoder(1), FRONT_END, CROP, -7.0, 4.0, {})
    with pytest.raises(ValueError, match=r"encoder_sha256: .* there, .* asked for"):
        embed(config.replace(encoder=other))
    soundfile.write(source / "more.wav", tone(9, 8_000), RATE)
    with pytest.raises(ValueError, match=r"the clips of .*in have changed since .*out was begun"):
        embed(config)
    shutil.rmtree(source)
    assert embed(config) == manifest  # the source is gone, its vectors are finished
    assert contents(tmp_path / "out") == before


@pytest.mark.usefixtures("ray_session")
def test_labels_and_groups_that_changed_are_no_finished_output(tmp_path: Path, encoder_uri: str):
    table = wav_folder(tmp_path / "in", [0.4] * 2) / "clips.csv"
    config = EmbedConfig(encoder=encoder_uri, source=str(table), output=str(tmp_path / "out"))
    table.write_text("path,label,group\n000.wav,dog,a\n001.wav,cat,b\n")
    embed(config)
    for changed in (
        "path,label,group\n000.wav,cat,a\n001.wav,dog,b\n",
        "path,label,group\n000.wav,dog,a\n001.wav,cat,a\n",
    ):
        table.write_text(changed)
        with pytest.raises(ValueError, match="have changed since"):
            embed(config)


def test_a_tar_that_was_packed_anew_is_another_source(tmp_path: Path):
    config = EmbedConfig(encoder="e", source=str(tmp_path / "in.tar"), output=str(tmp_path / "out"))

    def packed(names: list[str]) -> str:
        with tarfile.open(config.source, "w") as tar:
            for name in names:
                member = tarfile.TarInfo(name)
                member.size = 4
                tar.addfile(member, io.BytesIO(b"RIFF"))
        return plan_parts(config, RATE, IN_PROCESS).contents

    before = packed(["a.wav", "b.wav"])
    assert packed(["a.wav", "b.wav"]) == before
    assert packed(["notes.txt", "a.wav", "b.wav"]) != before  # the old places now hold other clips


def test_a_manifest_of_something_else_is_named_with_a_way_around_it(tmp_path: Path):
    source = wav_folder(tmp_path / "in", [0.4] * 2)
    (source / "manifest.json").write_text('{"station": 7}')
    config = EmbedConfig(encoder="e", source=str(source), output=str(tmp_path / "out"))
    with pytest.raises(ValueError, match=r"manifest\.json has .*name its files: --source '(.*)'") as refused:
        plan_parts(config, RATE, IN_PROCESS)
    around = config.replace(source=str(refused.value).split("'")[1])
    assert plan_parts(around, RATE, IN_PROCESS).num_clips == 2


@pytest.mark.usefixtures("ray_session")
def test_what_is_not_taken_of_a_source_is_said(tmp_path: Path, encoder_uri: str, caplog: pytest.LogCaptureFixture):
    table = wav_folder(tmp_path / "in", [0.4] * 2) / "clips.csv"
    table.write_text("path,label,mood\n000.wav,dog,glad\n001.wav,cat,sad\n")
    config = EmbedConfig(encoder=encoder_uri, source=str(table), output=str(tmp_path / "out"))
    planned = text_of(describe(check(config)))
    assert "columns ignored" in planned and "mood" in planned
    with caplog.at_level("INFO"):
        embed(config)
    assert "clips.csv: columns ignored: mood" in caplog.text


@pytest.mark.usefixtures("ray_session")
def test_columns_that_are_asked_for_are_taken_and_decide_the_output(tmp_path: Path, encoder_uri: str):
    table = wav_folder(tmp_path / "in", [0.4] * 2) / "clips.csv"
    table.write_text("path,label,mood\n000.wav,dog,glad\n001.wav,cat,sad\n")
    config = EmbedConfig(encoder=encoder_uri, source=str(table), output=str(tmp_path / "out"))
    by_name = embed(config)
    assert by_name is not None and "columns" not in by_name.settings  # as in outputs of older versions
    by_mood = config.replace({"columns.label": "mood"})
    with pytest.raises(ValueError, match=r"made with other settings .columns.label: nothing there, mood asked for"):
        embed(by_mood)
    moody = embed(by_mood.replace(output=str(tmp_path / "out 2")))
    assert moody is not None and [row["labels"] for row in rows_of(moody)] == [["glad"], ["sad"]]
    of_folders = config.replace({"columns.label": "folder", "source": str(tmp_path / "*.wav")})
    assert check(of_folders.replace(output=str(tmp_path / "out 3"))).job is not None
    write_source(tmp_path / "shards", [[4]])
    with pytest.raises(ValueError, match=r"columns=.*mood.* has no effect on the prepared source .*shards"):
        embed(by_mood.replace(source=str(tmp_path / "shards"), output=str(tmp_path / "out 4")))


@pytest.mark.usefixtures("ray_session")
def test_an_output_that_another_process_works_on_is_refused(tmp_path: Path, encoder_uri: str):
    source = wav_folder(tmp_path / "in", [0.4] * 3)
    config = EmbedConfig(encoder=encoder_uri, source=str(source), output=str(tmp_path / "out"))
    plan = check(config)
    with Lease(config.output, on_loss=lambda: None):
        for late in (lambda: check(config), lambda: run(plan)):  # before the source is listed, and after
            with pytest.raises(InUseError, match=rf"process {os.getpid()} on .* is working on {config.output}"):
                late()
        assert sorted(contents(tmp_path / "out")) == ["lease.json"]
    assert run(plan).num_clips == 3


@pytest.mark.usefixtures("ray_session")
def test_vectors_of_a_source_that_was_prepared_anew_are_refused(tmp_path: Path, encoder_uri: str):
    shards = tmp_path / "in"
    write_source(shards, [[4], [4]], splits=["train", "test"])
    config = EmbedConfig(encoder=encoder_uri, source=str(shards), output=str(tmp_path / "out"), splits=("train",))
    manifest = embed(config)
    shutil.rmtree(shards)
    write_source(shards, [[4], [5]], splits=["train", "test"])
    assert embed(config) == manifest  # only the other split has changed
    shutil.rmtree(shards)
    write_source(shards, [[5], [4]], splits=["train", "test"])
    with pytest.raises(ValueError, match=r"the clips of .*in have changed since .*out was begun"):
        embed(config)
    assert VectorManifest.load(config.output) == manifest


@pytest.mark.usefixtures("ray_session")
def test_vectors_of_splits_stay_when_the_source_is_gone(tmp_path: Path, encoder_uri: str):
    shards = tmp_path / "in"
    write_source(shards, [[4], [4]], splits=["train", "test"])
    config = EmbedConfig(encoder=encoder_uri, source=str(shards), output=str(tmp_path / "out"), splits=("train",))
    manifest = embed(config)
    shutil.rmtree(shards)
    assert embed(config) == manifest
    with pytest.raises(FileNotFoundError, match=r"source .*in: there is no such file or folder"):
        embed(config.replace(output=str(tmp_path / "out 2")))


@pytest.mark.usefixtures("ray_session")
def test_what_cannot_work_is_refused_and_leaves_no_manifest(tmp_path: Path, encoder_uri: str):
    shards = tmp_path / "shards"
    write_source(shards, [[4]])
    config = EmbedConfig(encoder=encoder_uri, source=str(shards), output=str(tmp_path / "out"))
    before = contents(shards)
    with pytest.raises(ValueError, match="prepared source"):
        embed(config.replace(output=str(shards)))
    assert contents(shards) == before
    (tmp_path / "run").mkdir()
    (tmp_path / "run/run.json").write_text("{}")
    with pytest.raises(ValueError, match=r"run holds run\.json: it is a run, .*Give another --output"):
        embed(config.replace(output=str(tmp_path / "run")))
    with pytest.raises(ValueError, match="gpus_per_task=1 must not exceed the cluster's 0 GPUs"):
        embed(config.replace(gpus_per_task=1.0))
    slow = str(tmp_path / "slow")
    save_encoder(slow, tiny_encoder(0), FRONT_END.replace(sample_rate=22_050), CROP, -7.0, 4.0, {})
    with pytest.raises(ValueError, match="is at 16000 Hz, the encoder at 22050 Hz"):
        embed(config.replace(encoder=slow))
    bad = tmp_path / "bad"
    bad.mkdir()
    (bad / "a.wav").write_bytes(b"no audio")
    with pytest.raises(ValueError, match="select clips of prepared sources"):
        embed(config.replace(source=str(bad), splits=("test",)))
    assert not (tmp_path / "out").exists()
    with pytest.raises(ValueError, match=r"none of the 1 clips of .* can be used \(1 wrong format\)"):
        embed(config.replace(source=str(bad)))
    assert sorted(contents(tmp_path / "out")) == ["part-00000.parquet", REJECTS]
    soundfile.write(bad / "a.wav", tone(0, 8_000), RATE)
    repaired = embed(config.replace(source=str(bad)))
    assert repaired is not None and repaired.num_vectors == 1


@pytest.mark.usefixtures("ray_session")
def test_an_object_store_gives_and_takes_the_same_vectors(object_store: str, tmp_path: Path, encoder_uri: str):
    source = wav_folder(tmp_path / "in", [0.4, 0.7, 0.5])
    remote = f"s3://bucket/embed{object_store}"
    for folder, name in ((source, "in"), (Path(encoder_uri), "encoder")):
        for path in folder.iterdir():
            storage.write_bytes(storage.join(remote, name, path.name), path.read_bytes())
    local = embed(EmbedConfig(encoder=encoder_uri, source=str(source), output=str(tmp_path / "out")))
    config = EmbedConfig(
        encoder=storage.join(remote, "encoder"), source=storage.join(remote, "in"), output=storage.join(remote, "out")
    )
    stored = embed(config)
    assert local is not None and stored is not None
    assert stored.parts == local.parts
    assert rows_of(stored) == rows_of(local)
    assert embed(config) == stored


@pytest.mark.usefixtures("ray_session")
def test_the_command_line_plans_and_embeds(
    tmp_path: Path, encoder_uri: str, command_line: Callable[..., Ended], caplog: pytest.LogCaptureFixture
):
    source, output = wav_folder(tmp_path / "in", [0.4] * 5), tmp_path / "out"
    paths = ["--encoder", encoder_uri, "--source", str(source), "--output", str(output)]
    ended = command_line("embed", *paths, "--print-config")
    assert ended.code == 0 and EmbedConfig.model_validate_json(ended.out).source == str(source)
    ended = command_line("embed", *paths, "--dry-run")
    assert ended.code == 0 and not output.exists()
    assert {"clips", "5", "parts", "1", "12"} <= set(ended.out.replace("│", " ").split())
    ended = command_line("embed", *paths, "--hop-seconds", "1")
    assert ended.code == 2 and "hop_seconds=1 has no effect" in ended.err
    ended = command_line("embed", "windows", *paths, "--window-seconds", "0.1", "--dry-run")
    assert ended.code == 0 and "megabytes an hour of audio" in ended.out
    assert "window_seconds=0.1 is less than the 0.3 s" in caplog.text
    ended = command_line("embed", *paths)
    assert ended.code == 0 and "5" in ended.out and VectorManifest.load(str(output)).num_vectors == 5
