"""Samples of WebDataset tars: a clip's companions have its name up to the first dot, or up to the last."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.archives import write_tar
from support.inputs import by_key, column, encoded, listed, said

from unfused_ray.config import ColumnsConfig
from unfused_ray.data.sources.fetch import fetch


def as_json(**fields: object) -> bytes:
    return json.dumps(fields).encode()


def listing_of(tmp_path: Path, members: dict[str, bytes]):
    write_tar(tmp_path / "x.tar", members)
    return listed(tmp_path / "x.tar")


def test_companions_belong_to_a_sample_up_to_the_first_dot(tmp_path: Path) -> None:
    members = {
        "a/0.left.flac": b"1",
        "a/0.json": as_json(label="dog", split="Training"),
        "a/0.right.flac": b"2",
        "b/0.wav": b"3",
        "1.meta.json": as_json(label="cat"),
        "1.mid.wav": b"4",
    }
    listing = listing_of(tmp_path, members)
    labels = {"a/0.left": ["dog"], "a/0.right": ["dog"], "b/0": [], "1.mid": ["cat"]}
    assert by_key(listing, "labels") == labels
    assert by_key(listing, "split") == {"a/0.left": "train", "a/0.right": "train", "b/0": "", "1.mid": ""}


def test_a_later_companion_replaces_one_of_its_name_that_is_broken_or_another(tmp_path: Path) -> None:
    members = {
        "./a.wav": b"1",
        "./a.json": b"{broken",
        "b.wav": b"2",
        "b.json": as_json(label="wolf"),
        "c.wav": b"3",
        "c.json": as_json(label="owl"),
        "a.json": as_json(label="dog"),
        "./b.json": as_json(label="cat"),
        "./c.json": b"{broken",
        "./d.json": as_json(label="owl"),
        "d.json": b"{broken",
    }
    listing = listing_of(tmp_path, members)
    assert by_key(listing, "labels") == {"a": ["dog"], "b": ["cat"]}
    assert [reject.key for reject in listing.rejects] == ["c", "d"]
    assert "members replaced by a later one of the name × 4" in said(listing, "skipped on purpose")
    assert "without a clip of their name" not in said(listing, "look again")


def test_a_companion_of_a_clip_with_dots_is_that_clips_alone(tmp_path: Path) -> None:
    members = {
        "--PJ_30.000_40.000.flac": b"1",
        "--PJ_30.000_40.000.json": as_json(labels=["/m/1", "/m/2"]),
        "--PJ_30.000_41.000.flac": b"2",
    }
    listing = listing_of(tmp_path, members)
    assert by_key(listing, "labels") == {"--PJ_30.000_40.000": ["/m/1", "/m/2"], "--PJ_30.000_41.000": []}


def test_a_clip_that_is_the_whole_sample_has_all_its_companions(tmp_path: Path) -> None:
    members = {
        **{"0.flac": b"1", "0.txt": b"a transcript", "0.meta.json": as_json(label="dog", split="test", group="s1")},
        **{"1.flac": b"2", "1.json": as_json(split="train"), "1.label.cls": b"7"},
    }
    listing = listing_of(tmp_path, members)
    assert by_key(listing, "labels") == {"0": ["dog"], "1": ["7"]}
    assert by_key(listing, "split") == {"0": "test", "1": "train"}
    assert by_key(listing, "group")["0"] == "s1"
    assert "companions" not in said(listing, "look again")


def test_companions_of_no_clip_are_counted(tmp_path: Path) -> None:
    members = {"0.wav": b"1", "0.json": as_json(label="dog"), "1.json": as_json(label="cat"), "2.cls": b"3"}
    listing = listing_of(tmp_path, members)
    assert column(listing, "labels") == [["dog"]]
    assert "companions (.json, .cls, .txt) without a clip" in said(listing, "look again")
    assert said(listing, "look again").endswith("× 2")


@pytest.mark.parametrize("own", [as_json(label="dog"), b"{"])
def test_a_companion_whose_audio_is_missing_is_not_that_of_clips_beside_others_with_their_own(
    tmp_path: Path, own: bytes
) -> None:
    members = {
        **{"spk.001.wav": b"1", "spk.001.json": own},
        **{"spk.002.wav": b"2", "spk.003.json": as_json(label="cat", split="test")},
    }
    listing = listing_of(tmp_path, members)
    assert by_key(listing, "labels")["spk.002"] == []
    assert set(column(listing, "split")) == {""}
    assert "companions (.json, .cls, .txt) without a clip" in said(listing, "look again")
    listing = listing_of(tmp_path, members | {"spk.json": as_json(split="train")})  # a companion of both clips
    assert set(column(listing, "split")) == {"train"}


def test_a_clip_whose_companion_cannot_be_read_is_set_aside(tmp_path: Path) -> None:
    members = {"0.left.wav": b"1", "0.json": b"{", "1.wav": b"2", "1.json": b"[]", "2.wav": b"3", "3.json": b"{"}
    listing = listing_of(tmp_path, members)
    assert column(listing, "key") == ["2"]
    assert [reject.key for reject in listing.rejects] == ["0.left", "1", "3"]


def test_a_byte_order_mark_is_no_part_of_a_label(tmp_path: Path) -> None:
    members = {
        **{"0.wav": b"1", "0.cls": "dog".encode("utf-8-sig")},
        **{"1.wav": b"2", "1.cls": b"dog"},
        **{"2.wav": b"3", "2.json": '{".cls": "dog"}'.encode("utf-8-sig")},
    }
    listing = listing_of(tmp_path, members)
    assert column(listing, "labels") == [["dog"]] * 3 and not listing.rejects


def test_labels_of_json_count_more_than_text_and_fields_may_differ(tmp_path: Path) -> None:
    members = {
        **{"0.wav": b"1", "0.txt": b"a dog, barking", "0.json": as_json(Category="dog", split="val", speaker="s1")},
        **{"1.wav": b"1", "1.cls": b"7\n"},
        **{"2.wav": b"1", "2.txt": b"a cat, twice"},
        **{"3.wav": b"1", "3.json": as_json(tags="x,y", fold=2)},
    }
    listing = listing_of(tmp_path, members)
    assert column(listing, "labels") == [["dog"], ["7"], ["a cat, twice"], ["x", "y"]]
    assert column(listing, "split") == ["valid", "", "", ""]
    assert "speaker" in said(listing, "columns ignored")
    assert "column fold (2) looks like a split and was not taken" in said(listing, "look again")


TWO_FIELDS = {
    **{"0.wav": b"1", "0.json": as_json(labels=["dog"], category="animal")},
    **{"1.wav": b"2", "1.txt": b"a cat, twice"},
    **{"2.wav": b"3", "2.json": as_json(category="weather")},
}


def test_labels_of_another_field_where_the_first_is_missing_are_counted(tmp_path: Path) -> None:
    listing = listing_of(tmp_path, TWO_FIELDS)
    assert column(listing, "labels") == [["dog"], ["a cat, twice"], ["weather"]]
    used = said(listing, "columns used")
    assert "labels ← .txt, where labels is missing × 1" in used
    assert "labels ← category, where labels is missing × 1" in used
    assert said(listing, "columns ignored") == "category × 1"  # the clip has labels, too


@pytest.mark.parametrize(
    ("label", "labels"),
    [("category", [["animal"], [], ["weather"]]), ("labels", [["dog"], [], []]), (".txt", [[], ["a cat, twice"], []])],
)
def test_a_field_of_labels_that_is_asked_for_is_the_only_one(
    tmp_path: Path, label: str, labels: list[list[str]]
) -> None:
    write_tar(tmp_path / "x.tar", TWO_FIELDS)
    listing = listed(tmp_path / "x.tar", ColumnsConfig(label=label))
    assert column(listing, "labels") == labels
    assert {"labels", "category", ".txt"} - {label} == {
        note.text for note in listing.notes if note.kind == "columns ignored"
    }


def test_audio_of_any_name_is_listed_and_all_else_is_counted(tmp_path: Path) -> None:
    members = {
        "a.m4a": b"\0\0\0 ftypM4A ",
        "no_suffix": encoded(),
        "b.dat": encoded(),
        "c.dat": b"numbers",
        "d.jpg": b"\xff\xd8",
        "._a.m4a": b"\0\5\x16\7",
        "__MACOSX/x.wav": b"",
        "x/.DS_Store": b"",
        ".hidden/y.wav": b"",
    }
    listing = listing_of(tmp_path, members)
    assert column(listing, "key") == ["a", "no_suffix", "b"]
    assert said(listing, "skipped on purpose") == "._* of macOS × 2; .DS_Store × 1; hidden files × 1"
    assert said(listing, "not read") == ".dat × 1; .jpg × 1"
    assert [audio.read() for _, audio in fetch(listing.items)] == [b"\0\0\0 ftypM4A ", encoded(), encoded()]
