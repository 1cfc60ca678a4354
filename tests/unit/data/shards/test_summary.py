"""An ingest reports labels by split, refuses clips that could be test clips, and counts recordings in two splits."""

from __future__ import annotations

import json
import logging
import unicodedata
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import soundfile
from support.inputs import encoded, hub_cells, prepared, write_clips, write_hub, write_list
from support.terminal import text_of

from unfused_ray.config import LapeTaskCode, PrepareConfig
from unfused_ray.data.shards import ingest, shared
from unfused_ray.data.shards.format import MANIFEST, Manifest
from unfused_ray.data.shards.index import ClipIndex, Unit, read_unit
from unfused_ray.data.shards.summary import crossing_groups

pytestmark = pytest.mark.usefixtures("in_process")


def told(source: Path, output: Path, **settings: object) -> str:
    """Return the text of a dry run, on one line."""
    config = PrepareConfig(source=str(source), output=str(output), **settings)
    return " ".join(text_of(ingest.describe(ingest.check(config))).replace("│", " ").split())


def messy(folder: Path) -> Path:
    """Write a folder with a list, and with files that the list does not name."""
    write_clips(folder, "a.wav", "b.wav", "c.wav", "d.wav", "unlisted.wav", "._a.wav")
    rows = ["a.wav,dog,training,1", "b.wav,dog;cat,train,2", "c.wav,dog,VAL,3", "d.wav,cow,test,4"]
    write_list(folder / "list.csv", ["Path,Label,Split,quality", *rows])
    return folder


def test_a_dry_run_and_the_summary_tell_what_was_taken_and_left(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    source = messy(tmp_path / "in")
    dry = told(source, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with caplog.at_level(logging.WARNING):
        manifest = prepared(source, tmp_path / "out")
    done = " ".join(text_of(ingest.describe_manifest(manifest)).replace("│", " ").split())
    for text in (dry, done):
        assert "clips of split train 2" in text and "labels of train dog 2, cat 1" in text
        assert "clips of split valid 1" in text and "labels of valid dog 1" in text
        assert "labels of test cow 1" in text
        assert "path ← Path, label ← Label, split ← Split" in text
        assert "columns ignored quality" in text
        assert "training → train (1 clip), VAL → valid (1 clip)" in text
        assert "skipped on purpose ._* of macOS (1 file)" in text
        assert "set aside: unlisted 1" in text
        assert "! test has labels that train lacks: cow; train has cat, dog" in text
    assert "each of these clips rejects.parquet" in done
    assert "test has labels that train lacks: cow" in caplog.text
    assert Manifest.load(manifest.uri) == manifest
    again = text_of(ingest.describe(ingest.check(PrepareConfig(source=str(source), output=manifest.uri))))
    assert "nothing to do" in again and "labels of train" in again


def test_labels_that_are_one_number_are_said(tmp_path: Path):
    write_clips(tmp_path / "in", "a.wav", "b.wav", "c.wav")
    rows = ["path,label,split", "a.wav,1,train", "b.wav,2,train", "c.wav,1.0,test"]
    text = told(Path(write_list(tmp_path / "in/x.csv", rows)), tmp_path / "out")
    assert "! labels that spell one number differently are different classes: 1 and 1.0" in text


def test_labels_and_groups_with_accents_stored_in_two_ways_are_said(tmp_path: Path):
    """macOS writes the names of folders, which become labels and groups, with decomposed accents."""
    write_clips(tmp_path / "in", "a.wav", "b.wav", "c.wav")
    composed, decomposed = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
    rows = [f"a.wav,{composed},{composed},train", f"b.wav,{decomposed},x,train", f"c.wav,dog,{decomposed},valid"]
    text = told(Path(write_list(tmp_path / "in/x.csv", ["path,label,group,split", *rows])), tmp_path / "out")
    assert "! labels that look alike are different classes, because their accents are stored in different ways" in text
    assert f"! 1 group is in more than one split ({composed} in train and valid)" in text


def test_groups_in_more_than_one_split_are_said(tmp_path: Path):
    write_clips(tmp_path / "in", *(f"{name}.wav" for name in "abcdef"))
    rows = [
        "a.wav,spk1,train",
        "b.wav,spk1,test",
        "c.wav,spk2,valid",
        "d.wav,spk2,train",
        "e.wav,,train",
        "f.wav,,test",
    ]
    source = Path(write_list(tmp_path / "in/x.csv", ["path,group,split", *rows]))
    sentence = "2 groups are in more than one split (spk1 in test and train, spk2 in train and valid)"
    assert sentence in told(source, tmp_path / "out")
    manifest = prepared(source, tmp_path / "out")
    assert manifest.summary is not None and any(sentence in said for said in manifest.summary.sentences)


def test_groups_of_one_split_and_of_parts_of_the_test_clips_are_as_they_should_be():
    assert crossing_groups([("a", "train"), ("a", "train"), ("b", "test-clean"), ("b", "test"), ("", "train")]) == []
    assert crossing_groups([("", "train"), ("", "test"), ("a", ""), ("a", "train")]) == []
    assert "1 group is" in crossing_groups([("a", "fold1"), ("a", "fold2")])[0]


def test_only_the_most_frequent_labels_are_named(tmp_path: Path):
    write_clips(tmp_path / "in", "a.wav")
    rows = [f"a.wav,label {number % 30}" for number in range(200)]
    text = told(Path(write_list(tmp_path / "in/x.csv", ["path,label", *rows])), tmp_path / "out")
    assert "label 0 7, label 1 7" in text and "22 more" in text


def test_clips_without_a_split_beside_test_clips_are_refused_by_name_unless_they_are_to_train(tmp_path: Path):
    source = write_clips(tmp_path / "in", "train/a.wav", "test/b.wav", "extra/c.wav")
    config = PrepareConfig(source=str(source), output=str(tmp_path / "out"))
    message = r"1 clips without a split \(extra/c\.wav …\) beside 1 of split test \(test/b\.wav …\): .*--unsplit train"
    with pytest.raises(ValueError, match=message):
        ingest.check(config)
    assert not (tmp_path / "out").exists()
    assert prepared(source, tmp_path / "out", unsplit="train").clips_by_split == {"test": 1, "train": 2}
    (source / "extra/c.wav").unlink()
    assert prepared(source, tmp_path / "out 2").clips_by_split == {"test": 1, "train": 1}


@pytest.mark.parametrize("name", ["testing_list.txt", "meta/test.csv", "eval.zip"])
def test_clips_without_a_split_beside_a_file_of_test_clips_are_refused_by_name(tmp_path: Path, name: str):
    source = write_clips(tmp_path / "in", "bed/a.wav")
    (source / name).parent.mkdir(exist_ok=True)
    (source / name).write_text("bed/a.wav\n")
    with pytest.raises(ValueError, match=rf"1 clips without a split \(bed/a\.wav …\) beside {name}: "):
        ingest.check(PrepareConfig(source=str(source), output=str(tmp_path / "out")))


def test_clips_without_a_split_beside_a_link_that_says_test_are_refused_by_its_name(tmp_path: Path):
    source = write_clips(tmp_path / "in", "all/a/1.wav", "all/b/2.wav")
    for link, target in (("train/a", "../all/a"), ("test/b", "../all/b")):
        (source / link).parent.mkdir()
        (source / link).symlink_to(target)
    with pytest.raises(ValueError, match=r"2 clips without a split .* beside test/b, a link to a folder .*: training"):
        ingest.check(PrepareConfig(source=str(source), output=str(tmp_path / "out")))
    assert prepared(source, tmp_path / "out", unsplit="train").clips_by_split == {"train": 2}


def test_a_source_in_which_nothing_is_held_out_needs_no_splits(tmp_path: Path):
    source = write_clips(tmp_path / "in", "train/a.wav", "dog/b.wav")
    assert prepared(source, tmp_path / "out").clips_by_split == {"": 2}
    write_list(source / "x.csv", ["path,split", "train/a.wav,train", "dog/b.wav,"])
    assert prepared(source, tmp_path / "out 2").clips_by_split == {"": 1, "train": 1}


def test_test_clips_of_the_hub_are_not_trained_on(tmp_path: Path):
    write_hub(tmp_path / "in/default/train/0000.parquet", hub_cells(3), label=[0, 1, 0])
    write_hub(tmp_path / "in/default/test/0000.parquet", hub_cells(2, 3), label=[0, 1])
    assert prepared(tmp_path / "in", tmp_path / "out").clips_by_split == {"test": 2, "train": 3}
    write_hub(tmp_path / "in/more/0000.parquet", hub_cells(2, 5), label=[0, 1])
    with pytest.raises(ValueError, match=r"2 clips without a split \(5\.flac …\) beside 2 of split test \(3\.flac …\)"):
        ingest.check(PrepareConfig(source=str(tmp_path / "in"), output=str(tmp_path / "out 2")))


def same_in_two_splits(folder: Path) -> Path:
    """Write a source with two recordings of test in train, one of them as FLAC; silence is in both splits."""
    folder.mkdir()
    silence, pcm = np.zeros(3_000, np.int16), np.random.default_rng(0).integers(-9_000, 9_000, 4_000).astype(np.int16)
    for name, wave in (("train/0.wav", silence), ("test/0.wav", silence), ("train/1.wav", pcm), ("test/1.flac", pcm)):
        (folder / name).parent.mkdir(exist_ok=True)
        soundfile.write(folder / name, wave, 16_000)
    for name, number in (("train/2.wav", 2), ("test/2.wav", 2), ("test/3.wav", 3), ("train/4.wav", 4)):
        (folder / name).write_bytes(encoded(number))
    return folder


def test_recordings_in_two_splits_are_counted_as_they_were_decoded(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    manifest = prepared(same_in_two_splits(tmp_path / "in"), tmp_path / "out", silence_peak=0)
    assert manifest.clips_by_split == {"test": 4, "train": 4} and manifest.summary is not None
    (pair,) = manifest.summary.shared
    assert (pair.first, pair.second, pair.clips) == ("test", "train", 2)
    assert pair.keys in (("test/1.flac", "train/1.wav"), ("test/2.wav", "train/2.wav"))
    assert f"! 2 clips of test are in train too, such as {pair.keys[0]}, " in text_of(
        ingest.describe_manifest(manifest)
    )
    path = Path(manifest.uri, MANIFEST)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"summary": None}))  # as written by older versions
    older = Manifest.load(manifest.uri)
    assert older.summary is None and shared.shared_clips(older) == (pair,)
    Path(manifest.uri, manifest.shards[0].file).write_bytes(b"damaged")
    assert shared.shared_clips(older) == () and "not searched for recordings in two splits" in caplog.text


def test_clips_behind_an_unreadable_part_keep_their_keys(tmp_path: Path):
    manifest = prepared(same_in_two_splits(tmp_path / "in"), tmp_path / "out", silence_peak=0, row_group_megabytes=1e-6)
    numbers = list(shared._read_numbers(manifest))
    lost = next(place for place, (split, _) in enumerate(numbers) if split == "test")

    def read(unit: Unit, columns: Sequence[str]) -> pa.Table:
        if unit.uri.endswith(units[lost].uri) and unit.row_group == units[lost].row_group:
            raise OSError("damaged")
        return read_unit(unit, columns)

    units = list(ClipIndex([manifest]).units)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shared, "read_unit", read)
        (pair,) = shared.find_shared(manifest, shared._read_numbers(manifest))
    assert Path(pair.keys[0]).stem == Path(pair.keys[1]).stem


def test_new_settings_leave_older_outputs_what_they_are(tmp_path: Path):
    source = write_clips(tmp_path / "in", "a.wav")
    manifest = prepared(source, tmp_path / "out")
    assert not {"columns", "unsplit"} & manifest.config.keys()
    with pytest.raises(ValueError, match=r"made with other settings \(unsplit: None there, train asked for\)"):
        prepared(source, tmp_path / "out", unsplit="train")


@pytest.mark.parametrize("change", [{"columns.label": "x"}, {"unsplit": "train"}])
def test_settings_of_lists_have_no_meaning_for_a_published_task(change: dict[str, str]):
    task: LapeTaskCode = "us8k"
    with pytest.raises(ValueError, match=rf"{next(iter(change)).partition('.')[0]}=.* no effect with task=us8k"):
        PrepareConfig(task=task).replace(change)


def test_columns_have_no_meaning_for_audio_files(tmp_path: Path):
    source = write_clips(tmp_path / "in", "a.wav")
    for columns in ({"label": "x"}, {"label": "folder", "group": "x"}):
        with pytest.raises(ValueError, match=r"columns=.* is read as audio files, which have no columns; label=folder"):
            prepared(source, tmp_path / "out", columns=columns)


def test_columns_of_other_kinds_of_files_are_refused(tmp_path: Path):
    source = write_clips(tmp_path / "in", "a.wav")
    (source / "clips.csv").write_text("path,label\na.wav,x\n")
    with pytest.raises(ValueError, match=r"columns\.audio=sound is of parquet files, and .* is read as csv"):
        prepared(source / "clips.csv", tmp_path / "out", columns={"audio": "sound"})
