"""Indexes find what comparing all vectors finds, whatever is added, removed, interrupted or damaged."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.paths import contents_below
from support.terminal import Ended, text_of
from support.vectors import SHA256, cosines, groups_of, write_vectors

from unfused_ray import api, storage
from unfused_ray.api import search
from unfused_ray.config import IndexConfig, SearchConfig
from unfused_ray.data.parts import driver
from unfused_ray.data.shards.format import MANIFEST
from unfused_ray.embedding.vectors import VectorFile, vector_schema
from unfused_ray.extras import MissingExtraError
from unfused_ray.lease import InUseError, Lease
from unfused_ray.retrieval import job, plan, vector_parts
from unfused_ray.retrieval.collection import Collection
from unfused_ray.retrieval.format import INDEX, IndexManifest
from unfused_ray.retrieval.job import run
from unfused_ray.retrieval.plan import check, describe
from unfused_ray.retrieval.search import check as check_search
from unfused_ray.retrieval.search import run as run_search
from unfused_ray.retrieval.space import VectorSpace, best, unit
from unfused_ray.retrieval.training import TrainedIndex, balanced, kind_for, num_lists, train

LISTS = {"exact_up_to": 100}
CODES = {"exact_up_to": 100, "quantize_above": 1_000}


def index(config: IndexConfig | str = "default", **fields: Any) -> IndexManifest:
    """Make an index; folders may be ``Path`` objects."""

    def text(value: Any) -> Any:
        return tuple(map(text, value)) if isinstance(value, list) else str(value) if isinstance(value, Path) else value

    return api.index(config, **{name: text(value) for name, value in fields.items()})


def files_of(folder: Path) -> dict[str, bytes]:
    """Read the files that the manifest of an index signs, by their names alone."""
    return {path.name: data for path, data in contents_below(folder).items() if path.name != INDEX}


def everything(collection: Collection) -> np.ndarray:
    return np.ones(collection.manifest.num_vectors, bool)


@given(seed=st.integers(0, 99), count=st.integers(2, 60), dim=st.integers(2, 9), most=st.integers(1, 12))
def test_the_whitened_space_has_the_variances_that_it_promises(seed: int, count: int, dim: int, most: int) -> None:
    sample = np.random.default_rng(seed).normal(size=(count, dim)) * np.arange(1, dim + 1)
    space = VectorSpace.fit(sample, "whitened", most)
    assert 1 <= space.dim <= min(most, dim)
    assert space.components is not None
    centred = unit(sample) - space.mean
    halved = np.cov((centred @ space.components).T).reshape(space.dim, space.dim)
    variances = np.sort(np.linalg.eigvalsh(np.cov(centred.T).reshape(dim, dim)))[::-1][: space.dim]
    np.testing.assert_allclose(halved, np.diag(np.sqrt(variances)), atol=2e-3 * np.sqrt(variances[0]))
    mapped = space.apply(sample)
    np.testing.assert_allclose(np.linalg.norm(mapped, axis=1), 1, rtol=1e-4)
    np.testing.assert_allclose(space.apply(1000 * sample), mapped, atol=1e-4)  # lengths of vectors do not matter


@given(st.data())
def test_the_best_of_rows_are_those_of_a_stable_sort(data: st.DataObject) -> None:
    rows, columns = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 12))
    values = np.array(data.draw(st.lists(st.integers(0, 5), min_size=rows * columns, max_size=rows * columns)), float)
    count = data.draw(st.integers(0, 14))
    expected = np.argsort(-values.reshape(rows, columns), axis=1, kind="stable")[:, :count]
    distinct = best(values.reshape(rows, columns), count)
    sorted_values = np.take_along_axis(values.reshape(rows, columns), distinct, axis=1)
    assert np.array_equal(sorted_values, np.take_along_axis(values.reshape(rows, columns), expected, axis=1))


def test_an_exact_index_finds_what_comparing_all_vectors_finds(tmp_path: Path) -> None:
    vectors = groups_of(0, 90, 16)
    write_vectors(tmp_path / "a", vectors[:50], (20, 30))
    write_vectors(tmp_path / "b", vectors[50:])
    manifest = index(vectors=[tmp_path / "a", tmp_path / "b"], output=str(tmp_path / "i"), metric="cosine")
    assert (manifest.num_vectors, manifest.trained.kind, manifest.recall.value) == (90, "exact", 1.0)
    collection = Collection.open(str(tmp_path / "i"))
    for query in groups_of(1, 5, 16):
        ids, similarities = collection.nearest(unit(query), 10, everything(collection))
        expected = cosines(query, vectors)
        assert ids.tolist() == np.argsort(-expected)[:10].tolist()
        np.testing.assert_allclose(similarities, np.sort(expected)[::-1][:10], atol=1e-5)


@settings(max_examples=20)
@given(data=st.data())
def test_hits_pass_the_filters_one_a_recording_and_never_the_question(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    tmp_path = tmp_path_factory.mktemp("filters")
    count = data.draw(st.integers(3, 30))
    draw = lambda values: [data.draw(st.sampled_from(values)) for _ in range(count)]  # noqa: E731
    recordings, splits = draw("abcde"), draw(["train", "test"])
    pieces = [f"{name}.wav" if number % 2 else f"{name}.wav@{10 * number}" for number, name in enumerate(recordings)]
    lengths, labels = draw([0.5, 1.0, 2.0]), draw([[], ["x"], ["x", "y"], ["z"]])
    vectors = groups_of(data.draw(st.integers(0, 9)), count, 5)
    groups = [f"{name}.wav" for name in recordings]
    columns = {"key": pieces, "split": splits, "group": groups, "end_seconds": lengths, "labels": labels}
    write_vectors(tmp_path / "v", vectors, **columns, clip_id=list(range(count)))
    index(vectors=tmp_path / "v", output=str(tmp_path / "i"), metric="cosine")
    several = sorted({label for each in labels for label in each})
    wanted: dict[str, Any] = {
        "splits": data.draw(st.sets(st.sampled_from(sorted({*splits})))),
        "labels": data.draw(st.sets(st.sampled_from(several), max_size=2)) if several else (),
        "min_seconds": data.draw(st.sampled_from([0.0, 0.7])),
    }
    passing = [
        (not wanted["splits"] or splits[row] in wanted["splits"])
        and (not wanted["labels"] or bool({*labels[row]} & {*wanted["labels"]}))
        and lengths[row] >= wanted["min_seconds"]
        for row in range(count)
    ]
    asked = data.draw(st.integers(0, count - 1))
    if not any(passing):
        with pytest.raises(ValueError, match=rf"none of the {count} vectors of .* passes the filters"):
            search(str(tmp_path / "i"), key=pieces[asked], **wanted)
        return
    found = search(str(tmp_path / "i"), key=pieces[asked], count=3, **wanted)
    meant = [row for row in range(count) if pieces[asked] in (pieces[row], recordings[row] + ".wav")]
    question = unit(unit(vectors[meant].astype(np.float64)).mean(axis=0))
    similarities = cosines(question, vectors)
    nearest: dict[str, float] = {}
    for row in range(count):
        if passing[row] and recordings[row] != recordings[asked]:
            nearest[recordings[row]] = max(nearest.get(recordings[row], -2.0), similarities[row])
    expected = sorted(nearest.values(), reverse=True)[:3]
    np.testing.assert_allclose([hit.similarity for hit in found.hits], expected, atol=1e-5)
    assert len({hit.clip.recording for hit in found.hits}) == len(found.hits)
    assert [hit.rank for hit in found.hits] == list(range(1, len(expected) + 1))


@pytest.mark.parametrize("sizes", [LISTS, CODES], ids=["lists", "codes"])
def test_inverted_lists_reach_the_recall_that_the_index_says(sizes: dict[str, int], tmp_path: Path) -> None:
    vectors = groups_of(0, 1_200, 8, groups=100)
    write_vectors(tmp_path / "v", vectors, (500, 700))
    manifest = index(vectors=tmp_path / "v", output=str(tmp_path / "i"), metric="cosine", recall=0.9, **sizes)
    assert manifest.trained.kind == ("lists" if sizes is LISTS else "quantised")
    assert list(manifest.recall.by_lists.values())[-1] == manifest.recall.value
    collection = Collection.open(str(tmp_path / "i"))
    shares = []
    for query in groups_of(1, 100, 8, groups=100):
        ids, _ = collection.nearest(unit(query), 10, everything(collection))
        shares.append(len({*ids.tolist()} & {*np.argsort(-cosines(query, vectors))[:10].tolist()}) / 10)
    assert np.mean(shares) == pytest.approx(manifest.recall.value, abs=0.06)
    if sizes is LISTS:
        assert manifest.recall.value >= 0.9
    # If few clips pass, all lists are searched, and the answer is exact but for the rounding of codes.
    few = np.zeros(1_200, bool)
    few[::120] = True
    ids, similarities = collection.nearest(unit(query), 10, few)
    assert sorted(ids.tolist()) == np.flatnonzero(few).tolist()
    np.testing.assert_allclose(
        similarities, collection.vectors(ids) @ unit(query), atol=0.01 if sizes is CODES else 1e-3
    )


@pytest.mark.parametrize("sizes", [{}, LISTS], ids=["exact", "lists"])
def test_a_source_added_and_removed_leaves_the_index_as_it_was(sizes: dict[str, int], tmp_path: Path) -> None:
    for number, name in enumerate("abc"):
        write_vectors(tmp_path / name, groups_of(number, 200, 12))
    output = str(tmp_path / "i")
    index(vectors=[tmp_path / "a", tmp_path / "b"], output=output, **sizes)
    before = contents_below(tmp_path / "i")
    grown = index(add=tmp_path / "c", output=output, **sizes)
    assert [source.name for source in grown.sources] == ["a", "b", "c"]
    index(vectors=[tmp_path / "a", tmp_path / "b", tmp_path / "c"], output=str(tmp_path / "at-once"), **sizes)
    if not sizes:  # an exact index does not depend on its history
        assert contents_below(tmp_path / "i") == contents_below(tmp_path / "at-once")
    names = {hit.clip.source for hit in search(output, key="clip-0.wav", key_source="a", count=30).hits}
    assert names == {"a", "b", "c"}
    removed = index(remove=("c",), output=output, **sizes)
    assert removed.num_vectors == 400
    assert contents_below(tmp_path / "i") == before
    for _ in range(2):  # to another folder, and back
        index(rebuild=True, output=output, **sizes)
        assert files_of(tmp_path / "i") == {path.name: data for path, data in before.items() if path.name != INDEX}
    assert contents_below(tmp_path / "i") == before


def test_a_name_that_is_also_the_path_of_another_source_removes_neither(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = [tmp_path / name for name in ("x/a", "y/a", "c")]
    for number, folder in enumerate(folders):
        write_vectors(folder, groups_of(number, 20, 6))
    output = str(tmp_path / "i")
    index(vectors=folders, output=output)
    monkeypatch.chdir(tmp_path / "y")
    with pytest.raises(ValueError, match=r"remove=a is both .*/x/a and .*/y/a, the one by its name in the index and"):
        index(remove=("a",), output=output)
    left = index(remove=(str(tmp_path / "x/a"), "c"), output=output)
    assert [source.name for source in left.sources] == ["a (2)"]


def test_an_index_that_has_doubled_is_trained_anew(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for number, name in enumerate("abcd"):
        write_vectors(tmp_path / name, groups_of(number, 200, 12))
    output = str(tmp_path / "i")
    first = index(vectors=tmp_path / "a", output=output, **LISTS)
    assert index(add=tmp_path / "b", output=output, **LISTS).trained == first.trained
    with caplog.at_level("INFO"):
        grown = index(add=tmp_path / "c", output=output, **LISTS)
    assert grown.trained.id != first.trained.id and "is trained anew, on its 600 vectors" in caplog.text
    assert not (tmp_path / "i" / first.trained.id).exists()
    assert index(remove=("a", "b"), output=output, **{**LISTS}).trained.id != grown.trained.id


def test_vectors_without_a_direction_are_left_out_and_counted(tmp_path: Path) -> None:
    vectors = groups_of(0, 30, 6)
    vectors[3], vectors[7, 2] = 0, np.nan
    write_vectors(tmp_path / "v", vectors, (5, 25))
    manifest = index(vectors=tmp_path / "v", output=str(tmp_path / "i"))
    assert manifest.num_vectors == 28
    assert re.search(r"left out, without a direction +│ +2 ", text_of(plan.describe_manifest(manifest)))
    keys = {hit.clip.key for hit in search(manifest.uri, key="clip-0.wav", count=99).hits}
    assert keys == {f"clip-{row}.wav" for row in range(1, 30)} - {"clip-3.wav", "clip-7.wav"}
    with pytest.raises(ValueError, match=r"key=clip-3\.wav is not a clip of"):
        search(manifest.uri, key="clip-3.wav")
    write_vectors(tmp_path / "none", np.zeros((4, 6)))
    with pytest.raises(ValueError, match=r"none of the 4 vectors of .* has a direction"):
        index(vectors=tmp_path / "none", output=str(tmp_path / "j"))


def test_lists_are_trained_on_the_vectors_with_a_direction(tmp_path: Path) -> None:
    vectors = np.zeros((1_100, 6), np.float32)
    write_vectors(tmp_path / "none", vectors)
    with pytest.raises(ValueError, match=r"0 of 1,080 vectors that were drawn have a direction, and 1 are needed to"):
        index(vectors=tmp_path / "none", output=str(tmp_path / "j"), **LISTS)
    vectors[5:8] = groups_of(0, 3, 6)
    vectors[9], vectors[10] = 1e-30, 1e30  # their lengths are 0 and infinite in float32
    write_vectors(tmp_path / "few", vectors)
    manifest = index(vectors=tmp_path / "few", output=str(tmp_path / "i"), **LISTS)
    assert (manifest.num_vectors, manifest.trained.kind) == (3, "lists")
    assert len(search(manifest.uri, key="clip-5.wav", count=99).hits) == 2
    with pytest.raises(ValueError, match=r"and 256 are needed to train .* of 1,100: give a larger --quantize-above"):
        index(vectors=tmp_path / "few", output=str(tmp_path / "k"), **CODES)


@pytest.mark.parametrize("sizes", [{}, {"exact_up_to": 0}], ids=["exact", "lists"])
@pytest.mark.parametrize("count", [1, 40])
def test_vectors_of_one_direction_are_equally_near(
    count: int, sizes: dict[str, int], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_vectors(tmp_path / "v", np.full((count, 7), 0.3) * np.arange(1, count + 1)[:, None])
    manifest = index(vectors=tmp_path / "v", output=str(tmp_path / "i"), **sizes)
    assert "codes are rounded" not in caplog.text and manifest.recall.value == 1
    hits = search(manifest.uri, key="clip-0.wav", count=99).hits
    assert [round(hit.similarity, 3) for hit in hits] == [1.0] * (count - 1)


def test_a_part_without_vectors_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vector_parts, "PART_VECTORS", 40)
    manifest = write_vectors(tmp_path / "v", groups_of(0, 90, 8), (50, 40))
    pq.ParquetWriter(tmp_path / "v/part-00002.parquet", vector_schema(8, SHA256, "last")).close()  # all set aside
    data = (tmp_path / "v/part-00002.parquet").read_bytes()
    empty = VectorFile("part-00002.parquet", 0, 0, len(data), storage.sha256(data))
    replace(manifest, parts=(manifest.parts[0], empty, manifest.parts[1])).save()
    (source,) = index(vectors=tmp_path / "v", output=str(tmp_path / "i")).sources
    assert [part.num_vectors for part in source.parts] == [50, 40]


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    write_vectors(tmp_path / "a", groups_of(0, 20, 6))
    write_vectors(tmp_path / "b", groups_of(1, 20, 6), sha256="f" * 64)
    write_vectors(tmp_path / "c", groups_of(2, 20, 6))
    output = str(tmp_path / "i")
    with pytest.raises(
        ValueError, match=r"b are by the encoder /nowhere/encoder \(ffffffffffff, readout last\), others by"
    ):
        index(vectors=[tmp_path / "a", tmp_path / "b"], output=output)
    with pytest.raises(FileNotFoundError, match=r"holds no index\.json, so there is nothing to change"):
        index(add=tmp_path / "a", output=output)
    with pytest.raises(FileNotFoundError, match=r"holds no manifest\.json: it has no vectors\. Make them with"):
        index(vectors=tmp_path, output=output)
    with pytest.raises(ValueError, match=r"c holds manifest\.json: it is a prepared source.*Give another --output"):
        index(vectors=tmp_path / "a", output=str(tmp_path / "c"))
    index(vectors=tmp_path / "a", output=output)
    with pytest.raises(ValueError, match="ffffffffffff"):
        index(add=tmp_path / "b", output=output)
    with pytest.raises(ValueError, match="are in the index already"):
        index(add=tmp_path / "a", output=output)
    with pytest.raises(ValueError, match=r"is an index of .*a, not of .*c: change it with --add and --remove"):
        index(vectors=tmp_path / "c", output=output)
    with pytest.raises(ValueError, match=r"remove=x is no source of .*, which has a \("):
        index(remove=("x",), output=output)
    with pytest.raises(ValueError, match="would hold no vectors"):
        index(remove=("a",), output=output)
    with pytest.raises(ValueError, match="metric: whitened there, cosine asked for"):
        index(vectors=tmp_path / "a", output=output, metric="cosine")
    with pytest.raises(ValueError, match=r"to add to it or to remove from it, give --metric whitened --seed 0$"):
        index(add=tmp_path / "c", output=output, metric="cosine", seed=3)
    with pytest.raises(ValueError, match="give either vectors, or add and remove"):
        IndexConfig(vectors=("a",), add=("b",))
    with pytest.raises(ValueError, match="quantize_above=1000 must not be below exact_up_to=2000"):
        IndexConfig(exact_up_to=2_000, quantize_above=1_000)
    with pytest.raises(ValueError, match="has format_version 1, this version reads vectors 3"):
        manifest = json.loads((tmp_path / "a" / "manifest.json").read_text()) | {"format_version": 1}
        (tmp_path / "c" / "manifest.json").write_text(json.dumps(manifest))
        index(vectors=tmp_path / "c", output=str(tmp_path / "j"))


@pytest.mark.parametrize("change", [{"parts": [{"file": "part-00000.parquet"}]}, {"dim": "six"}, {"contents": None}])
def test_vectors_whose_manifest_is_damaged_are_refused_with_its_place(tmp_path: Path, change: dict[str, Any]) -> None:
    path = Path(write_vectors(tmp_path / "a", groups_of(0, 20, 6)).uri, MANIFEST)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ValueError, match=rf"^{path} is not as unfused-ray embed has written it"):
        index(vectors=tmp_path / "a", output=str(tmp_path / "i"))


def test_a_finished_index_is_left_alone_and_a_changed_source_refused(tmp_path: Path) -> None:
    write_vectors(tmp_path / "v", groups_of(0, 20, 6))
    config = IndexConfig(vectors=(str(tmp_path / "v"),), output=str(tmp_path / "i"))
    assert "vectors to encode" in text_of(describe(check(config))) and not (tmp_path / "i").exists()
    manifest = index(config)
    before = contents_below(tmp_path / "i")
    assert index(config) == manifest and contents_below(tmp_path / "i") == before
    assert "is up to date: nothing to do" in text_of(describe(check(config)))
    write_vectors(tmp_path / "v", groups_of(1, 20, 6))
    with pytest.raises(ValueError, match="have changed since they were indexed: make the index anew with --rebuild"):
        index(config)
    assert index(config, rebuild=True).sources[0].digest != manifest.sources[0].digest
    shutil.rmtree(tmp_path / "v")
    assert index(config).num_vectors == 20


@pytest.mark.parametrize("sizes", [{}, LISTS], ids=["exact", "lists"])
def test_a_source_embedded_anew_is_not_mixed_into_a_changed_index(sizes: dict[str, int], tmp_path: Path) -> None:
    for number, name in enumerate("abcd"):
        write_vectors(tmp_path / name, groups_of(number, 150, 6))
    output = str(tmp_path / "i")
    index(vectors=[tmp_path / "a", tmp_path / "b", tmp_path / "c"], output=output, **sizes)
    before = contents_below(tmp_path / "i")
    write_vectors(tmp_path / "a", groups_of(9, 150, 6), sha256="f" * 64)
    for change in ({"remove": ("c",)}, {"add": tmp_path / "d"}):
        with pytest.raises(ValueError, match=r"the vectors of .*a have changed since they were indexed: .* --rebuild"):
            index(output=output, **change, **sizes)
    with pytest.raises(ValueError, match=r"are by the encoder .*ffffffffffff.* embed all sources with one encoder"):
        index(output=output, remove=("c",), rebuild=True, **sizes)
    assert contents_below(tmp_path / "i") == before
    write_vectors(tmp_path / "a", groups_of(9, 150, 6))
    assert index(output=output, remove=("c",), rebuild=True, **sizes).num_vectors == 300
    write_vectors(tmp_path / "a", groups_of(8, 150, 6))
    assert index(output=output, remove=("a",), **sizes).num_vectors == 150  # the changed source is removed


def test_making_an_index_anew_tells_which_settings_change(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_vectors(tmp_path / "a", groups_of(0, 20, 6))
    output = str(tmp_path / "i")
    index(vectors=tmp_path / "a", output=output, metric="cosine", seed=3, rebuild=True)
    index(output=output, metric="cosine", seed=3, rebuild=True)
    assert "setting" not in caplog.text
    for fields in ({}, {"vectors": (str(tmp_path / "a"),)}):
        check(IndexConfig(output=output, rebuild=True, **fields))
        assert 'is made anew, because a setting has changed: metric: "cosine" → "whitened"' in caplog.text
        assert "is made anew, because a setting has changed: seed: 3 → 0" in caplog.text
        caplog.clear()


def test_an_index_is_not_emptied_by_making_it_anew(tmp_path: Path) -> None:
    write_vectors(tmp_path / "a", groups_of(0, 20, 6))
    index(vectors=tmp_path / "a", output=str(tmp_path / "i"))
    with pytest.raises(ValueError, match="would hold no vectors: to remove the last source, delete that folder"):
        index(remove=("a",), rebuild=True, output=str(tmp_path / "i"))


def test_an_index_that_another_process_makes_or_has_changed_is_refused(tmp_path: Path) -> None:
    write_vectors(tmp_path / "a", groups_of(0, 20, 6))
    write_vectors(tmp_path / "b", groups_of(1, 20, 6))
    output = str(tmp_path / "i")
    config = IndexConfig(vectors=(str(tmp_path / "a"),), output=output)
    planned = check(config)
    with Lease(output, on_loss=lambda: None), pytest.raises(InUseError):
        check(config)
    run(planned)
    with pytest.raises(InUseError, match=r"has changed .* just now"):
        run(planned)  # it would write to the files of the index
    grow = check(IndexConfig(add=(str(tmp_path / "b"),), output=output))
    index(rebuild=True, vectors=(str(tmp_path / "b"),), output=output)
    with pytest.raises(InUseError, match=r"has changed .* just now"):
        run(grow)


def test_an_index_that_is_taken_over_while_its_recall_is_measured_is_not_signed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Held(Lease):
        def __init__(self, folder: str, on_loss: Callable[[], None]) -> None:
            super().__init__(folder, on_loss)
            losses.append(on_loss)

    def lose(*arguments: Any) -> Any:
        losses[0]()
        return measure(*arguments)

    losses: list[Callable[[], None]] = []
    measure = job.measure_recall
    write_vectors(tmp_path / "a", groups_of(0, 20, 6))
    planned = check(IndexConfig(vectors=(str(tmp_path / "a"),), output=str(tmp_path / "i")))
    monkeypatch.setattr(job, "Lease", Held)
    monkeypatch.setattr(job, "measure_recall", lose)
    with pytest.raises(InUseError, match=r"another process has taken .* over"):
        run(planned)
    assert not (tmp_path / "i/index.json").exists()


@pytest.mark.parametrize("where", ["index.json", "*/trained.safetensors", "*/*-00000.safetensors", "*/*.parquet"])
@pytest.mark.parametrize("damage", ["truncated", "another's", "gone"])
def test_a_damaged_index_is_refused_and_can_be_made_again(where: str, damage: str, tmp_path: Path) -> None:
    write_vectors(tmp_path / "v", groups_of(0, 20, 6))
    write_vectors(tmp_path / "w", groups_of(1, 20, 6), split=["test"] * 20)
    index(vectors=tmp_path / "v", output=str(tmp_path / "i"))
    index(vectors=tmp_path / "w", output=str(tmp_path / "j"))
    before = files_of(tmp_path / "i")
    (file,) = (tmp_path / "i").glob(where)
    (others,) = (tmp_path / "j").glob(where)
    if damage == "gone":
        file.unlink()
    elif damage == "truncated":
        file.write_bytes(file.read_bytes()[:-9])
    else:
        file.write_bytes(others.read_bytes())
    with pytest.raises((ValueError, FileNotFoundError), match=r"--rebuild|Make one|holds no index\.json"):
        search(str(tmp_path / "i"), key="clip-0.wav")
    index(vectors=tmp_path / "v", output=str(tmp_path / "i"), rebuild=True)
    assert files_of(tmp_path / "i") == before
    assert search(str(tmp_path / "i"), key="clip-0.wav").hits


def test_arrays_that_do_not_fit_are_refused_although_they_are_signed(tmp_path: Path) -> None:
    write_vectors(tmp_path / "v", groups_of(0, 200, 6))
    manifest = index(vectors=tmp_path / "v", output=str(tmp_path / "i"), **LISTS)
    trained = TrainedIndex.from_bytes((tmp_path / "i" / manifest.trained.file).read_bytes(), "x")
    assert trained.centroids is not None
    for wrong in (
        TrainedIndex(trained.space, trained.centroids[:, :3], None, trained.queries),
        TrainedIndex(trained.space, trained.centroids, np.zeros((2, 9, 3), np.float32), trained.queries),
        TrainedIndex(VectorSpace(trained.space.mean[:2], trained.space.components), None, None, trained.queries),
    ):
        with pytest.raises(ValueError, match="arrays that do not fit together"):
            TrainedIndex.from_bytes(wrong.to_bytes(), "x")
    fewer = TrainedIndex(trained.space, trained.centroids[:1], None, trained.queries).to_bytes()
    (tmp_path / "i" / manifest.trained.file).write_bytes(fewer)
    raw = json.loads((tmp_path / "i" / "index.json").read_text())
    raw["trained"]["sha256"] = storage.sha256(fewer)
    (tmp_path / "i" / "index.json").write_text(json.dumps(raw))
    with pytest.raises(ValueError, match="which its index cannot"):
        search(str(tmp_path / "i"), key="clip-0.wav")


def test_a_manifest_cannot_make_a_change_delete_files_outside_of_the_index(tmp_path: Path) -> None:
    for number, name in enumerate("ab"):
        write_vectors(tmp_path / name, groups_of(number, 20, 6))
    output = tmp_path / "i"
    index(vectors=[tmp_path / "a", tmp_path / "b"], output=str(output))
    (tmp_path / "precious").write_text("x")
    raw = json.loads((output / "index.json").read_text())
    raw["sources"][1]["parts"][0]["file"] = raw["trained"]["id"] = "../precious"
    (output / "index.json").write_text(json.dumps(raw))
    (output / "notes").mkdir()
    (output / "notes" / "mine.txt").write_text("x")
    index(remove=("b",), output=str(output))
    assert (tmp_path / "precious").exists() and (output / "notes" / "mine.txt").exists()


@pytest.mark.usefixtures("ray_session")
def test_parts_made_by_ray_after_an_interruption_are_those_of_one_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vector_parts, "PART_VECTORS", 100)
    write_vectors(tmp_path / "a", groups_of(0, 450, 12), (60, 30, 150, 100, 50, 60))
    write_vectors(tmp_path / "b", groups_of(1, 150, 12), (75, 75))
    fields = {"vectors": (str(tmp_path / "a"), str(tmp_path / "b")), **LISTS}
    whole = index(output=str(tmp_path / "here"), **fields)
    assert [[part.num_vectors for part in source.parts] for source in whole.sources] == [
        [90, 150, 100, 50, 60],
        [75, 75],
    ]
    monkeypatch.setattr(plan, "_IN_PROCESS_VECTORS", 0)
    config = IndexConfig(output=str(tmp_path / "ray"), **fields)
    update, run_parts = driver.Progress.update, 0

    def interrupt(self: driver.Progress, done: int, **figures: float | str) -> None:
        nonlocal run_parts
        update(self, done, **figures)
        run_parts += 1
        if run_parts == 4:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(driver.Progress, "update", interrupt)
        with pytest.raises(KeyboardInterrupt):
            index(config)
    assert not (tmp_path / "ray" / "index.json").exists()
    made = {path: path.stat().st_mtime_ns for path in (tmp_path / "ray").glob("*/*.safetensors")}
    assert len(made) >= 5
    index(config)
    assert sum(path.stat().st_mtime_ns == then for path, then in made.items()) >= 5  # these were not made again
    assert contents_below(tmp_path / "ray") == contents_below(tmp_path / "here")


def interrupted(monkeypatch: pytest.MonkeyPatch, place: str, **fields: Any) -> None:
    """Run a job on an index, and interrupt it when it calls the function ``place``."""

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(place, interrupt)
        with pytest.raises(KeyboardInterrupt):
            index(**fields)


@pytest.mark.parametrize(
    "place",
    ["unfused_ray.retrieval.job.measure_recall", "unfused_ray.retrieval.job.Ledger.delete"],
    ids=["before the manifest", "behind it"],
)
@pytest.mark.parametrize("change", ["add", "remove", "rebuild"])
def test_an_interrupted_change_of_an_index_hinders_no_other(
    change: str, place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for number, name in enumerate("abc"):
        write_vectors(tmp_path / name, groups_of(number, 30, 6))
    output = str(tmp_path / "i")
    index(vectors=[tmp_path / "a", tmp_path / "b"], output=output)
    changes = {"add": {"add": tmp_path / "c"}, "remove": {"remove": ("b",)}, "rebuild": {"rebuild": True, "seed": 3}}
    interrupted(monkeypatch, place, output=output, **changes[change])
    assert (tmp_path / "i" / "_index").exists() and search(output, key="clip-0.wav", key_source="a").hits
    other = index(vectors=tmp_path / "c", output=output, rebuild=True)
    assert [source.name for source in other.sources] == ["c"]
    assert "an interrupted job with another plan is discarded" in caplog.text
    index(vectors=tmp_path / "c", output=str(tmp_path / "fresh"))
    assert contents_below(tmp_path / "i") == contents_below(tmp_path / "fresh")


@pytest.mark.parametrize("named", [True, False], ids=["with its sources", "by its folder"])
def test_an_index_can_be_searched_while_it_is_made_anew(
    named: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other versions of the packages give other bytes for the same settings and vectors."""
    write_vectors(tmp_path / "v", groups_of(0, 60, 6))
    fields: dict[str, Any] = {"vectors": tmp_path / "v", "output": str(tmp_path / "i")}
    before = index(**fields)
    found = search(before.uri, key="clip-0.wav")
    fit = VectorSpace.fit

    def otherwise(*arguments: Any) -> VectorSpace:
        space = fit(*arguments)
        return replace(space, mean=space.mean + np.float32(1e-6))

    monkeypatch.setattr(VectorSpace, "fit", otherwise)
    again = {"rebuild": True, **(fields if named else {"output": before.uri})}
    for _ in range(2):  # the second begins where the first was interrupted
        interrupted(monkeypatch, "unfused_ray.retrieval.job.measure_recall", **again)
        assert search(before.uri, key="clip-0.wav") == found
    planned = check_search(SearchConfig(index=before.uri, key="clip-0.wav"))
    after = index(**again)
    assert after.trained.sha256 != before.trained.sha256
    assert [folder.name for folder in (tmp_path / "i").iterdir() if folder.is_dir()] == [after.trained.id]
    keys = [hit.clip.key for hit in run_search(planned).hits]  # opened before, and read behind the change
    assert keys == [hit.clip.key for hit in search(before.uri, key="clip-0.wav").hits]


def test_a_finished_index_loses_the_reports_of_a_job_that_did_not_come_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, name in enumerate("ab"):
        write_vectors(tmp_path / name, groups_of(number, 30, 6))
    fields = {"vectors": tmp_path / "a", "output": str(tmp_path / "i")}
    interrupted(monkeypatch, "unfused_ray.retrieval.job.Ledger.delete", **fields)
    assert (tmp_path / "i" / "_index").exists()
    index(**fields)
    before = contents_below(tmp_path / "i")
    assert not (tmp_path / "i" / "_index").exists()
    interrupted(monkeypatch, "unfused_ray.retrieval.job.measure_recall", output=fields["output"], add=tmp_path / "b")
    assert contents_below(tmp_path / "i").keys() > before.keys()
    index(**fields)
    assert contents_below(tmp_path / "i") == before  # and without the parts of the abandoned change


def test_an_object_store_holds_index_and_vectors(object_store: str, tmp_path: Path) -> None:
    vectors = groups_of(0, 120, 8)
    write_vectors(tmp_path / "v", vectors, (60, 60))
    remote = f"s3://bucket/search{object_store}"
    write_vectors(storage.join(remote, "v"), vectors, (60, 60))
    stored = index(vectors=storage.join(remote, "v"), output=storage.join(remote, "i"), **LISTS)
    local = index(vectors=tmp_path / "v", output=str(tmp_path / "i"), **LISTS)
    assert stored.trained == local.trained
    assert [source.parts for source in stored.sources] == [source.parts for source in local.sources]
    found, expected = (search(uri, key="clip-5.wav", count=7) for uri in (stored.uri, local.uri))
    assert [hit.clip.key for hit in found.hits] == [hit.clip.key for hit in expected.hits]
    with pytest.raises(ValueError, match="would hold no vectors"):
        index(remove=("v",), output=stored.uri, **LISTS)


def test_the_sizes_decide_how_vectors_are_kept() -> None:
    config = IndexConfig()
    kinds = [kind_for(config, count) for count in (1, 200_000, 200_001, 5_000_000, 5_000_001)]
    assert kinds == ["exact", "exact", "lists", "lists", "quantised"]
    assert [num_lists(count) for count in (1, 1_000, 10**6, 10**7)] == [1, 25, 4_000, 12_649]
    sample = groups_of(0, 300, 64)
    trained = train(IndexConfig(**CODES), 1_001, sample, lambda space, count: space.apply(sample[:count]))
    assert trained.codebooks is not None and trained.codebooks.shape == (64, 256, 1)


@pytest.mark.parametrize("dim", [128, 100, 64, 512, 7])
def test_each_byte_of_a_code_has_numbers_of_every_size(dim: int) -> None:
    order = balanced(dim)
    assert sorted(order.tolist()) == list(range(dim))
    num_bytes = max(each for each in range(1, 65) if dim % each == 0)
    of_bytes = order.reshape(num_bytes, -1)
    assert (of_bytes // num_bytes == np.arange(dim // num_bytes)).all()
    if dim // num_bytes % 2 == 0:  # large numbers go with small ones
        assert len({*of_bytes.sum(axis=1).tolist()}) == 1


@pytest.mark.parametrize("sizes", [LISTS, CODES], ids=["lists", "codes"])
def test_equal_vectors_say_nothing_of_the_recall(
    sizes: dict[str, int], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    vectors = groups_of(0, 1_200, 8, groups=100)
    vectors[np.random.default_rng(1).permutation(1_200)[:400]] = vectors[0]  # like windows of silence
    write_vectors(tmp_path / "v", vectors)
    manifest = index(vectors=tmp_path / "v", output=str(tmp_path / "i"), metric="cosine", recall=0.9, **sizes)
    assert manifest.recall.value > 0.9 and manifest.recall.searched_lists < num_lists(1_200)
    assert 100 < manifest.recall.num_queries < 150
    assert "codes are rounded" not in caplog.text


def test_codes_that_round_too_much_are_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    vectors = np.random.default_rng(0).normal(size=(1_200, 192))
    write_vectors(tmp_path / "v", vectors)
    manifest = index(vectors=tmp_path / "v", output=str(tmp_path / "i"), metric="cosine", **CODES)
    assert manifest.recall.value < 0.95
    assert re.search(r"a search finds 0\.\d+ of the 10 nearest, not 0\.950: codes are rounded", caplog.text)


def test_without_faiss_exact_indexes_work_and_others_say_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "faiss", None)
    write_vectors(tmp_path / "v", groups_of(0, 150, 8))
    assert search(index(vectors=tmp_path / "v", output=str(tmp_path / "i")).uri, key="clip-1.wav").hits
    with pytest.raises(MissingExtraError, match=r"needs faiss, .*: pip install 'unfused-ray\[search\]'"):
        index(vectors=tmp_path / "v", output=str(tmp_path / "j"), **LISTS)


def test_the_command_line_plans_makes_and_changes_an_index(tmp_path: Path, command_line: Callable[..., Ended]) -> None:
    for number, name in enumerate("ab"):
        write_vectors(tmp_path / name, groups_of(number, 20, 6))
    output = ["--output", str(tmp_path / "i")]
    ended = command_line("index", "--vectors", str(tmp_path / "a"), *output, "--dry-run")
    assert ended.code == 0 and "would index to" in ended.out and not (tmp_path / "i").exists()
    ended = command_line("index", "--vectors", str(tmp_path / "a"), *output)
    assert ended.code == 0 and "recall of the 10 nearest" in ended.out
    assert command_line("index", "--add", str(tmp_path / "b"), *output).code == 0
    assert IndexManifest.load(str(tmp_path / "i")).num_vectors == 40
    ended = command_line("index", *output, "--remove", "nobody")
    assert (ended.code, ended.err.count("\n")) == (2, 1)
