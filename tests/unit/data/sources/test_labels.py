"""Labels are read as their author meant them: one or several in a cell, nested, numbered, or none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from support.archives import write_tar
from support.inputs import column, hub_cells, listed, said, write_clips, write_hub, write_list

from unfused_ray.config import ColumnsConfig
from unfused_ray.data.sources.labels import LabelReader, label_name


@pytest.mark.parametrize(
    ("column", "value", "labels"),
    [
        ("label", "dog", ["dog"]),
        ("label", "  dog  ", ["dog"]),
        ("label", "", []),
        ("label", None, []),
        ("label", float("nan"), []),
        ("label", "dog;cat", ["dog", "cat"]),
        ("label", "dog | cat", ["dog", "cat"]),
        ("label", "dog,cat", ["dog", "cat"]),
        ("label", "Speech, male", ["Speech, male"]),
        ("labels", "dog, cat", ["dog", "cat"]),
        ("Labels", "dog, cat", ["dog", "cat"]),
        ("label", "['dog', 'cat']", ["dog", "cat"]),
        ("label", "['dog' 'cat']", ["dog", "cat"]),
        ("label", '["Speech, male", "don\'t"]', ["Speech, male", "don't"]),
        ("label", "[3, 4]", ["3", "4"]),
        ("label", "[dog, cat]", ["dog", "cat"]),
        ("label", "[]", []),
        ("label", "[noise]", ["[noise]"]),
        ("label", "{'dog'}", ["dog"]),
        ("label", 7, ["7"]),
        ("label", True, ["True"]),
        ("labels", ["Speech, male", "dog"], ["Speech, male", "dog"]),
        ("labels", [["a"], ["b", "c"]], ["a", "b", "c"]),
        ("labels", [{"label": "dog", "start": 0.1}, {"label": "cat", "start": 2.0}], ["dog", "cat"]),
        ("labels", {"category": "dog", "score": 0.5}, ["dog"]),
        ("labels", {"dog": True, "cat": False, "cow": True}, ["dog", "cow"]),
        ("labels", {"x": "dog"}, []),
        ("labels", "Speech;Male speech, man speaking", ["Speech", "Male speech, man speaking"]),
        ("labels", "a,b|c", ["a,b", "c"]),
        ("label", "[0 3  5]", ["0", "3", "5"]),
        ("label", "[0 noise]", ["[0 noise]"]),
        ("label", "nan", []),
        ("label", "None", []),
        ("label", " N/A ", []),
        ("label", "NULL", []),
        ("label", "-", []),
        ("label", "none", ["none"]),
        ("label", "{'dog': 1, 'cat': 0}", ["dog"]),
        ("label", '{"label": "dog", "score": 1}', ["dog"]),
        ("label", "{'dog': 0.7}", []),
        ("labels", {"dog": 1.0, "cat": 0.0}, ["dog"]),
        ("labels", "[0, 1, 1]", ["1", "2"]),
        ("labels", [0, 1, 0], ["1"]),
        ("labels", [0, 0, 0], []),
        ("labels", [0.0, 1.0], ["1"]),
        ("labels", [True, False], ["0"]),
        ("labels", [0, 1], ["0", "1"]),
        ("labels", [0, 1, 2], ["0", "1", "2"]),
    ],
)
def test_a_cell_is_one_label_or_several(column: str, value: Any, labels: list[str]) -> None:
    assert LabelReader(column).read(value) == labels


def test_class_numbers_are_names_and_minus_one_is_none(tmp_path: Path) -> None:
    names = {"label": {"names": ["low", "high"], "_type": "ClassLabel"}}
    path = write_hub(tmp_path / "x.parquet", hub_cells(4), names, label=[1, 0, -1, 5])
    listing = listed(path)
    assert column(listing, "labels") == [["high"], ["low"], [], ["5"]]
    assert "cells of column label are -1, the hub's number for no label × 1" in said(listing, "columns used")
    assert "numbers of column label are beyond its 2 class names, and kept × 1" in said(listing, "look again")


@pytest.mark.parametrize(
    ("feature", "values"),
    [
        ({"feature": {"names": ["low", "high"], "_type": "ClassLabel"}, "_type": "Sequence"}, [[1, 0], []]),
        ({"feature": {"names": ["low", "high"], "_type": "ClassLabel"}, "_type": "List"}, [[1, 0], []]),
        ([{"names": ["low", "high"], "_type": "ClassLabel"}], [[1, 0], []]),
        ([{"label": {"names": ["low", "high"], "_type": "ClassLabel"}}], [[{"label": 1}, {"label": 0}], []]),
        ({"label": {"names": ["low", "high"], "_type": "ClassLabel"}}, [{"label": 1}, None]),
    ],
)
def test_class_numbers_in_nested_structures_are_names(tmp_path: Path, feature: Any, values: list[Any]) -> None:
    path = write_hub(tmp_path / "x.parquet", hub_cells(2), {"labels": feature}, labels=values)
    assert column(listed(path), "labels")[0][:1] == ["high"] and column(listed(path), "labels")[1] == []


def test_zeros_and_ones_for_each_class_are_its_names_or_said(tmp_path: Path) -> None:
    names = {"labels": {"feature": {"names": ["low", "mid", "high"], "_type": "ClassLabel"}, "_type": "Sequence"}}
    cells = [[0, 1, 1], [1, 0, 1, 1], [2, 0]]
    listing = listed(write_hub(tmp_path / "x.parquet", hub_cells(3), names, labels=cells))
    assert column(listing, "labels") == [["mid", "high"], ["mid", "low", "mid", "mid"], ["high", "low"]]
    listing = listed(write_hub(tmp_path / "x.parquet", hub_cells(1), labels=[[0, 1, 1]]))
    assert column(listing, "labels") == [["1", "2"]]
    assert "lists of column labels hold 0 and 1: their places are the labels" in said(listing, "look again")


def test_cells_that_say_nothing_are_counted_and_fields_that_are_no_labels_named(tmp_path: Path) -> None:
    write_clips(tmp_path, "a.wav", "b.wav", "c.wav")
    rows = ["path,label", "a.wav,nan", "b.wav,nan", 'c.wav,"{""d{g"": 0.3}"']
    text = said(listed(write_list(tmp_path / "x.csv", rows)), "look again")
    assert "cells of column label say 'nan', which is no label × 2" in text
    assert "structs of column label with the fields d{g were not taken for labels × 1" in text


def test_commas_with_a_blank_separate_nothing_in_a_column_with_semicolons(tmp_path: Path) -> None:
    write_clips(tmp_path, "a.wav", "b.wav")
    rows = ["path,labels", 'a.wav,"Speech;Male speech, man speaking"', 'b.wav,"Male speech, man speaking"']
    listing = listed(write_list(tmp_path / "x.csv", rows))
    assert column(listing, "labels") == [["Speech", "Male speech, man speaking"], ["Male speech, man speaking"]]
    assert "cells of column labels with a comma and a blank are one label × 1" in said(listing, "columns used")


def test_a_cls_beside_tags_is_said(tmp_path: Path) -> None:
    write_tar(tmp_path / "x.tar", {"0.wav": b"1", "0.cls": b"dog", "0.json": b'{"tags": ["u"]}'})
    assert "column .cls looks like labels and was not taken" in said(listed(tmp_path / "x.tar"), "look again")


def test_labels_are_found_by_their_usual_names_in_any_case() -> None:
    assert label_name(["x", "Category", "target"]) == "Category"
    assert label_name(["Target", "y"]) == "Target"
    assert [label_name([name]) for name in ("label", "LABELS", "class", "tags", "mids")] == [
        *("label", "LABELS", "class", "tags", "mids")
    ]
    assert label_name(["species"]) is None


def test_what_looks_like_labels_is_said_and_can_be_asked_for(tmp_path: Path) -> None:
    write_clips(tmp_path, "a.wav")
    path = write_list(tmp_path / "x.csv", ["path,species,label,when", "a.wav,Corvus corax,bird,now"])
    listing = listed(path)
    assert column(listing, "labels") == [["bird"]]
    assert "column species looks like labels and was not taken: --columns.label species" in said(listing, "look again")
    assert "label ← label" in said(listing, "columns used") and "when" in said(listing, "columns ignored")
    listing = listed(path, ColumnsConfig(label="Species"))
    assert column(listing, "labels") == [["Corvus corax"]]
    with pytest.raises(ValueError, match=r"columns\.label=genus: .*x\.csv has the columns path, species, label, when"):
        listed(path, ColumnsConfig(label="genus"))


def test_cells_of_several_labels_and_labels_with_commas_are_counted(tmp_path: Path) -> None:
    write_clips(tmp_path, "a.wav", "b.wav", "c.wav")
    rows = ["path,label", "a.wav,dog;cat", 'b.wav,"Speech, male"', "c.wav,dog"]
    listing = listed(write_list(tmp_path / "x.csv", rows))
    assert column(listing, "labels") == [["dog", "cat"], ["Speech, male"], ["dog"]]
    assert "cells of column label are several labels × 1" in said(listing, "columns used")
    assert "cells of column label with a comma and a blank are one label × 1" in said(listing, "columns used")


def test_columns_of_parquet_are_found_in_any_case(tmp_path: Path) -> None:
    columns = {"Label": ["x"], "SPLIT": ["Validation"], "Group": pa.array([0])}
    listing = listed(write_hub(tmp_path / "x.parquet", hub_cells(1), **columns))
    assert [column(listing, name)[0] for name in ("labels", "split", "group")] == [["x"], "valid", "0"]
