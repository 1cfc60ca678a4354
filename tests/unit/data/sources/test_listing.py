"""Folders, CSV files, tars and hub Parquet are told apart, and their clips are listed without reading audio."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.archives import spoil, write_tar
from support.inputs import column

from unfused_ray import storage
from unfused_ray.audio.decode import AudioError
from unfused_ray.config import ColumnsConfig
from unfused_ray.data.parts.executor import IN_PROCESS
from unfused_ray.data.shards.layout import cut
from unfused_ray.data.sources.csv_files import list_csv
from unfused_ray.data.sources.fetch import fetch
from unfused_ray.data.sources.find import find
from unfused_ray.data.sources.hub_parquet import list_parquet
from unfused_ray.data.sources.items import Listing, combine, draw, select
from unfused_ray.data.sources.listing import list_audio, list_source
from unfused_ray.data.sources.notes import by_kind
from unfused_ray.data.sources.tar import list_tar


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")


def test_a_folder_is_read_at_any_depth_and_by_suffix(tmp_path: Path):
    touch(tmp_path, "b.WAV", "a/deep/c.opus", "a/x.flac", "README.md", "meta/info.csv", "no_suffix")
    source = find(str(tmp_path))
    assert source.kind == "audio"
    assert column(list_audio(source), "key") == ["a/deep/c.opus", "a/x.flac", "b.WAV"]


def test_names_of_folders_are_labels_where_that_is_asked_for(tmp_path: Path):
    touch(tmp_path, "train/robin/a.wav", "train/wren/old/b.wav", "robin/test/c.wav", "test/d.wav", "e.wav")
    source = find(str(tmp_path))
    by_folder = list_source(source, IN_PROCESS, ColumnsConfig(label="folder"))
    labels = dict(zip(column(by_folder, "key"), column(by_folder, "labels"), strict=True))
    assert labels == {
        "train/robin/a.wav": ["robin"],
        "train/wren/old/b.wav": ["old"],
        "robin/test/c.wav": ["robin"],
        "test/d.wav": [],
        "e.wav": [],
    }
    assert sorted(column(by_folder, "split")) == ["", "test", "test", "train", "train"]
    assert by_kind(by_folder.notes)["columns used"].startswith("labels ← names of folders (3 clips)")

    plain = list_source(source, IN_PROCESS)
    assert not any(column(plain, "labels"))
    assert "--columns.label folder takes them" in by_kind(plain.notes)["columns ignored"]


def test_a_class_may_be_called_train(tmp_path: Path):
    touch(tmp_path, "train/a.wav", "bus/b.wav")
    found = list_source(find(str(tmp_path)), IN_PROCESS, ColumnsConfig(label="folder"))
    assert dict(zip(column(found, "key"), column(found, "labels"), strict=True)) == {
        "train/a.wav": ["train"],
        "bus/b.wav": ["bus"],
    }


@pytest.mark.parametrize("source", ["birds/robin", "birds/robin/", "birds/robin/*.wav", "birds/robin/a.wav", "birds"])
def test_labels_of_folders_are_refused_where_no_file_lies_in_one(tmp_path: Path, source: str):
    touch(tmp_path, "birds/robin/a.wav" if "robin" in source else "birds/train/a.wav", "birds/test/b.wav")
    found = find(f"{tmp_path}/{source}")
    folder = str(tmp_path / ("birds/robin" if "robin" in source else "birds"))
    with pytest.raises(ValueError, match=r"columns\.label=folder: within") as refused:
        list_source(found, IN_PROCESS, ColumnsConfig(label="folder"))
    assert str(refused.value).endswith(f"or a pattern such as {folder}*")
    if "robin" in source:
        labels = column(list_source(find(f"{folder}*"), IN_PROCESS, ColumnsConfig(label="folder")), "labels")
        assert labels == [["robin"]]


def test_labels_of_folders_are_for_audio_files_alone(tmp_path: Path):
    write_tar(tmp_path / "a.tar", {"robin/0.wav": b"x"})
    with pytest.raises(ValueError, match=r"columns\.label=folder: .*a\.tar has no columns.*folder is for audio files"):
        list_tar(str(tmp_path / "a.tar"), columns=ColumnsConfig(label="folder"))
    write_tar(tmp_path / "b.tar", {"robin/0.wav": b"x", "robin/0.json": b'{"sex": "f", "age": 1}'})
    with pytest.raises(ValueError, match=r"b\.tar has the columns sex, age\. Name one of these; folder is for audio"):
        list_tar(str(tmp_path / "b.tar"), columns=ColumnsConfig(label="folder"))
    with pytest.raises(ValueError, match=r"columns\.group=x: .*a\.tar has no columns\. Leave it out$"):
        list_tar(str(tmp_path / "a.tar"), columns=ColumnsConfig(group="x"))


def test_csv_files_directly_in_a_folder_define_it(tmp_path: Path):
    touch(tmp_path, "train.csv", "test.csv", "clips/a.wav")
    assert find(str(tmp_path)).kind == "csv"
    assert [Path(uri).name for uri in find(str(tmp_path)).files] == ["test.csv", "train.csv"]
    assert find(str(tmp_path / "*.wav")).kind == "audio"


def test_a_pattern_matches_across_folders(tmp_path: Path):
    touch(tmp_path, "x-0.tar", "x-1.tar", "sub/x-2.tar", "y.tar", "x.wav")
    names = [Path(uri).name for uri in find(str(tmp_path / "*x-*.tar")).files]
    assert names == ["x-2.tar", "x-0.tar", "x-1.tar"]


def test_what_is_no_source_is_refused(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        find(str(tmp_path / "nowhere"))
    with pytest.raises(ValueError, match=r"holds no audio: there is no file in it"):
        find(str(tmp_path))
    touch(tmp_path, "notes.md")
    with pytest.raises(ValueError, match=r"holds no audio: none of its 1 files ends in \.csv, .*\.wav"):
        find(str(tmp_path))
    touch(tmp_path, "a.wav", "b.tar")
    with pytest.raises(ValueError, match=r"several kinds \(audio, tar\)"):
        find(str(tmp_path))


def test_csv_columns_become_labels_split_and_group(tmp_path: Path):
    touch(tmp_path, "task/clips/a.wav")
    csv = tmp_path / "task/train.csv"
    csv.write_text("wav_path,label,group,other\ntask/clips/a.wav,dog,g1,1\n/abs/b.wav,,,2\n", encoding="utf-8-sig")
    listing = list_csv(str(csv), "train")
    assert column(listing, "key") == ["task/clips/a.wav", "/abs/b.wav"]
    assert column(listing, "uri") == [str(tmp_path / "task/clips/a.wav"), "/abs/b.wav"]  # from the folder above
    assert column(listing, "labels") == [["dog"], []]
    assert column(listing, "group") == ["g1", ""]
    assert column(listing, "split") == ["train", "train"]
    csv.write_text("files,split\nclips/a.wav,fold1\nclips/none.wav,\n")
    listing = list_csv(str(csv))
    assert column(listing, "uri")[0] == str(tmp_path / "task/clips/a.wav")  # relative to the CSV's folder
    assert column(listing, "split") == ["fold1", ""]


def test_a_csv_without_paths_is_refused_with_its_columns(tmp_path: Path):
    (tmp_path / "x.csv").write_text("where,label\na.wav,1\n")
    with pytest.raises(ValueError, match=r"columns where, label: its first line must name columns, one of them files"):
        list_csv(str(tmp_path / "x.csv"))
    (tmp_path / "x.csv").write_bytes(b"files\n\xff\xfe.wav\n")
    with pytest.raises(ValueError, match="not UTF-8"):
        list_csv(str(tmp_path / "x.csv"))


def test_csv_rows_without_a_path_are_set_aside_with_their_line(tmp_path: Path):
    (tmp_path / "x.csv").write_text('label,files,note\ndog,a.wav,\ncat,,"a\nb"\n\ncow,,\nhen,b.wav,\n')
    listing = list_csv(str(tmp_path / "x.csv"))
    assert column(listing, "key") == ["a.wav", "b.wav"]
    assert [(reject.key, reject.reason) for reject in listing.rejects] == [
        ("x.csv:4", "missing"),
        ("x.csv:6", "missing"),
    ]


@pytest.mark.parametrize(("text", "line"), [('files,label\na.wav,1\nb.wav,"', 3), ('files,"', 1), ('files\n"', 2)])
def test_a_csv_that_cannot_be_parsed_is_refused_with_its_line(tmp_path: Path, text: str, line: int):
    (tmp_path / "x.csv").write_text(text + "c.wav,2\n" * 20_000)  # a quote is never closed
    with pytest.raises(ValueError, match=rf"x\.csv cannot be read as CSV from line {line} on \(field larger"):
        list_csv(str(tmp_path / "x.csv"))


def test_tar_keys_may_hold_dots_and_companions_give_labels(tmp_path: Path):
    tar = tmp_path / "a.tar"
    write_tar(
        tar,
        {
            "./--PJ_30.000_40.000.json": json.dumps({"labels": ["/m/1", "/m/2"], "split": "train"}).encode(),
            "./--PJ_30.000_40.000.flac": b"audio one",
            "x/b.wav": b"audio two",
            "x/b.cls": b"7\n",
            "c.mp3": b"audio three",
            "c.txt": "a dög barks, twice".encode(),
            "d.jpg": b"no audio",
        },
    )
    listing = list_tar(str(tar))
    assert column(listing, "key") == ["--PJ_30.000_40.000", "x/b", "c"]
    assert column(listing, "labels") == [["/m/1", "/m/2"], ["7"], ["a dög barks, twice"]]
    assert column(listing, "split") == ["train", "", ""]
    content = tar.read_bytes()
    places = zip(column(listing, "offset"), column(listing, "num_bytes"), strict=True)
    assert [content[offset : offset + size] for offset, size in places] == [b"audio one", b"audio two", b"audio three"]
    assert listing.rejects == ()


def test_a_hostile_tar_touches_nothing(tmp_path: Path):
    (tmp_path / "secret.wav").write_bytes(b"secret")
    links = {"link.wav": str(tmp_path / "secret.wav")}
    write_tar(tmp_path / "a.tar", {"../../escape.wav": b"1", "/abs.wav": b"2"}, links)
    before = sorted(tmp_path.rglob("*"))
    assert column(list_tar(str(tmp_path / "a.tar")), "key") == ["../../escape", "/abs"]
    assert sorted(tmp_path.rglob("*")) == before


def test_a_damaged_tar_gives_what_lies_before_the_damage(tmp_path: Path):
    write_tar(tmp_path / "a.tar", {"a.wav": b"1" * 2000, "b.wav": b"2" * 2000, "b.json": b"{broken"})
    content = (tmp_path / "a.tar").read_bytes()
    listing = list_tar(str(tmp_path / "a.tar"))
    assert column(listing, "key") == ["a"]
    assert [(reject.key, reject.reason) for reject in listing.rejects] == [("b", "unreadable")]
    (tmp_path / "cut.tar").write_bytes(content[:3000])
    listing = list_tar(str(tmp_path / "cut.tar"))
    assert column(listing, "key") == ["a"]
    assert [(reject.key, reject.reason) for reject in listing.rejects] == [("cut.tar", "unreadable")]


@pytest.mark.parametrize("struct", [True, False])
@pytest.mark.parametrize(
    ("name", "values", "expected"),
    [
        ("labels", [["/m/1", "/m/2"], []], [["/m/1", "/m/2"], []]),
        ("labels", ["Bark,Domestic_dog", None], [["Bark", "Domestic_dog"], []]),
        ("label", ["Speech, male", "x"], [["Speech, male"], ["x"]]),
        ("label", [1, 0], [["dog"], ["cat"]]),
        ("mids", [["/m/3"], ["/m/4"]], [["/m/3"], ["/m/4"]]),
    ],
)
def test_hub_parquet_label_variants(tmp_path: Path, struct: bool, name: str, values: list, expected: list):
    audio = [{"bytes": b"1", "path": "a.flac"}, {"bytes": b"2", "path": "b.flac"}] if struct else [b"1", b"2"]
    table = pa.table({"audio": audio, name: values})
    info = {"info": {"features": {"label": {"names": ["cat", "dog"], "_type": "ClassLabel"}}}}
    uri = str(tmp_path / "train-00000-of-00001.parquet")
    pq.write_table(table.replace_schema_metadata({"huggingface": json.dumps(info)}), uri, row_group_size=1)
    listing = list_parquet(uri, "train")
    assert column(listing, "labels") == expected
    keys = ["a.flac", "b.flac"] if struct else ["train-00000-of-00001:0", "train-00000-of-00001:1"]
    assert column(listing, "key") == keys
    assert column(listing, "split") == ["train", "train"]
    assert column(listing, "row_group") == [0, 1] and column(listing, "row") == [0, 0]


def test_parquet_without_audio_is_refused_with_its_columns(tmp_path: Path):
    pq.write_table(pa.table({"text": ["a"], "label": [1]}), tmp_path / "x.parquet")
    with pytest.raises(ValueError, match=r"columns text, label, of which 0 hold bytes"):
        list_parquet(str(tmp_path / "x.parquet"))


@pytest.mark.parametrize("where", ["local", "s3"])
@pytest.mark.parametrize("damage", ["empty", "no Parquet", "cut short"])
def test_a_damaged_parquet_file_is_set_aside(tmp_path: Path, request: pytest.FixtureRequest, where: str, damage: str):
    buffer = io.BytesIO()
    pq.write_table(pa.table({"audio": [b"1" * 500]}), buffer)
    content = {"empty": b"", "no Parquet": b"<html>404</html>", "cut short": buffer.getvalue()[:-20]}[damage]
    options = request.getfixturevalue("object_store") if where == "s3" else ""
    uri = f"s3://bucket/{tmp_path.name}/x.parquet{options}" if where == "s3" else str(tmp_path / "x.parquet")
    storage.write_bytes(uri, content)
    listing = list_parquet(uri)
    assert len(listing.items) == 0
    assert [(reject.key, reject.reason) for reject in listing.rejects] == [("x.parquet", "unreadable")]
    assert "Parquet" in listing.rejects[0].detail


def test_the_rows_of_a_damaged_parquet_row_group_are_set_aside(tmp_path: Path):
    path = tmp_path / "x.parquet"
    names = [f"k{number}" for number in range(6)]
    pq.write_table(pa.table({"audio": [b"1"] * 6, "id": names}), path, row_group_size=2)
    spoil(path, 1, "id")
    listing = list_parquet(str(path))
    assert column(listing, "key") == ["k0", "k1", "k4", "k5"]
    assert [(reject.key, reject.reason) for reject in listing.rejects] == [("x:2", "unreadable"), ("x:3", "unreadable")]
    assert "row group 1 of" in listing.rejects[0].detail


def claims_one_more_row(path: Path, columns: dict[str, list]) -> Path:
    """Write a Parquet file of 64 rows with a row group that claims 65."""
    pq.write_table(pa.table(columns), path)
    data = path.read_bytes()
    at = -1
    while pq.ParquetFile(path).metadata.row_group(0).num_rows != 65:  # try every 64 in thrift
        at = data.index(b"\x80\x01", at + 1)
        path.write_bytes(data[:at] + b"\x82\x01" + data[at + 2 :])
    return path


def test_rows_whose_column_has_a_damaged_name_are_set_aside(tmp_path: Path):
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"audio": [{"bytes": b"1", "path": "a.wav"}], "id": ["a"]}), path)
    before, name, after = path.read_bytes().rpartition(b"\x05audio\x05bytes")  # in the metadata of the row group
    assert name
    path.write_bytes(before + b"\x05aud\xe4o\x05bytes" + after)
    listing = list_parquet(str(path))
    assert len(listing.items) == 0
    assert [(reject.key, reject.reason) for reject in listing.rejects] == [("x:0", "unreadable")]
    assert str(path) in listing.rejects[0].detail


def test_a_row_group_that_claims_more_rows_than_it_holds_is_set_aside(tmp_path: Path):
    columns = {"audio": [b"1"] * 64, "id": [f"k{number}" for number in range(64)]}
    path = claims_one_more_row(tmp_path / "x.parquet", columns)
    listing = list_parquet(str(path))
    assert not len(listing.items)
    assert {reject.reason for reject in listing.rejects} == {"unreadable"}
    assert listing.rejects[0].detail == f"row group 0 of {path}: Parquet: it claims 65 rows and holds 64"


def test_audio_that_is_not_there_in_a_row_group_that_claims_it_is_a_reason(tmp_path: Path):
    path = claims_one_more_row(tmp_path / "x.parquet", {"audio": [b"1"] * 64})
    listing = list_parquet(str(path))
    assert len(listing.items) == 65  # only the audio, which a listing does not read, could show it
    found = [audio for _, audio in fetch(listing.items)]
    assert all(isinstance(audio, AudioError) and "claims 65 rows and holds 64" in audio.detail for audio in found)


@pytest.mark.parametrize("comes_back", [True, False])
def test_a_store_that_fails_is_no_damage(
    tmp_path: Path, object_store: str, monkeypatch: pytest.MonkeyPatch, comes_back: bool
):
    uri = f"s3://bucket/{tmp_path.name}/x.parquet{object_store}"
    buffer = io.BytesIO()
    pq.write_table(pa.table({"audio": [b"1"], "id": ["k"]}), buffer)
    storage.write_bytes(uri, buffer.getvalue())

    def gone(*args: object, **options: object) -> None:
        if comes_back:
            monkeypatch.undo()
        else:
            monkeypatch.setattr(storage, "open_input", gone)
        raise OSError("connection reset")

    monkeypatch.setattr(pq.ParquetFile, "read_row_group", gone)
    if comes_back:
        listing = list_parquet(uri)
        assert column(listing, "key") == ["k"] and listing.rejects == ()
    else:
        with pytest.raises(OSError, match="connection reset"):
            list_parquet(uri)


def listing_of(keys: list[str]) -> Listing:
    return Listing.from_rows([{"key": key, "uri": f"/data/{key}"} for key in keys])


def test_keys_that_occur_again_are_kept_and_told_apart(caplog: pytest.LogCaptureFixture):
    listing = combine([listing_of(["a", "b"]), listing_of(["a", "c", "a"])])
    assert column(listing, "key") == ["a", "b", "a#2", "c", "a#3"]
    assert "2 clips" in caplog.text


@given(st.lists(st.sampled_from(["a", "a#2", "a#3", "a#2#2"]), max_size=9))
def test_a_key_that_occurs_again_never_takes_the_name_of_another_clip(keys: list[str]):
    found = column(combine([listing_of(keys)]), "key")
    assert len({*found}) == len(keys)
    assert {*keys} <= {*found}


def test_a_file_in_several_rows_with_different_labels_is_named(caplog: pytest.LogCaptureFixture) -> None:
    def rows(*labels: list[str], start: float | None = None) -> Listing:
        place = {"key": "a.wav", "uri": "/data/a.wav", "start": start}
        return Listing.from_rows([{**place, "labels": each} for each in labels])

    assert "labels" not in str(combine([rows(["dog"], ["dog"])]).notes)
    assert "labels" not in str(combine([rows(["dog"], start=0.0), rows(["cat"], start=1.0)]).notes)  # parts of one file
    notes = combine([rows(["dog"], ["cat"], ["dog"])]).notes
    text = "1 file is in several rows with different labels, such as a.wav (dog and cat): each row is a clip of its"
    assert any(note.kind == "look again" and note.text.startswith(text) for note in notes)
    assert text in caplog.text and "such as dog;cat" in caplog.text


KEYS = [f"clip {number}" for number in range(400)]


@given(fraction=st.floats(0.01, 1), seed=st.integers(0, 2**31 - 1), shuffle=st.integers(0, 2**31 - 1))
def test_fraction_and_order_depend_on_keys_and_seed_alone(fraction: float, seed: int, shuffle: int):
    permutation = np.random.default_rng(shuffle).permutation(KEYS).tolist()
    taken = column(Listing(select(listing_of(KEYS).items, fraction, seed)), "key")
    assert column(Listing(select(listing_of(permutation).items, fraction, seed)), "key") == taken
    assert abs(len(taken) - 400 * fraction) < 5 * np.sqrt(400 * fraction * (1 - fraction)) + 1
    assert taken == [key for key in sorted(KEYS, key=lambda key: draw(seed, key)) if draw(seed, key) < fraction]


@given(small=st.floats(0.01, 1), large=st.floats(0.01, 1))
def test_a_smaller_fraction_is_part_of_a_larger_one(small: float, large: float):
    small, large = sorted((small, large))
    items = listing_of(KEYS).items
    of_small, of_large = (set(select(items, fraction, 31)["key"].to_pylist()) for fraction in (small, large))
    assert of_small <= of_large
    assert set(select(items, 1.0, 31)["key"].to_pylist()) == set(KEYS)


def test_clips_of_a_split_lie_together_in_the_same_order_as_without_splits():
    splits = {key: ("train", "", "test")[number % 3] for number, key in enumerate(KEYS)}
    rows = [{"key": key, "uri": key, "split": split} for key, split in splits.items()]
    taken = select(Listing.from_rows(rows).items, 0.5, 31)["key"].to_pylist()
    shuffled = select(listing_of(KEYS).items, 0.5, 31)["key"].to_pylist()
    assert taken == [key for split in ("", "test", "train") for key in shuffled if splits[key] == split]


@given(
    sizes=st.dictionaries(st.text(max_size=3), st.integers(1, 5000), max_size=4),
    clips_per_shard=st.integers(1, 1000),
)
def test_shards_are_of_one_split_and_small_splits_have_many_units(sizes: dict[str, int], clips_per_shard: int):
    splits = [split for split, size in sizes.items() for _ in range(size)]
    parts = list(cut(splits, clips_per_shard))
    assert [split for part in parts for split in splits[part.start : part.stop]] == splits
    for split, size in sizes.items():
        of_split = [part for part in parts if part.split == split]
        assert {split for part in of_split for split in splits[part.start : part.stop]} == {split}
        counts = [part.stop - part.start for part in of_split]
        assert sum(counts) == size and max(counts) <= clips_per_shard
        units = sum(-(-count // part.max_rows) for count, part in zip(counts, of_split, strict=True))
        assert units >= min(16, size)
        assert max(counts) - min(counts) <= 1


def test_clips_of_a_parquet_row_group_stay_together():
    rows = [{"key": f"{g}/{r}", "uri": "/x.parquet", "row_group": g, "row": r} for g in range(20) for r in range(10)]
    groups = select(Listing.from_rows(rows).items, 1.0, 31)["row_group"].to_pylist()
    assert [groups[i : i + 10] for i in range(0, 200, 10)] == [[group] * 10 for group in groups[::10]]
    assert groups[::10] != sorted(groups[::10])


def test_row_groups_of_files_of_one_name_are_read_one_after_the_other():
    rows = [
        {"key": f"{language}/{row}", "uri": f"/x/{language}/train/0000.parquet", "row_group": 0, "row": row}
        for row in range(10)
        for language in ("de", "en", "fr")
    ]
    order = select(Listing.from_rows(rows).items, 1.0, 31)
    assert select(Listing.from_rows(rows[::-1]).items, 1.0, 31).equals(order)
    uris = order["uri"].to_pylist()
    assert [uris[i : i + 10] for i in range(0, 30, 10)] == [[uri] * 10 for uri in uris[::10]]


@given(seed=st.integers(0, 2**31 - 1))
def test_row_groups_and_clips_are_in_the_order_of_their_draws(seed: int):
    in_groups = [
        {"key": f"{file}/{group}/{row}", "uri": f"/x/{file}.parquet", "row_group": group, "row": row}
        for file in "ba"
        for group in range(3)
        for row in range(4)
    ]
    rows = [*in_groups, *({"key": f"{n}.wav", "uri": f"/x/{n}.wav"} for n in range(4))]

    def drawn(row: dict) -> tuple[float, float]:
        name = f"{row['uri'].rpartition('/')[2]}:{row.get('row_group')}"
        return draw(seed, name), draw(seed, row["key"])

    for each in (rows, in_groups):
        taken = select(Listing.from_rows(each).items, 1.0, seed)["key"].to_pylist()
        assert taken == [row["key"] for row in sorted(each, key=drawn)]
