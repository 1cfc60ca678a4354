"""Splits from columns, from names of files and folders, and from paths; names that only look like splits are noted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.archives import write_tar
from support.inputs import by_key, column, encoded, hub_cells, listed, said, write_clips, write_hub, write_list

from unfused_ray.config import ColumnsConfig, PrepareConfig
from unfused_ray.data.shards import ingest
from unfused_ray.data.sources.splits import is_held_out, lists_held_out, split_of_name, split_of_value

pytestmark = pytest.mark.usefixtures("in_process")


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("train-00000-of-00001", "train"),
        ("train", "train"),
        ("train.clean.100-00003-of-00012", "train"),
        ("train-clean-360", "train"),
        ("training", "train"),
        ("bal_train00", "train"),
        ("speech-train-000012", "train"),
        ("validation-00000-of-00001", "valid"),
        ("val", "valid"),
        ("dev-other", "valid"),
        ("Test", "test"),
        ("testing", "test"),
        ("esc50_test_000001", "test"),
        ("test.clean-00000-of-00001", "test-clean"),
        ("test-other", "test-other"),
        ("test-00000-of-00002-0f1e2d3c4b5a6978", "test"),
        ("eval_segments", "eval"),
        ("evaluation", "eval"),
        ("fold3", "fold3"),
        ("fold_03-00000-of-00001", "fold3"),
        ("0000", ""),
        ("shard-000000", ""),
        ("pretrain", ""),
        ("train_station", "train"),
        ("trains", ""),
        ("train_test", ""),
        ("latest", ""),
        ("validated", ""),
    ],
)
def test_a_files_or_folders_name_says_its_split_by_the_conventions_of_the_hub(name: str, split: str) -> None:
    assert split_of_name(name) == split


@pytest.mark.parametrize(
    ("value", "split"),
    [
        (" Training ", "train"),
        ("VAL", "valid"),
        ("fold 07", "fold7"),
        ("test-ff1010bird", "test-ff1010bird"),
        ("test.clean", "test-clean"),
        ("train-clean-100", "train"),
        ("unlabelled", "unlabelled"),
        ("train_small", "train_small"),
        ("Training Set", "train"),
        ("training_set", "train"),
        ("test-set", "test"),
        ("TEST split", "test"),
        ("test_clean", "test-clean"),
        ("test other.2", "test-other-2"),
        ("dev_clean", "valid"),
        ("test of hearing aids", "test of hearing aids"),
        ("3", "3"),
    ],
)
def test_a_value_of_a_split_column_is_its_name_or_one_that_is_recognised(value: str, split: str) -> None:
    assert split_of_value(value) == split


@pytest.mark.parametrize("name", ["test", "test-clean", "valid", "testing_list", "eval", "fold2", "my_test"])
def test_names_of_held_out_clips(name: str) -> None:
    assert is_held_out(name) and not is_held_out("train") and not is_held_out("latest")


@pytest.mark.parametrize(
    ("stem", "as_list", "as_text"),
    [
        ("test", True, True),
        ("testing_list", True, True),
        ("valid_files", True, True),
        ("esc50_test_list", True, True),
        ("fold1_test", True, True),
        ("test-clean", True, True),
        ("requirements-dev", True, False),
        ("eval_results", True, False),
        ("train_list", False, False),
        ("latest", False, False),
    ],
)
def test_notes_and_settings_are_no_lists_of_test_clips(stem: str, as_list: bool, as_text: bool) -> None:
    assert (lists_held_out(stem), lists_held_out(stem, is_text=True)) == (as_list, as_text)


HELD_OUT = {
    "a value that is no split": ("subset", ["train", "test", "unlabeled"], True),
    "folds and a split": ("fold", ["1", "test", "2"], True),
    "some are not of train": ("is_train", ["1", "0", "1"], True),
    "all are of train": ("is_train", ["1", "True", "yes"], False),
    "some are of test": ("is_test", ["0", "true", ""], True),
    "none is of test": ("is_test", ["0", "False", ""], False),
    "measured values": ("val", ["0.25", "1", "-3e5"], False),
    "names of splits alone": ("mode", ["train", "Test", ""], True),
    "a name of its own": ("phase", ["train", "validation", "train"], True),
    "only train": ("stage", ["train", "train", "train"], False),
    "other words": ("mode", ["test", "loud", "train"], False),
    "public or private": ("usage", ["Public", "Private", "Public"], False),
}


@pytest.mark.parametrize("name", ["all", "train"])
@pytest.mark.parametrize("of", ["csv", "tar", "parquet"])
@pytest.mark.parametrize("case", HELD_OUT)
def test_a_column_that_may_hold_clips_out_is_taken_or_the_source_refused(
    tmp_path: Path, case: str, of: str, name: str
) -> None:
    field, values, is_refused = HELD_OUT[case]
    source = str(tmp_path / f"{name}.{of}")
    if of == "csv":
        write_clips(tmp_path, "0.wav", "1.wav", "2.wav")
        write_list(Path(source), [f"path,{field}", *(f"{number}.wav,{value}" for number, value in enumerate(values))])
    elif of == "tar":
        members = {f"{n}.json": json.dumps({field: value}).encode() for n, value in enumerate(values)}
        write_tar(Path(source), members | {f"{n}.wav": encoded(n) for n in range(3)})
    else:
        write_hub(Path(source), hub_cells(3), **{field: values})
    config = PrepareConfig(source=source, output=str(tmp_path / "out"))
    if is_refused:
        with pytest.raises(ValueError, match=rf"column {field} .*was not taken.*--unsplit train"):
            ingest.check(config)
        config = config.replace(unsplit="train")
    splits = set(ingest.check(config).listing.items["split"].to_pylist())
    assert splits == ({"train"} if is_refused or name == "train" else {""})


@pytest.mark.parametrize("field", ["partition", "Subset", "set"])
def test_a_column_of_splits_alone_counts_more_than_the_name_of_its_file(tmp_path: Path, field: str) -> None:
    write_hub(tmp_path / "train-all.parquet", hub_cells(3), **{field: ["train", "test", "val"]})
    assert column(listed(tmp_path / "train-all.parquet"), "split") == ["train", "test", "valid"]


def test_where_a_column_says_every_split_others_hold_nothing_out(tmp_path: Path) -> None:
    write_clips(tmp_path, "a.wav", "b.wav")
    rows = ["path,split,phase,is_test", "a.wav,train,test,1", "b.wav,train,train,0"]
    config = PrepareConfig(source=write_list(tmp_path / "x.csv", rows), output=str(tmp_path / "out"))
    assert "column phase holds names of splits" in said(ingest.check(config).listing, "look again")
    listing = listed(write_list(tmp_path / "y.csv", ["path,split,fold", "a.wav,,1", "b.wav,,2"]))
    assert column(listing, "split") == ["fold1", "fold2"]  # an empty column split does not count


def test_parquet_in_folders_and_by_file_names(tmp_path: Path) -> None:
    for number, name in enumerate(("default/train/0000", "default/test/0000", "data/validation-00000-of-00001")):
        write_hub(tmp_path / f"{name}.parquet", hub_cells(2, 2 * number), label=[0, 1])
    listing = listed(tmp_path)
    assert column(listing, "split") == ["valid", "valid", "test", "test", "train", "train"]
    assert "split ← names of files and folders" in said(listing, "columns used")
    assert said(listing, "names recognised") == "validation → valid × 1"


def test_the_split_of_a_webdataset_is_in_the_name_of_the_tar(tmp_path: Path) -> None:
    for name in ("birds-train-000000", "birds-train-000001", "birds-test-000000"):
        write_tar(tmp_path / f"{name}.tar", {f"{name}.wav": encoded()})
    splits = {"birds-test-000000": "test", "birds-train-000000": "train", "birds-train-000001": "train"}
    assert by_key(listed(tmp_path), "split") == splits


def test_lists_are_splits_by_their_names_one_alone_too(tmp_path: Path) -> None:
    write_clips(tmp_path, "a.wav", "b.wav")
    for name in ("train", "dev"):
        write_list(tmp_path / f"{name}.csv", ["files", "a.wav" if name == "train" else "b.wav"])
    assert by_key(listed(tmp_path), "split") == {"a.wav": "train", "b.wav": "valid"}
    assert column(listed(tmp_path / "dev.csv"), "split") == ["valid"]
    write_list(tmp_path / "mine.csv", ["files", "a.wav"])
    assert column(listed(tmp_path / "mine.csv"), "split") == [""]
    assert column(listed(tmp_path), "split") == ["valid", "mine", "train"]
    assert "clips of mine are a split of that name" in said(listed(tmp_path), "look again")


def test_folders_of_audio_give_splits_the_innermost_counts(tmp_path: Path) -> None:
    write_clips(tmp_path, "train/dog/1.wav", "dog/testing/2.wav", "test/validation/3.wav", "train-clean-100/4.wav")
    assert by_key(listed(tmp_path), "split") == {
        "train/dog/1.wav": "train",
        "dog/testing/2.wav": "test",
        "test/validation/3.wav": "valid",
        "train-clean-100/4.wav": "train",
    }


CLASSES_CALLED_AS_SPLITS = {
    "train in test": ("train", "test"),
    "a word in test": ("Train_horn", "test"),
    "the beginning in test": ("train-horn", "test"),
    "a word in train": ("test_tone", "train"),
    "the beginning in train": ("test-tone", "train"),
}


@pytest.mark.parametrize("case", CLASSES_CALLED_AS_SPLITS)
@pytest.mark.parametrize("outer", ["{}", "{}_data", "Audio/{}"])
def test_a_class_within_a_split_may_be_called_as_another(tmp_path: Path, outer: str, case: str) -> None:
    name, split = CLASSES_CALLED_AS_SPLITS[case]
    folder = outer.format(split)
    write_clips(tmp_path, f"{folder}/{name}/0.wav", f"{folder}/dog/1.wav", f"{folder}/cat/old/2.wav")
    listing = listed(tmp_path, ColumnsConfig(label="folder"))
    assert by_key(listing, "split")[f"{folder}/{name}/0.wav"] == split
    assert by_key(listing, "labels")[f"{folder}/{name}/0.wav"] == [name]
    assert f"named like splits ({folder}/{name}) were taken for classes" in said(listing, "look again")


@pytest.mark.parametrize("case", CLASSES_CALLED_AS_SPLITS)
def test_a_class_in_a_source_that_is_a_split_may_be_called_as_another(tmp_path: Path, case: str) -> None:
    name, split = CLASSES_CALLED_AS_SPLITS[case]
    write_clips(tmp_path / split, f"{name}/0.wav", "dog/1.wav")
    listing = listed(tmp_path / split, ColumnsConfig(label="folder"))
    assert by_key(listing, "split") == {f"{name}/0.wav": split, "dog/1.wav": split}
    assert by_key(listing, "labels") == {f"{name}/0.wav": [name], "dog/1.wav": ["dog"]}


def test_a_word_counts_less_than_the_name_of_the_folder_above(tmp_path: Path) -> None:
    write_clips(tmp_path, "train/test_tone/0.wav", "test/train_horn/1.wav", "test/test-clean/2.wav")
    assert column(listed(tmp_path), "split") == ["test-clean", "test", "test"]  # in doubt, held out
    write_clips(tmp_path, "train/dog/3.wav", "test/dog/4.wav")
    assert by_key(listed(tmp_path), "split") == {
        **{"train/test_tone/0.wav": "train", "train/dog/3.wav": "train"},
        **{"test/train_horn/1.wav": "test", "test/test-clean/2.wav": "test", "test/dog/4.wav": "test"},
    }


@pytest.mark.parametrize(
    ("outer", "train", "held_out", "split"),
    [
        ("train", "train-clean-100", "dev-clean", "valid"),
        ("training", "speech_train", "speech_valid", "valid"),
        ("training_data", "training_a", "validation_a", "valid"),
        ("dev", "speech_train", "speech_test", "test"),
        ("fold1", "speech_train", "speech_test", "test"),
    ],
)
def test_folders_that_all_say_splits_are_no_classes(
    tmp_path: Path, outer: str, train: str, held_out: str, split: str
) -> None:
    write_clips(tmp_path / "source", f"{outer}/{train}/0.wav", f"{outer}/{held_out}/dog/1.wav")
    config = PrepareConfig(source=str(tmp_path / "source"), output=str(tmp_path / "out"))
    listing = ingest.check(config).listing
    assert by_key(listing, "split") == {f"{outer}/{train}/0.wav": "train", f"{outer}/{held_out}/dog/1.wav": split}
    assert "taken for classes" not in said(listing, "look again")


@pytest.mark.parametrize("name", ["test/train/0.wav", "test/dog/train/0.wav", "x/my_test/train/0.wav"])
@pytest.mark.parametrize("other", ["test/1.wav", "other/1.wav", "train/1.wav"])
def test_train_alone_in_a_folder_that_is_held_out_is_refused(tmp_path: Path, name: str, other: str) -> None:
    write_clips(tmp_path / "source", name, other)
    config = PrepareConfig(source=str(tmp_path / "source"), output=str(tmp_path / "out"))
    with pytest.raises(ValueError, match=r"called train, in a folder named like held-out clips.*--unsp"):
        ingest.check(config)
    splits = by_key(ingest.check(config.replace(unsplit="train")).listing, "split")
    assert splits[name] == "train"


@pytest.mark.parametrize("name", ["train/0.wav", "train_0.wav"])
def test_train_in_a_source_that_is_held_out_is_refused(tmp_path: Path, name: str) -> None:
    write_clips(tmp_path / "test", name)
    with pytest.raises(ValueError, match="called train, in a folder named like held-out clips"):
        ingest.check(PrepareConfig(source=str(tmp_path / "test"), output=str(tmp_path / "out")))


@pytest.mark.parametrize("own", ["dev", "test", "eval", "data"])
@pytest.mark.parametrize(
    "names",
    [
        ("train_1.wav", "test_1.wav"),
        ("train/1.wav", "test/1.wav"),
        ("cats/train/1.wav", "birds/train/2.wav", "birds/valid/3.wav"),
    ],
)
def test_the_name_of_a_source_that_holds_clips_out_itself_casts_no_doubt(
    tmp_path: Path, own: str, names: tuple[str, ...]
) -> None:
    write_clips(tmp_path / own, *names)
    config = PrepareConfig(source=str(tmp_path / own), output=str(tmp_path / "out"))
    splits = by_key(ingest.check(config).listing, "split")
    assert {split for name, split in splits.items() if "train" in name} == {"train"}
    assert {split for name, split in splits.items() if "train" not in name} <= {"test", "valid"}


def test_folders_that_split_a_development_set_count(tmp_path: Path) -> None:
    names = [
        f"{data}/{machine}/{split}/0.wav"
        for data in ("dev", "dev_data")
        for machine in ("fan", "pump")
        for split in ("train", "test")
    ]
    write_clips(tmp_path / "dev", *names)
    config = PrepareConfig(source=str(tmp_path / "dev"), output=str(tmp_path / "out"))
    assert by_key(ingest.check(config).listing, "split") == {name: name.split("/")[2] for name in names}


def test_archives_in_folders_and_called_as_classes(tmp_path: Path) -> None:
    for number, name in enumerate(("test/train/0000", "test/dog/0000", "train/0000")):
        write_hub(tmp_path / f"{name}.parquet", hub_cells(1, number))
    assert column(listed(tmp_path), "split") == ["test", "test", "train"]
    write_hub(tmp_path / "test/train_horn.parquet", hub_cells(1, 3))
    with pytest.raises(ValueError, match=r"test/train_horn: called train, in a folder .* held-out"):
        ingest.check(PrepareConfig(source=str(tmp_path), output=str(tmp_path / "out")))


def test_file_names_give_splits_where_no_folder_does(tmp_path: Path) -> None:
    write_clips(tmp_path, "train_1.wav", "x/1-test.wav", "val2.wav", "mic test 3 loud.wav")
    splits = by_key(listed(tmp_path), "split")
    assert splits == {"train_1.wav": "train", "x/1-test.wav": "test", "val2.wav": "valid", "mic test 3 loud.wav": ""}


def test_trains_that_pass_by_are_a_class(tmp_path: Path) -> None:
    write_clips(tmp_path, "train/1.wav", "dog/2.wav", "cat/3.wav")
    listing = listed(tmp_path)
    assert set(column(listing, "split")) == {""}
    assert "'train' in a part of the paths (train/1.wav …) was not taken" in said(listing, "look again")
    assert "which may be labels (cat, dog, train)" in said(listing, "columns ignored")


def test_a_source_that_is_a_folder_called_test_is_test(tmp_path: Path) -> None:
    write_clips(tmp_path, "test/a.wav", "test-clean/c.wav", "test_bench/d.wav", "test/wavs/e.wav")
    assert by_key(listed(tmp_path / "test"), "split") == {"a.wav": "test", "wavs/e.wav": "test"}
    assert column(listed(tmp_path / "test-clean"), "split") == ["test-clean"]
    assert column(listed(tmp_path / "test_bench"), "split") == [""]
    assert "the folder above is called test" in said(listed(tmp_path / "test/wavs"), "look again")


def test_absolute_paths_of_a_list_give_splits_from_the_folder_they_share(tmp_path: Path) -> None:
    write_clips(tmp_path, "data/train/a.wav", "data/test/b.wav")
    paths = [str(tmp_path / name) for name in ("data/train/a.wav", "data/test/b.wav")]
    assert column(listed(write_list(tmp_path / "all.csv", ["files", *paths])), "split") == ["train", "test"]


def test_eval_is_test_unless_a_test_split_is_there(tmp_path: Path) -> None:
    write_clips(tmp_path, *"abcd")

    def splits(*names: str) -> list[str]:
        rows = [f"{key},{name}" for key, name in zip("abcd", names, strict=False)]
        return column(listed(write_list(tmp_path / "x.csv", ["path,split", *rows])), "split")

    assert splits("train", "eval") == ["train", "test"]
    assert splits("train", "dev", "evaluation") == ["train", "valid", "test"]
    assert splits("train", "eval", "test") == ["train", "valid", "test"]
    assert splits("train", "val", "eval", "test") == ["train", "valid", "eval", "test"]


def test_a_column_of_folds_gives_splits_where_no_name_does(tmp_path: Path) -> None:
    write_clips(tmp_path / "audio", "a.wav", "b.wav")
    rows = ["filename,fold,target,category,esc10", "a.wav,1,0,dog,True", "b.wav,5.0,1,rain,False"]
    listing = listed(write_list(tmp_path / "meta/esc50.csv", rows))
    assert column(listing, "split") == ["fold1", "fold5"]
    assert column(listing, "labels") == [["dog"], ["rain"]]
    assert column(listing, "uri") == [str(tmp_path / "audio/a.wav"), str(tmp_path / "audio/b.wav")]
    assert "column target looks like labels and was not taken" in said(listing, "look again")
    assert "esc10 × 1" in said(listing, "columns ignored")
    write_hub(tmp_path / "train-00000-of-00001.parquet", hub_cells(1), fold=[3])
    listing = listed(tmp_path / "train-00000-of-00001.parquet")
    assert column(listing, "split") == ["train"]
    assert "column fold (3) looks like a split and was not taken: --columns.split fold" in said(listing, "look again")
    listing = listed(tmp_path / "train-00000-of-00001.parquet", ColumnsConfig(split="fold"))
    assert column(listing, "split") == ["fold3"]


@pytest.mark.parametrize(("values", "taken"), [("Train Testing", True), ("A B", False), ("train B", False)])
def test_a_column_that_may_be_a_split_is_one_if_all_its_values_are(tmp_path: Path, values: str, taken: bool) -> None:
    write_clips(tmp_path, "a.wav", "b.wav")
    rows = [f"{name},{value}" for name, value in zip(("a.wav", "b.wav"), values.split(), strict=True)]
    listing = listed(write_list(tmp_path / "x.csv", ["path,Subset", *rows]))
    assert column(listing, "split") == (["train", "test"] if taken else ["", ""])
    assert ("column Subset" in said(listing, "look again")) != taken


def test_a_column_named_as_a_split_and_unknown_splits_are_said(tmp_path: Path) -> None:
    write_clips(tmp_path, "a.wav", "b.wav")
    listing = listed(write_list(tmp_path / "x.csv", ["path,split,is_test", "a.wav,holdout,1", "b.wav,,0"]))
    assert column(listing, "split") == ["holdout", ""]
    assert "holdout in column split: neither train, valid, test nor a fold" in said(listing, "look again")
    assert "column is_test looks like a split and was not taken" in said(listing, "look again")
    assert any(note.held_out for note in listing.notes)


def test_a_column_counts_more_than_the_name_of_its_file_and_that_is_said(tmp_path: Path) -> None:
    write_clips(tmp_path, "a.wav", "b.wav")
    listing = listed(write_list(tmp_path / "test.csv", ["path,split", "a.wav,train", "b.wav,"]))
    assert column(listing, "split") == ["train", "test"]
    assert "column split says train for clips in a file called test" in said(listing, "look again")
