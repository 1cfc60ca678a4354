"""Hub Parquet with paths instead of audio, with several columns of audio, and with other odd columns."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.inputs import HUB_AUDIO, column, encoded, ends, hub_cells, listed, said, write_clips, write_hub

from unfused_ray.audio.decode import AudioError
from unfused_ray.config import ColumnsConfig
from unfused_ray.data.sources import fetch as fetching
from unfused_ray.data.sources.fetch import fetch
from unfused_ray.data.sources.parquet import read_column

AUDIO = {"audio": {"_type": "Audio"}}


@pytest.mark.parametrize("place", ["absolute", "beside the file", "from the folder above", "from the source"])
@pytest.mark.parametrize("kind", ["bytes are null", "bytes are of no type", "a struct of a path", "text"])
def test_a_path_without_bytes_is_read(tmp_path: Path, place: str, kind: str) -> None:
    names = ["wavs/0.wav", "wavs/ä.wav"]
    root = {"beside the file": "data/en/train", "from the folder above": "data/en"}.get(place, "")
    write_clips(tmp_path / root, *names)
    paths = [str(tmp_path / name) for name in names] if place == "absolute" else names
    cells: pa.Array = {
        "bytes are null": pa.array([{"bytes": None, "path": path} for path in paths], HUB_AUDIO),
        "bytes are of no type": pa.array([{"bytes": None, "path": path} for path in paths]),
        "a struct of a path": pa.array([{"path": path} for path in paths]),
        "text": pa.array(paths),
    }[kind]
    file = tmp_path / "data/en/train/0000.parquet"
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"audio": cells, "label": ["x", "y"]}), file)
    listing = listed(tmp_path)
    assert column(listing, "key") == paths and column(listing, "labels") == [["x"], ["y"]]
    assert column(listing, "split") == ["train", "train"]
    assert listing.rejects == () and ends(tmp_path) == ["read", "read"]


@pytest.mark.parametrize("statistics", [True, False])
def test_rows_with_bytes_and_rows_with_paths_may_lie_together(tmp_path: Path, statistics: bool) -> None:
    write_clips(tmp_path, "a.wav")
    cells = [{"bytes": None, "path": "a.wav"}, *hub_cells(1), {"bytes": None, "path": "none.wav"}, None]
    table = pa.table({"audio": pa.array(cells, HUB_AUDIO)})
    pq.write_table(table, tmp_path / "x.parquet", write_statistics=statistics)
    assert ends(tmp_path / "x.parquet") == ["read", "read", "missing", "empty"]


def test_columns_of_a_class_each_are_said_not_to_be_labels(tmp_path: Path) -> None:
    marks = {"dog": [True, False], "cat": [1, 1], "number": [3, 1]}
    pq.write_table(pa.table({"audio": pa.array(hub_cells(2), HUB_AUDIO), **marks}), tmp_path / "x.parquet")
    assert "columns dog, cat hold 0 and 1, as if each were a class" in said(listed(tmp_path), "look again")


def test_a_path_that_holds_credentials_is_refused(tmp_path: Path) -> None:
    write_hub(tmp_path / "x.parquet", [{"bytes": None, "path": "s3://key:secret@bucket/a.wav"}])
    with pytest.raises(ValueError, match=r"column audio of .*x\.parquet names s3://…@bucket/a\.wav") as error:
        listed(tmp_path / "x.parquet")
    assert "secret" not in str(error.value)


def test_audio_beside_parquet_that_does_not_name_it_is_another_source(tmp_path: Path) -> None:
    write_clips(tmp_path, "a.wav")
    write_hub(tmp_path / "x.parquet", hub_cells(1))
    with pytest.raises(ValueError, match=r"several kinds \(audio, parquet\): name one, as in .*/\*\.parquet"):
        listed(tmp_path)
    write_clips(tmp_path, "b.wav")
    write_hub(tmp_path / "x.parquet", [{"bytes": None, "path": "b.wav"}])
    listing = listed(tmp_path)
    assert [(reject.key, reject.reason) for reject in listing.rejects] == [("a.wav", "unlisted")]


def test_several_columns_of_audio_are_refused_by_name_and_one_can_be_asked_for(tmp_path: Path) -> None:
    features: dict[str, Any] = {"noisy": {"_type": "Audio"}}
    other = pa.array([{"bytes": encoded(9), "path": "n.wav"}])
    path = write_hub(tmp_path / "x.parquet", hub_cells(1), features, noisy=other)
    with pytest.raises(ValueError, match=r"of which 2 hold bytes: name one with --columns\.audio \(audio, noisy\)"):
        listed(path)
    listing = listed(path, ColumnsConfig(audio="noisy"))
    assert column(listing, "key") == ["n.wav"] and column(listing, "column") == ["noisy"]
    assert "audio ← noisy" in said(listing, "columns used") and "audio" in said(listing, "columns ignored")
    ((_, audio),) = fetch(listing.items)
    assert audio.read() == encoded(9)
    with pytest.raises(ValueError, match=r"columns\.audio=clean: .* has audio or paths in audio, noisy"):
        listed(path, ColumnsConfig(audio="clean"))


def test_pictures_beside_the_audio_are_none(tmp_path: Path) -> None:
    picture = pa.array([{"bytes": b"\xff\xd8", "path": "n.jpg"}])
    path = write_hub(tmp_path / "x.parquet", hub_cells(1), {"image": {"_type": "Image"}}, image=picture)
    assert ends(path) == ["read"]
    write_hub(tmp_path / "y.parquet", hub_cells(1), image=picture)  # without a description it could be audio
    with pytest.raises(ValueError, match="of which 2 hold bytes"):
        listed(tmp_path / "y.parquet")


def test_metadata_that_describe_something_else_change_nothing(tmp_path: Path) -> None:
    path = write_hub(tmp_path / "x.parquet", hub_cells(1), {"label": {"_type": "Value"}, "audio": {}}, label=[3])
    assert column(listed(path), "labels") == [["3"]]


@pytest.mark.parametrize(
    ("ids", "keys"),
    [
        ([0, 1, None], ["0", "1", "2.flac"]),
        (["", "0", "b"], ["0.flac", "0", "b"]),
        ([0.0, 1.5, None], ["0.0", "1.5", "2.flac"]),
    ],
)
def test_a_key_of_nought_is_a_key(tmp_path: Path, ids: list[Any], keys: list[str]) -> None:
    assert column(listed(write_hub(tmp_path / "x.parquet", hub_cells(3), id=ids)), "key") == keys


def test_text_that_is_stored_as_bytes_is_text(tmp_path: Path) -> None:
    path = write_hub(
        tmp_path / "x.parquet",
        hub_cells(3),
        {"label": {"_type": "Value"}, "split": {"_type": "Value"}, "id": {"_type": "Value"}},
        label=["Käfer".encode(), b"dog", b"\xe4"],
        split=[b"train", b"test", b"train"],
        id=[b"one", b"two", b"three"],
    )
    listing = listed(path)
    assert column(listing, "key") == ["one", "two"]
    assert column(listing, "labels") == [["Käfer"], ["dog"]]
    assert column(listing, "split") == ["train", "test"]
    assert [(reject.key, reject.reason) for reject in listing.rejects] == [("three", "unreadable")]


def test_labels_in_maps_are_read_as_those_in_structs(tmp_path: Path) -> None:
    labels = pa.array([[("dog", 1), ("cat", 0)]], pa.map_(pa.string(), pa.int64()))
    assert column(listed(write_hub(tmp_path / "x.parquet", hub_cells(1), labels=labels)), "labels") == [["dog"]]


@pytest.mark.parametrize("cell", [{"path": "0.wav", "array": [0.0], "sampling_rate": 1}, {"array": [0.0]}, [0.0]])
def test_samples_instead_of_files_are_refused_with_a_remedy(tmp_path: Path, cell: Any) -> None:
    write_clips(tmp_path, "0.wav")  # the file may be longer than the array
    pq.write_table(pa.table({"audio": [cell]}), tmp_path / "x.parquet")
    with pytest.raises(ValueError, match=r"of which 0 hold bytes: .*audio holds samples: write .* as bytes"):
        listed(tmp_path / "x.parquet")


def test_a_row_group_is_not_held_as_a_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    size, count = 1 << 16, 1 << 10
    cells = [{"bytes": row.to_bytes(2, "big") * (size // 2), "path": None} for row in range(count)]
    plain = {"compression": "none", "use_dictionary": False, "write_batch_size": 16}
    pq.write_table(pa.table({"audio": pa.array(cells, HUB_AUDIO)}), tmp_path / "x.parquet", **plain)  # as pandas writes
    items = listed(tmp_path / "x.parquet").items.take([1000, 3])
    before, held = pa.total_allocated_bytes(), list[int]()

    def watched(*place: Any) -> Iterator[pa.Array]:
        for cells in read_column(*place):
            held.append(pa.total_allocated_bytes() - before)
            yield cells

    monkeypatch.setattr(fetching, "read_column", watched)
    found = []
    for _, audio in fetch(items):
        held.append(pa.total_allocated_bytes() - before)
        assert not isinstance(audio, AudioError)
        found.append(audio.read(2))
    assert found == [row.to_bytes(2, "big") for row in (1000, 3)]
    assert max(held) < size * count / 2
