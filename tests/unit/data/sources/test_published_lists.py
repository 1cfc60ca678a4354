"""Lists and archives as published or exported: AudioSet, UrbanSound8K, Common Voice, git-annex, the hub."""

from __future__ import annotations

import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.archives import write_tar
from support.inputs import (
    HUB_AUDIO,
    by_key,
    column,
    encoded,
    ends,
    hub_cells,
    listed,
    said,
    write_clips,
    write_hub,
    write_list,
)

from unfused_ray import storage
from unfused_ray.config import PrepareConfig
from unfused_ray.data.shards import ingest
from unfused_ray.data.sources.find import find

AUDIOSET = (
    "# Segments csv created Sun Mar  5 10:54:31 2017",
    "# num_ytids=22160, num_segs=22160, num_unique_labels=527, num_positive_labels=52882",
    "# YTID, start_seconds, end_seconds, positive_labels",
    '--PJHxphWEs, 30.000, 40.000, "/m/09x0r,/t/dd00088"',
    '--ZhevVpy1s, 50.000, 60.000, "/m/012xff"',
    '--aE2O5G5WE, 0.000, 10.000, "/m/03fwl"',
    '--aO5cdqSAg, 30.000, 40.000, "/t/dd00003"',
)


pytestmark = pytest.mark.usefixtures("in_process")


def check(source: Path | str, **settings: str) -> ingest.IngestPlan:
    return ingest.check(PrepareConfig(source=str(source), output=f"{source}-out", **settings))


def test_the_list_of_audioset_is_read_with_the_files_that_are_there(tmp_path: Path) -> None:
    write_clips(tmp_path, "audio/--PJHxphWEs.wav", "audio/a/--ZhevVpy1s_50.000.m4a", "audio/Y--aO5cdqSAg.wav")
    listing = listed(write_list(tmp_path / "eval_segments.csv", AUDIOSET))
    assert by_key(listing, "labels") == {
        "--PJHxphWEs": ["/m/09x0r", "/t/dd00088"],
        "--ZhevVpy1s": ["/m/012xff"],
        "--aE2O5G5WE": ["/m/03fwl"],
        "--aO5cdqSAg": ["/t/dd00003"],
    }
    assert column(listing, "split") == ["test"] * 4
    assert ends(tmp_path / "eval_segments.csv") == ["read", "read", "missing", "read"]
    assert "may name a part of each file; whole files are read" in said(listing, "look again")


@pytest.mark.parametrize("before", [["# made by x", "# and y"], ["sep=,"], ["SEP=,", "# z"]])
def test_comments_and_excels_separator_before_the_header_are_left_out(tmp_path: Path, before: list[str]) -> None:
    write_clips(tmp_path, "a.wav", "#b.wav")
    listing = listed(write_list(tmp_path / "x.csv", [*before, "path,label", "a.wav,dog", "#b.wav,cat"]))
    assert by_key(listing, "labels") == {"a.wav": ["dog"], "#b.wav": ["cat"]}


@pytest.mark.parametrize(
    ("files", "names"),
    [
        (["audio/fold1/1-0.wav", "audio/fold2/2-0.wav"], ["1-0.wav", "2-0.wav"]),
        (["meta/genres/blues/b.0.wav", "meta/genres/rock/r.0.wav"], ["b.0.wav", "r.0.wav"]),
        (["audio/x/a/ä.mp3", "audio/x/b/2.wav"], ["a/a\u0308", ".\\b\\2"]),
    ],
)
def test_files_two_folders_deeper_are_found_by_the_end_of_their_paths(
    tmp_path: Path, files: list[str], names: list[str]
) -> None:
    write_clips(tmp_path, *files, "audio/._1-0.wav", "audio/fold1/.trash/2-0.wav")
    path = write_list(tmp_path / "meta/list.csv", ["filename,label", *(f"{name},x" for name in names)])
    assert column(listed(path), "uri") == [str(tmp_path / name) for name in files]
    assert ends(path) == ["read", "read"]
    assert "files were found by their names" in said(listed(path), "columns used")


def test_names_that_several_files_have_are_refused_and_none_is_said(tmp_path: Path) -> None:
    write_clips(tmp_path, "audio/a/1.wav", "audio/b/1.wav")
    path = write_list(tmp_path / "list.csv", ["filename,label", "1.wav,x"])
    with pytest.raises(ValueError, match=r"names both .*a/1\.wav and .*b/1\.wav: write the folder into its paths"):
        listed(path)
    write_list(tmp_path / "list.csv", ["filename,label", "c/1.wav,x", "3.wav,y"])
    text = "none of the first 2 files that list.csv names is there (c/1.wav …)"
    assert text in said(listed(path), "look again") and ends(path) == ["missing", "missing"]


def test_sentences_of_common_voice_begin_with_quotes(tmp_path: Path) -> None:
    write_clips(tmp_path / "clips", "a.mp3", "b.mp3", "c.mp3", "d e.mp3")
    lines = ['x\ta.mp3\t"Hello", she said.\tm', 'x\tb.mp3\t"Open\t', "x\tc.mp3\tplain\t", 'x\t"d e.mp3"\tclosed"\tm']
    listing = listed(write_list(tmp_path / "train.tsv", ["client_id\tpath\tsentence\tlabel", *lines]))
    assert column(listing, "key") == ["a.mp3", "b.mp3", "c.mp3", "d e.mp3"]
    assert column(listing, "labels") == [["m"], [], [], ["m"]]
    with pytest.raises(ValueError, match=r"line 3 of .*x\.tsv has 1 cells .*header 2 .*: add the missing cells"):
        listed(write_list(tmp_path / "x.tsv", ["path\tlabel", "a.mp3\tm", "b.mp3"]))


def test_a_blank_behind_a_closing_quote_is_no_mistake(tmp_path: Path) -> None:
    write_clips(tmp_path, "a.wav", "b.wav")
    rows = ['"path" ,"label" ', '"a.wav" , "Speech, ""male"", low"  ', '"b.wav","x" ']
    assert column(listed(write_list(tmp_path / "x.csv", rows)), "labels") == [['Speech, "male", low'], ["x"]]


def test_a_list_without_paths_is_left_where_another_has_them(tmp_path: Path) -> None:
    write_clips(tmp_path, "a.wav", "b.wav")
    write_list(tmp_path / "vocabulary.csv", ["0,Bark,/m/1", "1,Bark"])
    write_list(tmp_path / "classes.csv", ["id;Näme", "0;x"], "latin-1")
    with pytest.raises(ValueError, match=r"classes\.csv (has the columns|is not UTF-8)"):
        listed(tmp_path)
    write_list(tmp_path / "meta.csv", ["path,label", "a.wav,x", "b.wav,y"])
    listing = listed(tmp_path)
    assert by_key(listing, "labels") == {"a.wav": ["x"], "b.wav": ["y"]}
    assert column(listing, "split") == ["", ""]  # the name of a single list gives no split
    assert "lists without a column of paths are not read: classes.csv, vocabulary.csv" in said(listing, "look again")
    check(tmp_path)
    write_list(tmp_path / "test.csv", ["id,label", "7,x"])
    with pytest.raises(ValueError, match=r"2 clips without a split .* beside test\.csv"):
        check(tmp_path)


def test_links_that_lead_nowhere_and_pipes_are_set_aside_and_counted(tmp_path: Path) -> None:
    write_clips(tmp_path, "sub/1.wav")
    for number in (2, 3):
        (tmp_path / f"sub/{number}.wav").symlink_to(f"../.git/annex/objects/{number}.wav")
    (tmp_path / "loop.wav").symlink_to("loop.wav")
    (tmp_path / "list.txt").symlink_to("nowhere.txt")
    for name in ("4.wav", "5.csv", "6"):
        os.mkfifo(tmp_path / name)
    assert column(listed(tmp_path), "key") == ["4.wav", "loop.wav", "sub/1.wav", "sub/2.wav", "sub/3.wav"]
    assert ends(tmp_path) == ["unreadable", "unreadable", "read", "missing", "missing"]
    assert said(listed(tmp_path), "not read") == ".csv × 1; .txt × 1; no suffix × 1"
    assert [storage.name(uri) for uri in storage.list_files(str(tmp_path), recursive=True)] == ["1.wav"]


def test_lists_of_test_clips_in_a_tar_are_as_those_in_a_folder(tmp_path: Path) -> None:
    clips = {"yes/0_nohash_0.wav": encoded(), "no/1_nohash_0.wav": encoded(1)}
    for number, name in enumerate(("testing_list.txt", "meta/test.csv", "validation_list.json")):
        write_tar(tmp_path / f"{number}.tar", clips | {name: b"[]"})
        with pytest.raises(ValueError, match=rf"2 clips without a split .* beside {name}"):
            check(tmp_path / f"{number}.tar")
        assert check(tmp_path / f"{number}.tar", unsplit="train").listing.items["split"].to_pylist() == ["train"] * 2
    write_tar(tmp_path / "x.tar", clips | {"README.txt": b"", "eval_results.json": b"{}", "yes/0_nohash_0.txt": b"yes"})
    check(tmp_path / "x.tar")


def test_archives_that_are_packed_are_refused_with_what_to_do(tmp_path: Path) -> None:
    for name in ("sounds.tar.gz", "more.zip"):
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(ValueError, match=r"Unpack more\.zip, sounds\.tar\.gz; tars are read as they are"):
        find(str(tmp_path))
    with pytest.raises(ValueError, match=r"Unpack sounds\.tar\.gz"):
        find(str(tmp_path / "sounds.tar.gz"))


def test_the_class_names_of_nested_labels_are_those_of_the_field_that_is_read(tmp_path: Path) -> None:
    label = {"names": ["cat", "dog"], "_type": "ClassLabel"}
    gender = {"names": ["female", "male"], "_type": "ClassLabel"}
    number = {"dtype": "float32", "_type": "Value"}
    shapes = {
        "struct": ({"gender": gender, "label": label}, [{"gender": 0, "label": 1}]),
        "list": ([{"start": number, "label": label}], [[{"start": 0.0, "label": 1}]]),
        "sequence": (
            {"feature": {"start": number, "label": label}, "_type": "Sequence"},
            [{"start": [0], "label": [1]}],
        ),
    }
    for name, (feature, cells) in shapes.items():
        path = write_hub(tmp_path / f"{name}.parquet", hub_cells(1), {"label": feature}, label=cells)
        assert column(listed(path), "labels") == [["dog"]], name


def test_a_split_of_the_hub_that_is_a_class_has_its_name(tmp_path: Path) -> None:
    names = {"split": {"names": ["train", "validation"], "_type": "ClassLabel"}}
    path = write_hub(tmp_path / "x.parquet", hub_cells(4), names, split=pa.array([0, 1, -1, None]))
    assert column(listed(path), "split") == ["train", "valid", "", ""]


def test_the_hubs_webdataset_has_its_fields_in_a_struct(tmp_path: Path) -> None:
    fields = [{"label": "dog", "split": "test", "x": 1}, {"label": "cat", "split": "train", "x": 2}, None]
    table = pa.table({"flac": [encoded(n) for n in range(3)], "json": fields, "__key__": ["a", "b", "c"]})
    pq.write_table(table, tmp_path / "x.parquet")
    listing = listed(tmp_path / "x.parquet")
    assert by_key(listing, "labels") == {"a": ["dog"], "b": ["cat"], "c": []}
    assert column(listing, "split") == ["test", "train", ""]
    assert said(listing, "columns ignored") == "x × 1"


def test_dictionaries_and_views_are_columns_of_audio_and_paths(tmp_path: Path) -> None:
    write_clips(tmp_path, "a.wav")
    sounds = {
        "view": pa.array([encoded()], pa.binary_view()),
        "path": pa.array(["a.wav"]).dictionary_encode(),
        "text": pa.array(["a.wav"], pa.string_view()),
        "audio": pa.array([{"bytes": encoded(), "path": "b.wav"}], HUB_AUDIO),
    }
    for name, cells in sounds.items():
        pq.write_table(pa.table({"path" if name == "text" else name: cells}), tmp_path / f"{name}.parquet")
        assert ends(tmp_path / f"{name}.parquet") == ["read"], name
