"""The index of a run's clips: chosen splits of several sources, laid end to end."""

from __future__ import annotations

import json
import pickle
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.sources import write_source

from unfused_ray.config import FrontEndConfig, PretrainConfig
from unfused_ray.data.shards.format import Manifest, Shard, Statistics
from unfused_ray.data.shards.index import ClipIndex, Unit, read_unit
from unfused_ray.data.shards.statistics import compute_statistics
from unfused_ray.training.driver.data import read_data
from unfused_ray.training.driver.launch import check

SPLITS = ("", "test", "train", "valid")
SHARDS = (
    {"sizes": [[2, 1], [3], [1], [2]], "splits": ["", "test", "train", "valid"]},
    {"sizes": [[1], [2, 2], [1, 1], [2], [1]], "splits": ["valid", "train", "train", "test", ""]},
)


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> list[Manifest]:
    folder = tmp_path_factory.mktemp("sources")
    return [write_source(folder / str(i), **shards, lengths=(1_600, 2_400)) for i, shards in enumerate(SHARDS)]


def test_what_is_written_is_read(sources: list[Manifest]) -> None:
    assert [Manifest.load(source.uri) for source in sources] == sources


def test_later_statistics_name_their_version_and_are_read_without_one(tmp_path: Path) -> None:
    front_end = FrontEndConfig(num_mels=32)
    manifest = write_source(tmp_path, [[2], [1]], (1_600, 2_400))
    computed = compute_statistics(manifest, front_end)
    (file,) = tmp_path.glob("statistics-*.json")
    content = json.loads(file.read_text())
    assert content.pop("format_version") == 1
    file.write_text(json.dumps(content))  # the first versions wrote none
    assert Manifest.load(manifest.uri).statistics(front_end) == computed
    file.write_text(json.dumps({"format_version": 99, **content}))
    with pytest.raises(ValueError, match=r"statistics-.*format_version 99.*delete it: it is computed again"):
        Manifest.load(manifest.uri)
    file.unlink()
    assert compute_statistics(Manifest.load(manifest.uri), front_end) == computed


@settings(max_examples=25)  # each example reads files
@given(groups=st.lists(st.integers(0, 2), min_size=len(SPLITS), max_size=len(SPLITS)))
def test_selections_by_split_part_the_clips(sources: list[Manifest], groups: list[int]) -> None:
    whole = ClipIndex(sources)
    keys: Counter[str] = Counter()
    statistics = Statistics()
    for group in set(groups):
        selected = [split for split, its in zip(SPLITS, groups, strict=True) if its == group]
        index = ClipIndex.load([source.uri for source in sources], selected)
        read, splits = [], []
        for unit in index.units:
            assert unit.first_clip_id == len(read)  # no gap
            rows = read_unit(unit, ("key", "split")).to_pydict()
            read += rows["key"]
            splits += rows["split"]
        assert index.num_clips == len(read) == len(index.column("key"))
        assert index.column("key") == read
        assert set(splits) == set(selected)
        keys.update(read)
        found = index.statistics(FrontEndConfig())
        assert found is not None
        statistics += found
    assert keys == Counter(whole.column("key"))
    of_all = whole.statistics(FrontEndConfig())
    assert of_all is not None and statistics.count == of_all.count
    assert statistics.mean == pytest.approx(of_all.mean, rel=1e-12)


def test_the_source_of_a_clip_is_that_which_it_was_taken_from(sources: list[Manifest]) -> None:
    for splits in (None, ("", "valid")):
        index = ClipIndex(sources, splits)
        expected = [source.uri for source in index.manifests for _ in ClipIndex([source]).column("key")]
        assert len(set(expected)) == len(sources)
        assert [index.source_of(clip_id).uri for clip_id in range(index.num_clips)] == expected


@given(sources=st.lists(st.lists(st.lists(st.integers(1, 9), max_size=4), max_size=4), min_size=1, max_size=3))
def test_units_are_the_row_groups_laid_end_to_end(sources: list[list[list[int]]]) -> None:
    manifests, expected = [], []
    for source, shards in enumerate(sources):
        contents = [
            Shard(f"{number}.parquet", "", tuple(row_groups), 1.0, 1, f"{source}/{number}", {})
            for number, row_groups in enumerate(shards)
        ]
        manifests.append(Manifest(f"/source{source}", tuple(contents), {}, {}))
        for shard in contents:
            for row_group, num_clips in enumerate(shard.row_groups):
                first = sum(unit.num_clips for unit in expected)
                expected.append(Unit(f"/source{source}/{shard.file}", row_group, num_clips, first, shard.sha256))
    units = pickle.loads(pickle.dumps(ClipIndex(manifests))).units
    assert list(units) == expected and len(units) == len(expected)
    assert repr(units[:]) == repr(tuple(expected))  # plain integers: random draws depend on how they print
    assert units[1:-1] == tuple(expected[1:-1])
    if expected:
        assert units[-1] == expected[-1] and units[units.num_clips.argmax()].num_clips == max(units.num_clips)


def test_the_checksum_is_that_of_the_selected_shards(sources: list[Manifest], tmp_path: Path) -> None:
    other = write_source(tmp_path, [[2, 1], [3], [1], [3]], splits=SHARDS[0]["splits"], lengths=(1_600, 2_400))
    for splits, equal in ((["", "train"], True), (["valid"], False), (None, False)):
        theirs, ours = (ClipIndex([source], splits).checksums for source in (other, sources[0]))
        assert (theirs == ours) == equal


def test_splits_that_a_source_has_not_are_refused_with_those_it_has(sources: list[Manifest], tmp_path: Path) -> None:
    only_test = write_source(tmp_path, [[3], [1]], splits=["test", "dev"])
    with pytest.raises(ValueError, match=r"splits=\('', 'train'\) select no clip of .* has 3 of 'test', 1 of 'dev'"):
        ClipIndex([sources[0], only_test], ("", "train"))
    with pytest.raises(ValueError, match=r"splits=\(\) select no clip"):
        ClipIndex(sources, ())


def test_a_split_that_no_source_has_is_refused(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_source(tmp_path / name, [[3], [1]], splits=["train", name])
    uris = [str(tmp_path / "one"), str(tmp_path / "two")]
    assert ClipIndex.load(uris, ("", "train", "two")).num_clips == 7
    with pytest.raises(
        ValueError, match=r"no clip of .*one, .*two is of the split 'vlid'. There are 'one', 'train', 'two'"
    ):
        ClipIndex.load(uris, ("train", "vlid"))


def test_a_source_that_is_named_twice_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    uri = write_source(tmp_path / "one", [[70]]).uri
    data = read_data(PretrainConfig(data=(uri, uri)))
    assert data.index.num_clips == 140
    assert "one is named 2 times: its clips are drawn that often in every epoch" in caplog.text


def test_pre_training_never_sees_validation_or_test(sources: list[Manifest]) -> None:
    config = PretrainConfig.model_validate(
        {
            "data": [source.uri for source in sources],
            "method": {"kind": "decar-v2", "num_clusters": [2]},
            "batch": {"block": 2},
        }
    )
    index = check(config).index
    assert set(index.column("split")) == {"", "train"}
    assert index.num_clips == sum(source.clips_by_split[split] for source in sources for split in ("", "train"))


def test_statistics_of_a_damaged_clip_name_its_shard_and_what_to_do(tmp_path: Path) -> None:
    manifest = write_source(tmp_path, [[3, 2]], damaged=[4])
    named = re.escape(f"{tmp_path / '00000.parquet'}, row group 1, holds a damaged clip (unreadable: ")
    with pytest.raises(ValueError, match=f"{named}.*copy the shard again, or prepare its source again"):
        compute_statistics(manifest, FrontEndConfig(num_mels=32))


@pytest.mark.parametrize("change", [{"shards": [{"file": "x"}]}, {"rejects": [1]}, {"config": "prepare"}])
def test_a_damaged_manifest_is_refused_with_its_place(tmp_path: Path, change: dict[str, Any]) -> None:
    path = Path(write_source(tmp_path, [[1]]).uri) / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ValueError, match=f"{path} is not as unfused-ray prepare has written it"):
        Manifest.load(str(tmp_path))


@pytest.mark.parametrize("sums", [None, {"count": "few"}, 3])
def test_damaged_later_statistics_are_refused_with_their_place(tmp_path: Path, sums: object) -> None:
    (shard,) = write_source(tmp_path, [[1]]).shards
    file = tmp_path / "statistics-0a.json"
    file.write_text(json.dumps({"front_end": "0a", "shards": {shard.sha256: sums}} if sums else {}))
    with pytest.raises(ValueError, match=rf"(?s){file} is damaged .*: delete it: it is computed again"):
        Manifest.load(str(tmp_path))


def test_another_version_of_the_format_is_refused(tmp_path: Path) -> None:
    path = Path(write_source(tmp_path, [[1]]).uri) / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "format_version": 0}))
    with pytest.raises(ValueError, match="format_version 0, this version reads 1"):
        Manifest.load(str(tmp_path))
