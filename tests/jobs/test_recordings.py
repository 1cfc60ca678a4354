"""The embedded recordings are as their README says; their builder is deterministic and refuses bad input."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
import subprocess
import sys
import tarfile
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
from support.paths import RECORDINGS

TASKS = ("drums", "languages")
SPLITS = ("train", "valid", "test")


@dataclass(frozen=True)
class Clip:
    task: str
    key: str
    about: dict[str, str]
    samples: np.ndarray
    sample_rate: int


def read_members(path: Path) -> dict[str, bytes]:
    with tarfile.open(path) as tar:
        return {member.name: tar.extractfile(member).read() for member in tar}


@pytest.fixture(scope="module")
def clips() -> list[Clip]:
    found = []
    for task in TASKS:
        members = read_members(RECORDINGS / f"{task}.tar")
        keys = {name.split(".")[0] for name in members}
        assert sorted(members) == sorted(f"{key}.{extension}" for key in keys for extension in ("json", "ogg"))
        for key in sorted(keys):
            samples, sample_rate = sf.read(io.BytesIO(members[f"{key}.ogg"]), dtype="int16")
            found.append(Clip(task, key, json.loads(members[f"{key}.json"]), samples, sample_rate))
    return found


@pytest.fixture(scope="module")
def readme() -> str:
    return (RECORDINGS / "README.md").read_text(encoding="utf-8")


def test_small_enough_to_embed_and_large_enough_to_learn_from(clips):
    assert sum(path.stat().st_size for path in RECORDINGS.rglob("*") if path.is_file()) <= 10_000_000
    assert sum(clip.about["split"] == "train" for clip in clips) >= 1000
    for task in TASKS:
        assert sum(clip.task == task and clip.about["split"] == "test" for clip in clips) >= 140


def test_every_clip_decodes_to_sound(clips):
    for clip in clips:
        assert clip.sample_rate == 16_000 and clip.samples.ndim == 1, clip.key
        assert 0.1 <= len(clip.samples) / clip.sample_rate <= 2.0, clip.key
        assert np.abs(clip.samples.astype(int)).max() > 100, clip.key


def test_counts_are_those_of_the_readme(clips, readme):
    for task in TASKS:
        counts = Counter((clip.about["label"], clip.about["split"]) for clip in clips if clip.task == task)
        table = readme.split(f"| {task} | train | valid | test |\n")[1].split("\n\n")[0]
        rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[1:]]
        said = {(label, split): int(n) for label, *cells in rows for split, n in zip(SPLITS, cells, strict=True)}
        totals = {split: said.pop(("all", split)) for split in SPLITS}
        assert said == counts
        assert totals == Counter(clip.about["split"] for clip in clips if clip.task == task)
    assert f"{len(clips):,} clips" in readme


def test_splits_share_no_group_and_no_audio(clips):
    splits_of_group, splits_of_audio = defaultdict(set), defaultdict(set)
    for clip in clips:
        splits_of_group[clip.task, clip.about["group"]].add(clip.about["split"])
        splits_of_audio[hashlib.sha256(clip.samples.tobytes()).hexdigest()].add((clip.about["split"], clip.key))
    assert all(len(splits) == 1 for splits in splits_of_group.values())
    assert all(len(copies) == 1 for copies in splits_of_audio.values())


def test_every_class_is_in_every_split(clips):
    for task in TASKS:
        labels = {
            split: {clip.about["label"] for clip in clips if clip.task == task and clip.about["split"] == split}
            for split in SPLITS
        }
        assert labels["train"] == labels["valid"] == labels["test"]


def test_licence_of_every_clip_is_named_and_its_text_is_there(clips, readme):
    licence_of_source = {}
    for source, licence, text in re.findall(r"^\| (\S[^|]*) \| [^|]+ \| \[([^\]]+)\]\(([^)]+)\)", readme, re.MULTILINE):
        assert (RECORDINGS / text).is_file(), text
        licence_of_source[source] = licence
    assert {clip.about["source"]: clip.about["licence"] for clip in clips} == licence_of_source
    assert len({(clip.about["source"], clip.about["licence"]) for clip in clips}) == len(licence_of_source)


DRUM_GROUPS = {"train": "BJA_Pacific", "valid": "ForzeeStereo", "test": "circAfrique v4"}
SUFFIX = {"drum": "", "lid": "-desc-ca-ogg-012345"}


def write_corpus(folder: Path, language_groups: dict[str, str]) -> None:
    """Write a corpus of one drum clip and one spoken clip a split, each a tone of another pitch."""
    pitch = 200
    for task, label, groups in (("drum", "tom", DRUM_GROUPS), ("lid", "ca", language_groups)):
        (folder / task).mkdir(parents=True)
        for split, group in groups.items():
            wav_path, pitch = f"{task}/{split}-clip{SUFFIX[task]}.flac", pitch + 50
            sf.write(folder / wav_path, 0.5 * np.sin(2 * np.pi * pitch * np.arange(4000) / 16_000), 16_000)
            with (folder / task / f"{split}.csv").open("w", newline="") as file:
                csv.writer(file).writerows([("wav_path", "label", "group"), (wav_path, label, group)])


def build(corpus: Path, out: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(RECORDINGS / "build.py"), "--corpus", str(corpus), "--out", str(out)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_building_twice_gives_the_same_bytes_and_the_same_sound(tmp_path):
    write_corpus(tmp_path / "corpus", {"train": "crow", "valid": "owl", "test": "hen"})
    for out in ("first", "second"):
        run = build(tmp_path / "corpus", tmp_path / out)
        assert run.returncode == 0, run.stderr
    for task, corpus_task in (("drums", "drum"), ("languages", "lid")):
        tar = tmp_path / "first" / f"{task}.tar"
        assert tar.read_bytes() == (tmp_path / "second" / f"{task}.tar").read_bytes()
        for split in SPLITS:
            decoded, sample_rate = sf.read(io.BytesIO(read_members(tar)[f"{split}-clip{SUFFIX[corpus_task]}.ogg"]))
            original, _ = sf.read(tmp_path / "corpus" / corpus_task / f"{split}-clip{SUFFIX[corpus_task]}.flac")
            assert sample_rate == 16_000 and len(decoded) == len(original)
            assert np.corrcoef(decoded, original)[0, 1] > 0.99


def test_a_group_in_two_splits_is_refused_and_nothing_is_written(tmp_path):
    write_corpus(tmp_path / "corpus", {"train": "crow", "valid": "owl", "test": "crow"})
    run = build(tmp_path / "corpus", tmp_path / "out")
    assert run.returncode != 0
    assert "'crow'" in run.stderr and "train" in run.stderr and "test" in run.stderr
    assert not (tmp_path / "out").exists()


def test_a_folder_that_is_no_corpus_is_refused(tmp_path):
    run = build(tmp_path, tmp_path / "out")
    assert run.returncode != 0
    assert "drum/train.csv" in run.stderr
