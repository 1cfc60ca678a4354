"""The commands of the guide to own audio work one after the other, with toy recipes, on a few tones."""

from __future__ import annotations

import csv
import shutil
from importlib import import_module
from itertools import count
from pathlib import Path

import pyarrow.dataset
import pytest
import soundfile
from support.pages import blocks
from support.paths import ROOT
from support.sources import tone

import unfused_ray

CLASSES = ("robin", "wren", "crow")
SPLITS = {"train": 12, "valid": 3, "test": 4}


@pytest.fixture
def at_home(tmp_path: Path, tracking_uri: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder with the recordings that the guide starts from, and a tracking store that has its tables."""
    home = tmp_path / "unfused-ray"
    home.mkdir()
    shutil.copy(tracking_uri.removeprefix("sqlite:///"), home / "mlflow.db")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("UNFUSED_RAY_HOME", str(home))
    birds = tmp_path / "birds"
    birds.mkdir()
    seeds = count(start=0, step=8)  # one pitch a class, every clip different
    for split, clips in SPLITS.items():
        with (birds / f"{split}.csv").open("w", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(["files", "label", "group"])
            for label in CLASSES:
                for number in range(clips):
                    clip = f"{label}-{split}-{number}.wav"
                    soundfile.write(birds / clip, tone(CLASSES.index(label) + next(seeds), 6_000), 16_000)
                    rows.writerow([clip, label, f"{split}-{number}"])
    (tmp_path / "field-recordings").mkdir()
    for number in range(3):
        soundfile.write(tmp_path / "field-recordings" / f"{number}.wav", tone(number, 20_000), 16_000)
    return tmp_path


@pytest.mark.usefixtures("ray_session")
def test_the_guide_to_own_audio_goes_from_files_to_vectors(at_home: Path) -> None:
    for block in blocks("sh", [ROOT / "docs" / "guides" / "own-audio.md"]):
        for command, *arguments in block.commands(at_home) if block.runs else []:
            words = [block.replaced.get(word, word) for word in arguments]
            assert import_module(f"unfused_ray.cli.{command}").run(words) == 0, " ".join([command, *words])
    parts = sorted(map(str, (at_home / "vectors" / "field").glob("part-*.parquet")))
    vectors = pyarrow.dataset.dataset(parts).to_table()
    assert sorted(vectors["key"].to_pylist()) == ["0.wav", "1.wav", "2.wav"]
    assert (at_home / "unfused-ray" / "evaluations" / "evaluation" / "table.md").exists()
    assert (at_home / "report.html").stat().st_size > 100_000
    assert unfused_ray.load_student("~/runs/student-birds").embed(tone(0, 6_000), 16_000).shape[0] == 1
