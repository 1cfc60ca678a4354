"""The ingest, from any audio to a prepared source: contents, rejects, statistics, interruption, refusals, S3."""

from __future__ import annotations

import io
import os
import re
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
import torch
from support.archives import spoil, write_tar
from support.inputs import rows_by_key
from support.paths import contents
from support.terminal import text_of

from unfused_ray import cluster, lease, storage
from unfused_ray.api import prepare
from unfused_ray.audio.decode import decode, read_flac
from unfused_ray.audio.log_mel import LogMel
from unfused_ray.config import FrontEndConfig, PrepareConfig
from unfused_ray.data.parts.executor import InThisProcess
from unfused_ray.data.parts.ray_tasks import RayTasks
from unfused_ray.data.parts.rejects import REJECTS
from unfused_ray.data.shards.format import MANIFEST, Manifest
from unfused_ray.data.shards.index import ClipIndex
from unfused_ray.data.shards.ingest import check, describe, run
from unfused_ray.data.shards.statistics import compute_statistics
from unfused_ray.progress import Progress

pytestmark = pytest.mark.usefixtures("ray_session")

SUFFIXES = {"wav": "WAV", "flac": "FLAC", "ogg": "OGG", "opus": "OGG", "mp3": "MP3"}


def encoded(number: int, suffix: str = "wav", seconds: float = 0.2, rate: int = 22_050, channels: int = 2) -> bytes:
    """Encode a short burst of noise, different for each number."""
    rate = 48_000 if suffix == "opus" else rate
    wave = np.random.default_rng(number).normal(0, 0.1, (round(seconds * rate), channels))
    buffer = io.BytesIO()
    subtype = "OPUS" if suffix == "opus" else None
    soundfile.write(buffer, wave, rate, format=SUFFIXES[suffix], subtype=subtype)
    return buffer.getvalue()


def audio_folder(folder: Path, num_clips: int) -> Path:
    for number in range(num_clips):
        suffix = list(SUFFIXES)[number % len(SUFFIXES)]
        path = folder / f"speaker {number % 3}" / f"{number:03d}.{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(number, suffix))
    return folder


def test_every_format_becomes_16_khz_flac_with_exact_statistics(tmp_path: Path):
    source = audio_folder(tmp_path / "in", 40)
    manifest = prepare(PrepareConfig(source=str(source), output=str(tmp_path / "out"), clips_per_shard=16))
    rows = rows_by_key(manifest)
    front_end = FrontEndConfig()
    values = []
    for path in source.rglob("*.*"):
        row = rows.pop(str(path.relative_to(source)))
        pcm = read_flac(row["audio"], 0, row["num_samples"])
        (expected,) = decode(io.BytesIO(path.read_bytes()), 16_000, 160_000)
        assert np.array_equal(pcm, expected)
        values.append(LogMel(front_end)(torch.from_numpy(pcm)[None]).double().flatten())
    assert rows == {}
    statistics = manifest.statistics(front_end)
    assert statistics is not None
    assert statistics.count == torch.cat(values).numel()
    assert statistics.mean == pytest.approx(torch.cat(values).mean().item(), rel=1e-12)
    assert statistics.std == pytest.approx(torch.cat(values).std(correction=0).item(), rel=1e-12)
    assert Manifest.load(manifest.uri) == manifest
    assert [shard.num_clips for shard in manifest.shards] == [13, 13, 14]
    assert max(max(shard.row_groups) for shard in manifest.shards) <= 3  # so that a small source has many units
    for shard in manifest.shards:
        assert storage.sha256_file(storage.join(manifest.uri, shard.file)) == shard.sha256
        assert pq.ParquetFile(Path(manifest.uri) / shard.file).num_row_groups == len(shard.row_groups)
    assert sorted(path.name for path in Path(manifest.uri).iterdir()) == [
        "00000.parquet", "00001.parquet", "00002.parquet", MANIFEST, REJECTS,
    ]  # fmt: skip


def split_source(folder: Path, sizes: dict[str, int]) -> Path:
    """Write a folder with one CSV a split, and a different brief clip for each row."""
    folder.mkdir()
    first = 0
    for split, size in sizes.items():
        names = [f"{number:03d}.wav" for number in range(first, first + size)]
        for name in names:
            (folder / name).write_bytes(encoded(int(name[:3]), seconds=0.11, rate=8_000, channels=1))
        (folder / f"{split}.csv").write_text("\n".join(["wav_path,label", *(f"{name},{split}" for name in names)]))
        first += size
    return folder


def test_a_shard_holds_clips_of_one_split(tmp_path: Path):
    sizes = {"train": 150, "valid": 20, "test": 3}
    source = split_source(tmp_path / "in", sizes)
    manifest = prepare(PrepareConfig(source=str(source), output=str(tmp_path / "out")))
    assert manifest is not None and manifest.clips_by_split == sizes
    for shard in manifest.shards:
        rows = pq.read_table(tmp_path / "out" / shard.file).to_pylist()
        assert {row["split"] for row in rows} == {shard.split}
        assert {row["labels"][0] for row in rows} == {shard.split}
        assert shard.num_clips == len(rows)
        assert shard.seconds == pytest.approx(0.11 * len(rows), rel=0.01)
    index = ClipIndex([manifest], ["train"])
    assert len(index.units) >= 16 and index.num_clips == 150
    keys = [f"{number:03d}.wav" for number in range(150)]
    assert sorted(index.column("key")) == keys != index.column("key")  # rows are in random order


def test_a_check_tells_and_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    source = split_source(tmp_path / "in", {"train": 30, "test": 10})
    (source / "train.csv").write_text((source / "train.csv").read_text().replace("000.wav,train", "000.wav,"))
    config = PrepareConfig(source=str(source), output=str(tmp_path / "out"), clips_per_shard=8)
    told = text_of(describe(check(config))).split()
    assert not (tmp_path / "out").exists()
    assert {"train", "30", "(29", "test", "10", "(10"} <= set(told)

    def interrupt(self: Progress, done: int, **figures: float | str) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Progress, "update", interrupt)
        with pytest.raises(KeyboardInterrupt):
            prepare(config)
    begun = contents(tmp_path / "out/_ingest")
    told_again = text_of(describe(check(config)))
    finished = len(list((tmp_path / "out/_ingest").glob("0*.json")))
    assert re.findall(r"shards finished before\W+(\d+)", told_again) == [str(finished)]
    assert begun.items() <= contents(tmp_path / "out/_ingest").items()
    with pytest.raises(ValueError, match="seed: 31 there, 32 asked for"):
        check(config.replace(seed=32))
    manifest = prepare(config)
    assert check(config).finished == manifest


def test_bad_files_are_set_aside_with_their_reason(tmp_path: Path):
    source = audio_folder(tmp_path / "in", 5)
    bad = {
        "cut.flac": ("unreadable", encoded(0, "flac")[:3000]),
        "html.mp3": ("wrong format", b"<html>404</html>" * 99),
        "nothing.wav": ("empty", b""),
        "nan.wav": ("not finite", None),
        "silent.flac": ("silent", None),
        "short.wav": ("too short", encoded(0, seconds=0.05)),
    }
    for name, (_, data) in bad.items():
        (source / name).write_bytes(data or b"")
    soundfile.write(source / "nan.wav", np.full(9000, np.nan), 16_000, subtype="FLOAT")
    soundfile.write(source / "silent.flac", np.zeros(9000), 16_000)
    names = ["missing.wav", *(str(path.relative_to(source)) for path in source.rglob("*.*"))]
    (source / "all.csv").write_text("\n".join(["files", *names]))
    manifest = prepare(PrepareConfig(source=str(source / "all.csv"), output=str(tmp_path / "out")))
    rejects = {row["key"]: row for row in pq.read_table(tmp_path / "out" / REJECTS).to_pylist()}
    assert {key: row["reason"] for key, row in rejects.items()} == {
        "missing.wav": "missing",
        **{name: reason for name, (reason, _) in bad.items()},
    }
    assert all(row["detail"] for row in rejects.values())
    assert manifest.rejects == Counter(row["reason"] for row in rejects.values())
    assert manifest.num_clips == 5


@pytest.mark.parametrize("long_clips", ["split", "truncate"])
def test_long_clips_are_split_or_truncated(tmp_path: Path, long_clips: str):
    pcm = np.random.default_rng(0).integers(-9000, 9000, 16_000 * 25 // 10).astype(np.int16)
    soundfile.write(tmp_path / "long.wav", pcm, 16_000)
    soundfile.write(tmp_path / "brief.wav", pcm[:8_000], 16_000)
    config = PrepareConfig(source=str(tmp_path), output=str(tmp_path / "out"), max_seconds=1, long_clips=long_clips)
    rows = rows_by_key(prepare(config))
    pieces = {"long.wav": pcm[:16_000]}
    if long_clips == "split":
        pieces |= {"long.wav@1": pcm[16_000:32_000], "long.wav@2": pcm[32_000:]}
    assert rows.keys() == {*pieces, "brief.wav"}
    for key, expected in pieces.items():
        assert np.array_equal(read_flac(rows[key]["audio"], 0, rows[key]["num_samples"]), expected)
        assert rows[key]["group"] == ("long.wav" if long_clips == "split" else "")  # one split for all
    assert rows["brief.wav"]["group"] == ""


def test_tar_and_hub_parquet_give_the_same_clips_as_their_files(tmp_path: Path):
    clips = {f"k_{number}.000": encoded(number, "flac") for number in range(30)}
    members = {}
    for key, data in clips.items():
        members |= {f"{key}.flac": data, f"{key}.json": f'{{"label": "{key[2]}"}}'.encode()}
    items = list(members.items())
    write_tar(tmp_path / "a-0.tar", dict(items[:20]))
    write_tar(tmp_path / "a-1.tar", dict(items[20:]))
    audio = [{"bytes": data, "path": None} for data in clips.values()]
    hub = pa.table({"id": list(clips), "audio": audio, "label": [key[2] for key in clips]})
    pq.write_table(hub, tmp_path / "hub.parquet", row_group_size=7)
    (tmp_path / "files").mkdir()
    for key, data in clips.items():
        (tmp_path / "files" / f"{key}.flac").write_bytes(data)
    listed = {}
    for name in ("*.tar", "hub.parquet", "files"):
        config = PrepareConfig(source=str(tmp_path / name), output=str(tmp_path / f"out {name[0]}"), clips_per_shard=8)
        rows = rows_by_key(prepare(config))
        listed[name] = {key.removesuffix(".flac"): (row["audio"], row["labels"]) for key, row in rows.items()}
    assert listed["*.tar"] == listed["hub.parquet"]
    assert {key: audio for key, (audio, _) in listed["*.tar"].items()} == {
        key: audio for key, (audio, _) in listed["files"].items()
    }
    assert listed["*.tar"]["k_7.000"][1] == ["7"]


def test_interrupted_and_run_again_ends_with_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    source = audio_folder(tmp_path / "in", 64)
    (source / "bad.wav").write_bytes(b"bad")
    config = PrepareConfig(source=str(source), output=str(tmp_path / "whole"), clips_per_shard=8)
    prepare(config)
    output = tmp_path / "resumed"
    config = config.replace(output=str(output))
    update = Progress.update

    def interrupt(self: Progress, done: int, **figures: float | str) -> None:
        update(self, done, **figures)
        if done >= 24:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Progress, "update", interrupt)
        with pytest.raises(KeyboardInterrupt):
            prepare(config)
    assert not (output / MANIFEST).exists()
    with pytest.raises(FileNotFoundError, match="has not finished"):
        Manifest.load(str(output))
    finished = sorted(path.stem for path in (output / "_ingest").glob("0*.json"))
    assert len(finished) >= 3
    kept, damaged = output / f"{finished[0]}.parquet", output / f"{finished[1]}.parquet"
    untouched = kept.stat().st_mtime_ns
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"?")

    def write_late(self: Progress, done: int, **figures: float | str) -> None:
        update(self, done, **figures)
        (output / f".{kept.name}.{'0' * 32}.tmp").write_bytes(b"of a killed task, not yet gone")

    with monkeypatch.context() as patched:
        patched.setattr(Progress, "update", write_late)
        prepare(config)
    assert kept.stat().st_mtime_ns == untouched
    assert contents(output) == contents(tmp_path / "whole")


def test_a_finished_output_is_left_alone_or_refused(tmp_path: Path):
    source = audio_folder(tmp_path / "in", 6)
    config = PrepareConfig(source=str(source), output=str(tmp_path / "out"))
    manifest = prepare(config)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}
    assert prepare(config) == manifest
    (source / "more.wav").write_bytes(encoded(9))
    with pytest.raises(
        ValueError,
        match=r"the clips of .*in have changed since .*out was begun, or this version lists them in .*as it is",
    ):
        prepare(config)
    shutil.rmtree(source)
    assert prepare(config) == manifest  # the source is gone, the output is finished
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()} == before
    with pytest.raises(ValueError, match=r"made with other settings \(fraction: 1\.0 there, 0\.5 asked for\)"):
        prepare(config.replace(fraction=0.5))


def test_a_finished_output_stays_when_all_that_its_pattern_matched_is_gone(tmp_path: Path):
    source = audio_folder(tmp_path / "in", 3)
    config = PrepareConfig(source=f"{source}/*.wav", output=str(tmp_path / "out"))
    manifest = prepare(config)
    shutil.rmtree(source)
    assert prepare(config) == manifest
    source.mkdir()
    assert prepare(config) == manifest


@pytest.mark.parametrize("pattern", ["", "/*"])
def test_an_output_in_its_source_is_no_part_of_it(pattern: str, tmp_path: Path):
    source = audio_folder(tmp_path / "in", 6)
    config = PrepareConfig(source=f"{source}{pattern}", output=str(source / "shards"), preview=True)
    manifest = prepare(config)
    assert manifest.num_clips == 6 and list((source / "shards/preview").glob("*.wav"))
    assert prepare(config) == manifest
    (source / "shards" / MANIFEST).unlink()  # as after an interruption
    assert prepare(config).shards == manifest.shards


def test_an_output_in_the_folder_of_its_pattern_is_prepared_once(tmp_path: Path):
    source = audio_folder(tmp_path / "in", 6)
    config = PrepareConfig(source=f"{source}/*.wav", output=str(source), preview=True)
    count = len(list(source.rglob("*.wav")))
    manifest = prepare(config)
    assert manifest.num_clips == count and list((source / "preview").glob("*.wav"))
    assert prepare(config) == manifest


def test_a_finished_output_in_its_sources_own_folder_is_already_prepared(tmp_path: Path):
    """Older versions allowed such outputs."""
    source = audio_folder(tmp_path / "in", 3)
    config = PrepareConfig(source=str(source), output=str(tmp_path / "out"))
    manifest = prepare(config)
    for path in (tmp_path / "out").iterdir():
        path.rename(source / path.name)
    config = config.replace(output=str(source))
    assert prepare(config).shards == manifest.shards
    (source / "more.wav").write_bytes(encoded(9))
    with pytest.raises(ValueError, match="the clips of"):
        prepare(config)


def test_an_output_that_another_process_works_on_is_refused(tmp_path: Path):
    source = audio_folder(tmp_path / "in", 2)
    config = PrepareConfig(source=str(source), output=str(tmp_path / "out"))
    plan = check(config)
    with lease.Lease(config.output, on_loss=lambda: None):
        for late in (lambda: check(config), lambda: run(plan)):  # before the source is listed, and after
            with pytest.raises(lease.InUseError, match=rf"process {os.getpid()} on .* is working on {config.output}"):
                late()
        assert [path.name for path in (tmp_path / "out").iterdir()] == ["lease.json"]
    assert run(plan) == run(check(config))


def test_an_output_that_cannot_be_written_ends_the_ingest(tmp_path: Path):
    source = audio_folder(tmp_path / "in", 2)
    (tmp_path / "out/00000.parquet").mkdir(parents=True)
    with pytest.raises(OSError, match=r"cannot write .*out/00000\.parquet: .*directory"):
        prepare(PrepareConfig(source=str(source), output=str(tmp_path / "out")))
    assert not (tmp_path / "out" / MANIFEST).exists()


def test_paths_of_one_machine_are_refused_on_several_nodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Each node would write its shards to its own disk."""
    source = audio_folder(tmp_path / "in", 2)
    monkeypatch.setattr(cluster, "several_nodes", lambda: "2 nodes")
    with pytest.raises(ValueError, match=rf"source={source} is a path of one machine, but the cluster has 2 nodes"):
        prepare(PrepareConfig(source=str(source), output=str(tmp_path / "out")))
    assert not (tmp_path / "out").exists()


def test_an_unfinished_output_takes_no_other_source_or_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    source = audio_folder(tmp_path / "in", 6)
    config = PrepareConfig(source=str(source), output=str(tmp_path / "out"))
    with monkeypatch.context() as patched:
        patched.setattr(Progress, "update", lambda *args, **figures: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            prepare(config)
    with pytest.raises(ValueError, match="seed: 31 there, 32 asked for"):
        prepare(config.replace(seed=32))
    (source / "new.wav").write_bytes(encoded(99))
    with pytest.raises(ValueError, match=r"have changed since .*, or this version lists them .*: delete") as raised:
        prepare(config)
    assert "as it is" not in str(raised.value)


@pytest.mark.parametrize("mark", ["run.json", "_embed/plan.json", "index.json"])
def test_the_folder_of_another_job_is_no_output(mark: str, tmp_path: Path):
    theirs = tmp_path / "out" / mark
    theirs.parent.mkdir(parents=True)
    theirs.write_text("{}")
    with pytest.raises(ValueError, match=rf"out holds {re.escape(mark)}: it is .*Give another --output"):
        check(PrepareConfig(source=str(audio_folder(tmp_path / "in", 2)), output=str(tmp_path / "out")))


def test_bad_input_is_one_error_and_no_manifest(tmp_path: Path):
    audio_folder(tmp_path / "in", 2)
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad/a.wav").write_bytes(b"no audio")
    (tmp_path / "columns.csv").write_text("where\na.wav\n")
    pq.write_table(pa.table({"text": ["a"]}), tmp_path / "text.parquet")
    (tmp_path / "cut.parquet").write_bytes(b"PAR1")
    cases: list[tuple[dict, type[Exception], str]] = [
        ({"source": ""}, ValueError, "source='' names nothing"),
        ({"source": "nowhere"}, FileNotFoundError, "nowhere"),
        ({"source": "bad"}, ValueError, r"none of the 1 clips .* can be used \(1 wrong format\)"),
        ({"source": "columns.csv"}, ValueError, "columns where: its first line must name columns"),
        ({"source": "cut.parquet"}, ValueError, r"holds no clips \(1 unreadable\); cut.parquet: Parquet"),
        ({"source": "text.parquet"}, ValueError, r"columns text, of which 0 hold bytes"),
        ({"source": "in", "fraction": 1e-9}, ValueError, "fraction=1e-09 selects none of the 2 clips"),
    ]
    for changes, error, message in cases:
        source = str(tmp_path / changes["source"]) if changes["source"] else ""
        config = PrepareConfig(**{**changes, "source": source, "output": str(tmp_path / "out")})
        with pytest.raises(error, match=message):
            prepare(config)
        assert not (tmp_path / "out" / MANIFEST).exists()
        shutil.rmtree(tmp_path / "out", ignore_errors=True)


@pytest.mark.parametrize("struct", [True, False])
def test_damaged_parquet_files_and_row_groups_are_set_aside_and_the_rest_is_used(tmp_path: Path, struct: bool):
    clips = {f"k{number}": encoded(number, "flac") for number in range(12)}
    audio = [{"bytes": data, "path": None} if struct else data for data in clips.values()]
    source = tmp_path / "in"
    source.mkdir()
    pq.write_table(pa.table({"id": list(clips), "audio": audio}), source / "x.parquet", row_group_size=4)
    (source / "cut.parquet").write_bytes((source / "x.parquet").read_bytes()[:-9])
    (source / "empty.parquet").write_bytes(b"")
    spoil(source / "x.parquet", 1, "audio.bytes" if struct else "audio")
    manifest = prepare(PrepareConfig(source=str(source), output=str(tmp_path / "out")))
    assert manifest is not None
    assert rows_by_key(manifest).keys() == {"k0", "k1", "k2", "k3", "k8", "k9", "k10", "k11"}
    assert manifest.rejects == {"unreadable": 6}
    rejects = {row["key"]: row["detail"] for row in pq.read_table(tmp_path / "out" / REJECTS).to_pylist()}
    assert rejects.keys() == {"cut.parquet", "empty.parquet", "k4", "k5", "k6", "k7"}
    assert "row group 1 of" in rejects["k4"]


def test_files_that_were_all_rejected_are_looked_at_again_once_repaired(tmp_path: Path):
    (tmp_path / "in").mkdir()
    for number in range(2):
        (tmp_path / f"in/{number}.wav").write_bytes(b"")
    config = PrepareConfig(source=str(tmp_path / "in"), output=str(tmp_path / "out"))
    with pytest.raises(ValueError, match=r"none of the 2 clips .* can be used \(2 empty\)"):
        prepare(config)
    for number in range(2):
        (tmp_path / f"in/{number}.wav").write_bytes(encoded(number))
    manifest = prepare(config)
    assert manifest is not None and manifest.num_clips == 2 and manifest.rejects == {}
    assert pq.read_table(tmp_path / "out" / REJECTS).num_rows == 0


def test_an_object_store_gives_and_takes_the_same_bytes(tmp_path: Path, object_store: str):
    source = audio_folder(tmp_path / "in", 12)
    write_tar(tmp_path / "clips.tar", {f"{number}.wav": encoded(number) for number in range(9)})
    remote = f"s3://bucket/{tmp_path.name}{object_store}"
    for path in source.rglob("*.*"):
        storage.write_bytes(storage.join(remote, "in", str(path.relative_to(source))), path.read_bytes())
    storage.write_bytes(storage.join(remote, "clips.tar"), (tmp_path / "clips.tar").read_bytes())
    for name in ("in", "clips.tar"):
        local = prepare(PrepareConfig(source=str(tmp_path / name), output=str(tmp_path / f"out {name}")))
        output = storage.join(remote, f"out {name}")
        there = prepare(PrepareConfig(source=storage.join(remote, name), output=output))
        assert there.shards == local.shards
        assert Manifest.load(output) == there
        for file in (*(shard.file for shard in local.shards), REJECTS):
            assert storage.read_bytes(storage.join(output, file)) == (tmp_path / f"out {name}" / file).read_bytes()


def test_statistics_of_another_front_end_are_computed_once_a_shard(tmp_path: Path):
    source = split_source(tmp_path / "in", {"train": 20, "valid": 6})
    manifest = prepare(PrepareConfig(source=str(source), output=str(tmp_path / "out")))
    other = FrontEndConfig(num_mels=32, floor=1e-6)
    assert ClipIndex([manifest]).statistics(other) is None
    values = {"train": [], "valid": []}
    for row in rows_by_key(manifest).values():
        pcm = torch.from_numpy(read_flac(row["audio"], 0, row["num_samples"]))
        values[row["split"]].append(LogMel(other)(pcm[None]).double().flatten())
    for splits, executor in ((["valid"], InThisProcess()), (["train", "valid"], RayTasks())):
        computed = compute_statistics(Manifest.load(manifest.uri).select(splits), other, executor)
        expected = torch.cat([clip for split in splits for clip in values[split]])
        assert computed.count == len(expected)
        assert computed.mean == pytest.approx(expected.mean().item(), rel=1e-12)
        again = Manifest.load(manifest.uri)
        assert ClipIndex([again], splits).statistics(other) == computed
        assert (again.statistics(other) is None) == (splits == ["valid"])
    assert again.checksum == manifest.checksum
    assert compute_statistics(again, other, None) == computed
    with pytest.raises(ValueError, match=r"is at 16000 Hz, front_end\.sample_rate at 8000 Hz"):
        compute_statistics(manifest, FrontEndConfig(sample_rate=8_000, f_max=4_000), InThisProcess())


def test_preview_shows_clips_and_views(tmp_path: Path):
    source = audio_folder(tmp_path / "in", 3)
    soundfile.write(source / "$a^^$ long.wav", np.random.default_rng(0).normal(0, 0.1, 40_000), 16_000)
    config = PrepareConfig(source=str(source), output=str(tmp_path / "out"), preview=True)
    prepare(config)
    preview = tmp_path / "out" / "preview"
    assert sorted(path.name for path in preview.iterdir()) == ["00.wav", "01.wav", "02.wav", "03.wav", "views.png"]
    assert (preview / "views.png").read_bytes().startswith(b"\x89PNG")
    lengths = sorted(soundfile.info(preview / f"{number:02d}.wav").frames for number in range(4))
    assert lengths[-1] == 40_000
    prepare(config.replace(preview=False))  # a preview does not make another output
