"""Whole builds of a corpus of made-up recordings: equal bytes, kept tasks, dropped copies, held-out clips."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import soundfile

from corpus.build import build, imported, state_digest
from corpus.cli import main
from corpus.clips import Clip, Skip, Task
from corpus.packages import Packages, audio_files
from corpus.splits import Balanced, Given

PACKAGE, OTHER, THIRD = "klettres-data", "hydrogen-data", "qabcs-data"  # listed names, made-up contents
SPLIT = {"a": "train", "b": "train", "c": "valid", "d": "test"}


def sound(key: str, seconds: float = 0.5) -> np.ndarray:
    """Return a decaying chord, different for each key."""
    generator = np.random.default_rng(list(key.encode()))
    time = np.arange(int(seconds * 16000)) / 16000
    tones = [np.sin(2 * np.pi * hertz * time) for hertz in generator.uniform(100, 6000, 6)]
    hiss = 0.05 * generator.standard_normal(len(time))
    return (0.1 * (np.sum(tones, axis=0) + hiss) * np.exp(-time * generator.uniform(2, 12))).astype(np.float32)


def write_package(folder: Path, name: str, sounds: dict[str, np.ndarray], version: str = "1.0-1") -> None:
    """Write an unpacked package of WAV files."""
    (folder / name / "DEBIAN").mkdir(parents=True, exist_ok=True)
    (folder / name / "DEBIAN/control").write_text(f"Package: {name}\nVersion: {version}\nSection: sound\n")
    (folder / name / f"usr/share/doc/{name}").mkdir(parents=True, exist_ok=True)
    (folder / name / f"usr/share/doc/{name}/copyright").write_text(f"licence of {name}\n")
    for path, wave in sounds.items():
        file = folder / name / "usr/share/sounds" / f"{path}.wav"
        file.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(file, wave, 16000, subtype="FLOAT")


def named_clips(packages: Packages, package: str = PACKAGE) -> Iterator[Clip | Skip]:
    """Yield a clip of each file ``<label>/<group>-<anything>.wav``; the label ``x`` is skipped."""
    for path in audio_files(packages[package] / "usr/share/sounds"):
        group = path.stem.split("-")[0]
        if path.parent.name == "x":
            yield Skip("no clear class")
        else:
            key = f"{path.parent.name}/{path.stem}"
            yield Clip(path.parent.name, group, key, path, split=SPLIT.get(group, ""))


def other_clips(packages: Packages) -> Iterator[Clip | Skip]:
    """Yield the clips of the other package."""
    return named_clips(packages, OTHER)


LABELLED = Task("made", "made-up sounds", "a letter", (PACKAGE,), named_clips, Given())
UNLABELLED = Task("loose", "unlabelled", "a letter", (OTHER,), other_clips, None)


@pytest.fixture
def packages(tmp_path: Path) -> Path:
    """Folder of two packages; in the first, groups a to d have two sounds of each label."""
    names = [f"{label}/{group}-{number}" for label in ("low", "high") for group in "abcd" for number in "12"]
    write_package(tmp_path / "debs", PACKAGE, {name: sound(name) for name in names})
    write_package(tmp_path / "debs", OTHER, {f"any/e-{number}": sound(f"e{number}") for number in range(5)})
    return tmp_path / "debs"


def table(output: Path, task: str, split: str) -> list[dict[str, str]]:
    with (output / task / f"{split}.csv").open() as file:
        return list(csv.DictReader(file))


def names(output: Path, task: str, split: str) -> set[str]:
    """Return ``label/stem`` of the clips of a split."""
    paths = [Path(row["wav_path"]) for row in table(output, task, split)]
    return {f"{path.parent.name}/{path.stem.rsplit('-', 1)[0].split('-', 1)[1]}" for path in paths}


def listed(output: Path) -> list[str]:
    with (output / "pretrain.csv").open() as file:
        return [row["files"] for row in csv.DictReader(file)]


@pytest.mark.parametrize("processes", [1, pytest.param(2, marks=pytest.mark.slow)])  # processes start in seconds
def test_two_builds_are_equal_to_the_byte(processes: int, packages: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    files = [f"{label}/{group}-{number}" for label in ("low", "high") for group in "abcd" for number in "12"]
    write_package(packages, THIRD, {name: sound(f"third {name}") for name in files})
    third_clips = partial(named_clips, package=THIRD)
    even = Task("even", "made-up sounds", "a letter", (THIRD,), third_clips, Balanced((0.5, 0.25, 0.25)))
    tasks = [LABELLED, even, UNLABELLED]
    build(first, packages, tasks, processes=1)
    build(second, packages, list(reversed(tasks)), processes)
    written = sorted(path.relative_to(first) for path in first.rglob("*") if path.is_file())
    assert len(written) > 2 * 16 + 5
    assert written == sorted(path.relative_to(second) for path in second.rglob("*") if path.is_file())
    differing = {str(file) for file in written if (first / file).read_bytes() != (second / file).read_bytes()}
    assert differing <= {"README.md", "pretrain.csv", "stats.json"}  # these keep the order of the tasks
    assert sorted(listed(first)) == sorted(listed(second))


def test_the_clips_are_what_the_tables_say(packages: Path, tmp_path: Path) -> None:
    built = build(tmp_path / "out", packages, [LABELLED, UNLABELLED], processes=1)
    assert {split: len(table(tmp_path / "out", "made", split)) for split in ("train", "valid", "test")} == {
        "train": 8,
        "valid": 4,
        "test": 4,
    }
    for row in built["made"].rows:
        info = soundfile.info(tmp_path / "out" / row.wav_path)
        assert (info.samplerate, info.channels, info.subtype) == (16000, 1, "PCM_16")
        assert info.duration == pytest.approx(row.seconds)
    assert len(listed(tmp_path / "out")) == 8 + 5
    stats = json.loads((tmp_path / "out/stats.json").read_text())
    assert stats["pretraining"]["clips"] == 13
    assert stats["tasks"]["made"]["groups"] == {"train": 2, "valid": 1, "test": 1}
    assert (tmp_path / "out/licences/klettres-data.txt").read_text() == "licence of klettres-data\n"


def test_a_finished_task_is_kept_until_its_package_changes(packages: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    build(output, packages, [LABELLED], processes=1)
    before = {path: path.stat().st_mtime_ns for path in (output / "made").rglob("*.flac")}
    (output / ".build/made.part/made").mkdir(parents=True)  # left by a killed build
    build(output, packages, [LABELLED, UNLABELLED], processes=1)
    assert before == {path: path.stat().st_mtime_ns for path in (output / "made").rglob("*.flac")}
    write_package(packages, PACKAGE, {}, version="1.0-2")
    build(output, packages, [LABELLED], processes=1)
    assert before.keys() == set((output / "made").rglob("*.flac"))
    assert before != {path: path.stat().st_mtime_ns for path in (output / "made").rglob("*.flac")}


def test_a_finished_task_whose_folder_is_gone_is_built_again(packages: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    build(output, packages, [LABELLED], processes=1)
    before = {path: path.read_bytes() for path in (output / "made").rglob("*") if path.is_file()}
    shutil.rmtree(output / "made")
    build(output, packages, [LABELLED], processes=1)
    assert before == {path: path.read_bytes() for path in (output / "made").rglob("*") if path.is_file()}


def test_the_code_of_a_task_is_all_that_it_imports(packages: Path) -> None:
    assert {"corpus.tasks.inst", "corpus.midi", "corpus.near_copies"} <= imported(
        ["corpus.tasks.inst", "corpus.task_folder"]
    ).keys()
    assert "corpus.report" not in imported(["corpus.task_folder"])
    assert state_digest(LABELLED, Packages(packages)) != state_digest(replace(LABELLED, name="b"), Packages(packages))


COPIES: dict[str, tuple[dict[str, np.ndarray], set[str], dict[str, int]]] = {
    "equal": ({"low/a-3": sound("low/a-1")}, set(), {"exact copy": 1}),
    "at another level": ({"low/a-3": 0.3 * sound("low/a-1")}, set(), {"copy at another level": 1}),
    "two labels": ({"high/a-3": sound("low/a-1")}, {"low/a-1"}, {"one recording under two labels": 2}),
    "two labels, two levels": (
        {"high/a-3": 0.3 * sound("low/a-1")},
        {"low/a-1"},
        {"one recording under two labels": 2},
    ),
    "in test, shifted": (
        {"low/d-3": np.concatenate([1e-3 * sound("low/hiss")[:600], sound("low/a-1")])},
        {"low/a-1"},
        {"near-copy in another split": 1},
    ),
    "silent": ({"low/a-3": np.zeros(8000, np.float32)}, set(), {"shorter than 0.15 s": 1}),
    "no class": ({"x/a-3": sound("x")}, set(), {"no clear class": 1}),
}


@pytest.mark.parametrize("case", COPIES)
def test_copies_are_dropped(case: str, packages: Path, tmp_path: Path) -> None:
    added, lost, skipped = COPIES[case]
    write_package(packages, PACKAGE, added)
    built = build(tmp_path / "out", packages, [LABELLED], processes=1)["made"]
    assert built.skipped == skipped
    assert {"low/a-1", "low/a-2", "high/a-1", "high/a-2"} - lost <= names(tmp_path / "out", "made", "train")
    assert not lost & names(tmp_path / "out", "made", "train")
    files = {str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out/made").rglob("*.flac")}
    assert files == {row.wav_path for row in built.rows}


def test_nothing_held_out_is_in_pretraining(packages: Path, tmp_path: Path) -> None:
    loose = {
        "copy": sound("low/d-1"),
        "quieter": 0.2 * sound("low/c-1"),
        "noisy": sound("high/d-1") + 1e-3 * sound("noise"),
        "trained": sound("low/a-1"),
    }
    write_package(packages, OTHER, {f"any/e-{name}": wave for name, wave in loose.items()})
    build(tmp_path / "out", packages, [LABELLED, UNLABELLED], processes=1)
    kept = listed(tmp_path / "out")
    assert len(kept) == 8 + 5  # none of the four added loose ones
    left_out = json.loads((tmp_path / "out/stats.json").read_text())["pretraining"]["left out"]["loose"]
    assert sum(left_out.values()) == 4
    assert left_out["copy of another task's clip"] == 1


def held_source(packages: Packages) -> Iterator[Clip]:
    """Yield parts of the labelled task's files; that task holds out some of the files."""
    for path in audio_files(packages[PACKAGE] / "usr/share/sounds"):
        audio = partial(lambda path: soundfile.read(path, dtype="float32")[0][2000:6000], path)
        yield Clip("any", "g", f"{path.parent.name}-{path.stem}", audio, sources=(path,))


def test_a_part_of_a_held_out_recording_is_not_in_pretraining(packages: Path, tmp_path: Path) -> None:
    parts = Task("parts", "parts", "none", (PACKAGE,), held_source, None)
    build(tmp_path / "out", packages, [LABELLED, parts], processes=1)
    kept = [path for path in listed(tmp_path / "out") if path.startswith("parts/")]
    assert len(kept) == 8
    assert all("-a-" in path or "-b-" in path for path in kept)


def test_a_recording_that_another_task_holds_out_is_trained_on_by_none(packages: Path, tmp_path: Path) -> None:
    pairs = {("a-1", "a-2"): "train", ("b-1", "c-1"): "train", ("c-2", "c-2"): "valid", ("d-1", "d-2"): "test"}

    def joined(packages: Packages) -> Iterator[Clip]:
        """Yield clips of two files; a clip in train has a file that the first task holds out."""
        for names, split in pairs.items():
            paths = tuple(packages[PACKAGE] / f"usr/share/sounds/low/{name}.wav" for name in names)
            wave = np.concatenate([soundfile.read(path, dtype="float32")[0] for path in paths])
            yield Clip("one", names[0], names[0], wave, sources=paths, split=split)

    rows = Task("rows", "rows of two", "a row", (PACKAGE,), joined, Given())
    with pytest.raises(
        ValueError, match=r"^1 training clips .* rows/clips/one/b-1\S+ .* made/clips/low/low-c-1\S+ of valid"
    ):
        build(tmp_path / "out", packages, [LABELLED, rows], processes=1)
    assert not (tmp_path / "out/pretrain.csv").exists()
    assert build(tmp_path / "alone", packages, [rows], processes=1)


def wrong_split(packages: Packages) -> Iterator[Clip]:
    for number in range(8):
        yield Clip("one", "g", str(number), sound(str(number)), split=("train", "test")[number % 2])


def one_class(packages: Packages) -> Iterator[Clip]:
    for group, split in SPLIT.items():
        yield Clip("one", group, group, sound(group), split=split)
    yield Clip("two", "a", "two", sound("two"), split="train")


def same_key(packages: Packages) -> Iterator[Clip]:
    yield Clip("one", "a", "k", sound("1"))
    yield Clip("one", "a", "k", sound("2"))


@pytest.mark.parametrize(
    ("clips", "message"),
    [
        (wrong_split, r"task t: 'g' is in train and in test"),
        (one_class, r"task t: no clip of \['two'\] in valid"),
        (same_key, r"task t: two clips have the key 'k'"),
    ],
)
def test_a_task_that_cannot_be_judged_by_is_refused(
    clips: Callable[[Packages], Iterator[Clip | Skip]], message: str, packages: Path, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        build(tmp_path / "out", packages, [Task("t", "about", "group", (PACKAGE,), clips, Given())], processes=1)
    assert not (tmp_path / "out/t").exists()


def test_packages_without_a_licence_are_refused(packages: Path, tmp_path: Path) -> None:
    unlisted = replace(LABELLED, packages=("somebody-s-songs",))
    with pytest.raises(ValueError, match=r"without a licence.*somebody-s-songs"):
        build(tmp_path / "out", packages, [unlisted], processes=1)


def test_the_command_line_says_what_it_can(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    assert capsys.readouterr().out.count("  python -m corpus --output") == 2
    with pytest.raises(SystemExit, match="2"):
        main(["--output", str(tmp_path), "--tasks", "drum,singing"])
    assert "no task 'singing': there are" in capsys.readouterr().err


def test_a_program_that_fails_is_an_error_of_the_command_and_no_traceback(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fails(*_: object) -> None:
        raise RuntimeError("fluidsynth ended with code 1: no such font")

    monkeypatch.setattr("corpus.cli.build", fails)
    with pytest.raises(SystemExit, match="2"):
        main(["--output", str(tmp_path)])
    assert "error: fluidsynth ended with code 1: no such font" in capsys.readouterr().err
