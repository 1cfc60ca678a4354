"""Searches by audio, clip, label and marks; their results as table, CSV, JSON and a page to listen to."""

from __future__ import annotations

import csv
import errno
import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import soundfile
from support.reports import HOSTILE, Page
from support.sources import tone, write_source
from support.tasks import write_encoder
from support.terminal import Ended, text_of
from support.vectors import groups_of, write_vectors

from unfused_ray import api, storage
from unfused_ray.api import search
from unfused_ray.config import SearchConfig
from unfused_ray.models.export import load_encoder
from unfused_ray.report.search import to_html, write
from unfused_ray.retrieval.audio import read_audio
from unfused_ray.retrieval.catalogue import Catalogue
from unfused_ray.retrieval.collection import Collection
from unfused_ray.retrieval.format import split_key
from unfused_ray.retrieval.learn import learn
from unfused_ray.retrieval.marks import COLUMNS, Mark, ids_of, read_marks
from unfused_ray.retrieval.queries import ask_key, same_audio
from unfused_ray.retrieval.search import check
from unfused_ray.retrieval.space import unit

RATE = 16_000


@pytest.fixture(scope="module")
def heard(tmp_path_factory: pytest.TempPathFactory, ray_session: None) -> Path:
    """A folder with recordings and prepared clips, their vectors by one encoder, and an index of both."""
    folder = tmp_path_factory.mktemp("search")
    write_encoder(folder / "encoder", "fc2")
    (folder / "field").mkdir()
    for number in range(6):
        soundfile.write(folder / "field" / f"{number} #.wav", tone(number, 24_000), RATE)
    write_source(folder / "shards", [[10, 6]], splits=["train"])
    windows = {"window_seconds": 0.5}
    for source, settings in (("field", windows), ("shards", {})):
        api.embed(
            encoder=str(folder / "encoder"),
            source=str(folder / source),
            output=str(folder / "vectors" / source),
            **settings,
        )
    vectors = [str(folder / "vectors" / source) for source in ("field", "shards")]
    api.index(vectors=vectors, output=str(folder / "index"), metric="cosine")
    return folder


def test_a_wave_is_embedded_as_the_collection_was_and_never_finds_itself(
    heard: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    index = str(heard / "index")
    with caplog.at_level("INFO"):
        found = search(index, str(heard / "field" / "3 #.wav"), first=0.5, last=1.0, count=50)
    assert "left out, because they are the question itself: 3 #.wav" in caplog.text
    recordings = [(hit.clip.source, hit.clip.recording) for hit in found.hits]
    assert ("field", "3 #.wav") not in recordings and len(recordings) == len({*recordings}) == 5 + 16
    # For a file that is not in the index, the similarities are those of the encoder's vectors.
    query = tmp_path / "query.flac"
    soundfile.write(query, tone(11, 9_000), RATE)
    found = search(index, str(query), sources=["shards"], count=16)
    encoder = load_encoder(str(heard / "encoder"))
    own = encoder.embed(tone(11, 9_000), RATE)[0].numpy()
    for hit in found.hits:
        clip = int(hit.clip.key.removeprefix("clip-"))
        other = encoder.embed(tone(clip, (4_000, 9_000, 20_000)[clip % 3]), RATE)[0].numpy()
        assert hit.similarity == pytest.approx(own @ other / np.linalg.norm(own) / np.linalg.norm(other), abs=1e-4)
    assert [hit.similarity for hit in found.hits] == sorted((hit.similarity for hit in found.hits), reverse=True)
    # Another file with the samples of a clip of the shards counts as that clip.
    soundfile.write(query, tone(4, 9_000), RATE, subtype="PCM_16")
    keys = {hit.clip.key for hit in search(index, str(query), sources=["shards"], count=16).hits}
    assert keys == {f"clip-{number}" for number in range(16)} - {"clip-4"}


def test_neighbours_that_are_as_near_as_a_rounded_code_are_not_the_question_itself(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(40, 128))
    windows = centres[rng.integers(40, size=2_000)] + 0.05 * rng.normal(size=(2_000, 128))  # as in one recording
    windows[1:6] = windows[0]
    write_vectors(tmp_path / "v", windows)
    sizes = {"metric": "cosine", "exact_up_to": 100, "quantize_above": 1_000}
    api.index(vectors=str(tmp_path / "v"), output=str(tmp_path / "i"), **sizes)
    collection = Collection.open(str(tmp_path / "i"))
    near = unit(centres[:30] + 0.05 * rng.normal(size=(30, 128))).astype(np.float32)
    assert sum(int(same_audio(collection, vector, "/nowhere.wav").sum()) for vector in near) < 3
    with caplog.at_level("INFO"):
        own = same_audio(collection, unit(windows[0]).astype(np.float32), "/audio/clip-9.wav")
    assert np.flatnonzero(own).tolist() == [0, 1, 2, 3, 4, 5, 9]
    assert "itself: clip-0.wav, clip-1.wav, clip-2.wav and 4 more" in caplog.text


def test_names_of_more_than_a_column_of_strings_holds_are_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_vectors(tmp_path / "v", groups_of(0, 66, 8))
    api.index(vectors=str(tmp_path / "v"), output=str(tmp_path / "i"))
    names = pa.chunked_array([pa.array(["a" * 2**26, "b"])] * 33)  # 2 GB, but one piece in memory
    groups = pa.chunked_array([pa.array(["", ""])] * 33)
    monkeypatch.setattr(Catalogue, "columns", lambda self, asked: [names, names, groups])
    assert np.array_equal(Collection.open(str(tmp_path / "i")).clips.recordings, np.tile([0, 1], 33))


def test_a_warning_of_the_audio_of_a_question_or_a_clip_is_told(
    heard: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    query = tmp_path / "query.wav"
    soundfile.write(query, np.stack([tone(11, 9_000), -tone(11, 9_000)], axis=1), RATE)
    search(str(heard / "index"), str(query), count=1)
    assert f"{query}: channels cancel: " in caplog.text
    collection = Collection.open(str(heard / "index"))
    (clip,) = collection.clips.clips([0])
    read_audio([replace(clip, place=clip.place | {"uri": str(query)})], RATE, 1.0)
    assert f"{clip.key} of field: channels cancel: " in caplog.text


def test_hits_whose_storage_does_not_answer_are_found_without_their_audio(
    heard: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(*args: object) -> None:
        raise OSError(errno.ENOTCONN, "Transport endpoint is not connected")

    clips = Collection.open(str(heard / "index")).clips.clips([0, 1])
    monkeypatch.setattr(Path, "open", gone)
    found = read_audio([replace(clip, place=clip.place | {"row_group": None}) for clip in clips], RATE, 1.0)
    assert [found[clip.id] for clip in clips] == [
        f"its audio cannot be read here: [Errno {errno.ENOTCONN}] Transport endpoint is not connected"
    ] * 2


def test_query_marks_and_page_may_be_in_an_object_store(heard: Path, tmp_path: Path, object_store: str) -> None:
    index, remote = str(heard / "index"), f"s3://bucket/asked{object_store}"
    soundfile.write(tmp_path / "query.flac", tone(11, 9_000), RATE)
    write_marks(tmp_path / "marks.csv", [("shards", "clip-4", "keep")])
    for name in ("query.flac", "marks.csv"):
        storage.write_bytes(storage.join(remote, name), (tmp_path / name).read_bytes())
    page = storage.join(remote, "hits.html")
    found = search(index, storage.join(remote, "query.flac"), first=0.1, last=0.5, count=4, page=page)
    local = search(index, str(tmp_path / "query.flac"), first=0.1, last=0.5, count=4)
    assert [(hit.clip.key, hit.similarity) for hit in found.hits] == [
        (hit.clip.key, hit.similarity) for hit in local.hits
    ]
    assert len(Page(storage.read_bytes(page).decode()).all("audio")) == 5
    assert "learnt from 1 kept" in search(index, learn=storage.join(remote, "marks.csv"), count=2).question


def test_a_part_of_a_clip_asks_by_the_windows_in_it(heard: Path) -> None:
    collection = Collection.open(str(heard / "index"))
    ids = collection.clips.find("2 #.wav")
    assert [clip.start_seconds for clip in collection.clips.clips(ids.tolist())] == [0.0, 0.5, 1.0]
    found = search(str(heard / "index"), key="2 #.wav", first=0.6, last=0.9)
    expected = collection.vectors(ids)[1]
    hit = found.hits[0]
    assert hit.similarity == pytest.approx(float(collection.vectors(np.array([hit.clip.id]))[0] @ expected), abs=1e-5)
    assert "mean of 3 vectors" in search(str(heard / "index"), key="2 #.wav").question
    with pytest.raises(ValueError, match=r"from=9 and to=inf select nothing of 2 #\.wav, whose vectors cover"):
        search(str(heard / "index"), key="2 #.wav", first=9.0)


def test_a_label_finds_clips_that_do_not_carry_it(heard: Path) -> None:
    found = search(str(heard / "index"), label="3", count=50, splits=["train"])
    assert "label 3, mean of 2 vectors, which are left out" in found.question
    assert {hit.clip.key for hit in found.hits} == {f"clip-{n}" for n in range(16) if n % 8 != 3}


def test_what_cannot_be_asked_is_refused(heard: Path, tmp_path: Path) -> None:
    index, query = str(heard / "index"), str(heard / "field" / "0 #.wav")
    other = write_encoder(tmp_path / "other", "fc2", seed=1)
    (tmp_path / "text.wav").write_text("no audio")
    for arguments, options, message in (
        ([], {}, "a search needs a question: give an audio file, --key, --label or --learn"),
        ([query], {"label": "3"}, "not query and label"),
        ([query], {"encoder": other}, r"other is not the one that made the vectors of .*index \("),
        ([query], {"first": 2.0, "last": 1.0}, "to=1 must be more than from=2"),
        ([query], {"count": 0}, "count=0: Input should be greater than or equal to 1"),
        ([query], {"first": -1.0}, "first=-1.0: Input should be greater than or equal to 0"),
        ([query], {"key_source": "field"}, "key_source=field has no effect with query: it belongs to key"),
        ([], {"label": "3", "first": 0.2}, "from=0.2 has no effect with label: it belongs to query or key"),
        ([], {"key": "clip-1", "encoder": other}, "encoder=.* has no effect with key: it belongs to query"),
        ([], {"label": "3", "min_seconds": 2.0, "max_seconds": 1.0}, "max_seconds=1 must be more than min_seconds=2"),
        ([], {"label": "3", "min_seconds": 9.0}, r"none of the 34 vectors of .* passes the filters: ask for fewer"),
        ([], {"label": "3", "page": "s3://me:secret@bucket/p.html"}, "page=s3://…@bucket/p.html holds credentials"),
        ([str(tmp_path / "text.wav")], {}, r"text\.wav cannot be a question: "),
        ([str(tmp_path)], {}, "is a folder, but a question is one audio file: name a file in it"),
        ([], {"key": "nothing"}, r"key=nothing is not a clip of .*: give a key as search shows it"),
        ([], {"label": "x"}, r"no clip has label=x; there are 0, 1, 2, 3, 4, 5, 6, 7"),
        ([], {"label": "3", "splits": ["tset"]}, r"no clip has split=tset; there are train"),
        ([], {"label": "3", "sources": ["moon"]}, r"no clip has source=moon; there are field, shards"),
    ):
        with pytest.raises(ValueError, match=message):
            search(index, *arguments, **options)
    with pytest.raises(FileNotFoundError, match=r"name its present place with --encoder"):
        search(index, query, encoder=str(tmp_path / "gone"))
    with pytest.raises(FileNotFoundError, match=r"holds no index\.json: it is no index"):
        search(str(tmp_path), query)


def test_a_question_that_is_not_there_is_refused_before_the_encoder_is_loaded(
    heard: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = str(heard / "index")
    for field in ("query", "learn"):
        with pytest.raises(FileNotFoundError, match=rf"{field}=.*gone does not exist"):
            check(SearchConfig(index=index, **{field: str(tmp_path / "gone")}))
    monkeypatch.setattr("unfused_ray.retrieval.queries.load_encoder", None)
    (tmp_path / "text.wav").write_text("no audio")
    with pytest.raises(ValueError, match=r"text\.wav cannot be a question: "):
        search(index, str(tmp_path / "text.wav"))


def test_a_key_of_two_sources_asks_for_the_source(tmp_path: Path) -> None:
    for number, name in enumerate("ab"):
        write_vectors(tmp_path / name, groups_of(number, 9, 5))
    api.index(vectors=[str(tmp_path / "a"), str(tmp_path / "b")], output=str(tmp_path / "i"))
    with pytest.raises(ValueError, match=r"key=clip-1\.wav is in a, b: say which with --key-source"):
        search(str(tmp_path / "i"), key="clip-1.wav")
    assert search(str(tmp_path / "i"), key="clip-1.wav", key_source="b").question == "clip-1.wav of b"


def test_pieces_of_prepared_recordings_are_one_recording() -> None:
    assert split_key("a/b.wav@10", 3) == ("a/b.wav", 10.0)
    assert split_key("a@12.5", 0) == ("a", 12.5)
    for key in ("a@b.wav", "a.wav", "@", "@1"):
        assert split_key(key, 3) == (key, 0)
    for key in ("user@2024", "a/b.wav@10"):  # None: the source is not prepared
        assert split_key(key, None) == (key, 0)


def test_keys_that_end_in_a_number_are_recordings_where_nothing_is_prepared(tmp_path: Path) -> None:
    keys = [f"user@{number}" for number in range(9)]
    write_vectors(tmp_path / "v", groups_of(0, 9, 5), key=keys)
    index = api.index(vectors=str(tmp_path / "v"), output=str(tmp_path / "i")).uri
    found = search(index, key="user@3", count=9)
    assert {hit.clip.recording for hit in found.hits} == {*keys} - {"user@3"}
    assert [hit.clip.recording_seconds for hit in found.hits] == [0.0] * 8
    with pytest.raises(ValueError, match="key=user is not a clip of"):
        search(index, key="user")


@pytest.mark.parametrize("group", ["", "day 1"])
def test_prepared_keys_that_end_in_a_number_are_pieces_only_of_a_recording_that_is_there(
    group: str, tmp_path: Path
) -> None:
    own, pieces = [f"user@{number}" for number in range(5)], ["long", "long@10", "long@20"]
    silent = ["quiet@10", "quiet@20"]  # its first piece was set aside
    groups = [group] * 5 + [group or "long"] * 3 + ["quiet"] * 2
    keys = [*own, *pieces, *silent]
    write_vectors(tmp_path / "v", groups_of(0, 10, 5), (3, 4, 3), key=keys, group=groups, clip_id=list(range(10)))
    index = api.index(vectors=str(tmp_path / "v"), output=str(tmp_path / "i")).uri
    found = search(index, key="user@3", count=9)
    assert {hit.clip.recording for hit in found.hits} == {*own, "long", "quiet"} - {"user@3"}
    assert {hit.clip.key: hit.clip.recording_seconds for hit in found.hits if hit.clip.key in own} == {
        key: 0.0 for key in own if key != "user@3"
    }
    assert {hit.clip.recording for hit in search(index, key="long", count=9).hits} == {*own, "quiet"}
    with pytest.raises(ValueError, match="key=user is not a clip of"):
        search(index, key="user")


def test_the_key_of_a_prepared_recording_asks_for_all_of_its_pieces(tmp_path: Path) -> None:
    keys = [f"{name}{piece}" for name in ("r", "s") for piece in ("@20", "@10", "")]  # not in order
    rows = [key for key in keys for _ in range(2)]  # two windows a piece
    times = {"start_seconds": [0.0, 5.0] * 6, "end_seconds": [5.0, 10.0] * 6}
    columns = {"clip_id": [row // 2 for row in range(12)], "group": [key[0] for key in rows], **times}
    write_vectors(tmp_path / "v", groups_of(0, 12, 5), key=rows, **columns)
    index = api.index(vectors=str(tmp_path / "v"), output=str(tmp_path / "i"), metric="cosine").uri
    collection = Collection.open(index)
    kept = collection.vectors(np.arange(12))

    def asked(key: str, **seconds: float) -> tuple[list[int], str, float]:
        query = ask_key(collection, key, "", seconds.get("first", 0.0), seconds.get("last"))
        (near,) = [
            rows for rows in candidates if np.allclose(unit(kept[list(rows)].mean(axis=0)), query.vector, atol=1e-5)
        ]
        assert query.clip is not None and np.flatnonzero(query.own).tolist() == list(range(6))
        return [*near], query.clip.key, query.clip.start_seconds

    candidates = [range(6), (4, 5), (2, 3), (3,), (1,), (0, 3)]
    assert asked("r") == ([0, 1, 2, 3, 4, 5], "r", 0.0)
    assert asked("r@10") == ([2, 3], "r@10", 0.0)
    assert asked("r", first=15.0, last=20.0) == ([3], "r@10", 5.0)
    assert asked("r@10", first=5.0) == ([3], "r@10", 5.0)
    assert asked("r", first=18.0, last=21.0) == ([0, 3], "r@10", 5.0)
    assert asked("r", first=25.0) == ([1], "r@20", 5.0)
    with pytest.raises(ValueError, match=r"from=30 and to=inf select nothing of r, .* the seconds 0 to 30"):
        asked("r", first=30.0)
    with pytest.raises(ValueError, match=r"from=10 and to=inf select nothing of r@10, .* the seconds 0 to 10"):
        asked("r@10", first=10.0)


def write_marks(path: Path, rows: list[tuple[str, str, str]]) -> str:
    lines = [",".join(COLUMNS), *(f"{source},{key},0.0,1.0,{mark}" for source, key, mark in rows)]
    path.write_text("\n".join(lines) + "\n")
    return str(path)


@pytest.mark.parametrize("sizes", [{}, {"exact_up_to": 50}], ids=["exact", "lists"])
def test_a_few_marks_find_the_rest_of_a_group(sizes: dict[str, int], tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    is_wanted = np.arange(240) % 6 == 0
    vectors = rng.normal(size=(240, 12))
    vectors[is_wanted] += np.array([2.0] * 3 + [0.0] * 9)
    write_vectors(tmp_path / "v", vectors)
    index = api.index(vectors=str(tmp_path / "v"), output=str(tmp_path / "i"), **sizes).uri
    kept, rejected = np.flatnonzero(is_wanted)[:6], np.flatnonzero(~is_wanted)[:6]
    rows = [("v", f"clip-{row}.wav", "keep" if row in kept else "reject") for row in (*kept, *rejected)]
    found = search(index, learn=write_marks(tmp_path / "marks.csv", rows), count=34)
    assert "of marks in held-out groups are predicted correctly (chance: 50 %)" in found.question
    marked = {key for _, key, _ in rows}
    assert not marked & {hit.clip.key for hit in (*found.hits, *found.unsure)}
    right = [int(hit.clip.key[5:-4]) % 6 == 0 for hit in found.hits]
    assert np.mean(right) > 0.75 and found.hits[0].similarity > 0.5
    doubts = [abs(hit.similarity - 0.5) for hit in found.unsure]
    assert doubts == sorted(doubts) and doubts[0] < 0.2
    # One kept clip is enough: the rest of the collection serves as examples of other clips.
    one = search(index, learn=write_marks(tmp_path / "one.csv", rows[:1]), count=20)
    assert (
        "learnt from 1 kept and 0 rejected clips (mark 5 recordings or groups of each to see the accuracy)"
        in one.question
    )


@pytest.mark.parametrize("of_one", ["recording", "group"])
def test_marks_are_held_out_with_their_whole_recording_and_group(of_one: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    units = np.repeat(np.arange(20), 4)  # four similar clips of each; classes are random
    vectors = rng.normal(size=(20, 24))[units] + 0.01 * rng.normal(size=(80, 24))
    names = [f"u{unit}" for unit in units]
    columns: dict[str, list[str]] = {"group": names} if of_one == "group" else {"key": names}
    write_vectors(tmp_path / "v", vectors, **columns, start_seconds=[float(row % 4) for row in range(80)])
    collection = Collection.open(api.index(vectors=str(tmp_path / "v"), output=str(tmp_path / "i")).uri)
    right = learn(collection, {row: bool(units[row] % 2) for row in range(80)}).right
    assert right is not None and right < 0.75  # 1.0 if single clips were held out
    few = {row: bool(units[row] % 2) for row in range(32)}  # 16 clips of each class, in four units
    assert learn(collection, few).right is None


def test_marks_whose_seconds_a_spreadsheet_has_rounded_are_of_the_same_windows(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    starts = [0.0, 1234.0, 1234.0000625, 5000 / 22_050]  # the last window of a recording begins at any sample
    write_vectors(tmp_path / "v", groups_of(0, 4, 5), key=["r"] * 4, start_seconds=starts, end_seconds=[2000.0] * 4)
    collection = Collection.open(api.index(vectors=str(tmp_path / "v"), output=str(tmp_path / "i")).uri)
    saved = ["1234.000063", "0.226757", "1233.9", "nan"]
    rows = [f"v,r,{start},2000,keep" for start in saved]
    (tmp_path / "m.csv").write_text("\n".join([",".join(COLUMNS), *rows]))
    assert ids_of(collection, read_marks(str(tmp_path / "m.csv"))) == {2: True, 3: True}
    assert "2 marks name clips that the index of v lacks" in caplog.text


@pytest.mark.parametrize(("separator", "point"), [(",", "."), (";", ","), (";", "."), ("\t", ",")])
def test_marks_are_read_as_spreadsheets_of_any_country_save_them(separator: str, point: str, tmp_path: Path) -> None:
    rows = [COLUMNS, ("v", '"a,b;c.wav"', f"1{point}5", f"2{point}25", "keep")]
    (tmp_path / "m.csv").write_text("\n".join(separator.join(cells) for cells in rows), encoding="utf-8-sig")
    assert read_marks(str(tmp_path / "m.csv")) == [Mark("v", "a,b;c.wav", 1.5, 2.25, "keep")]


def test_marks_that_cannot_be_used_are_refused_or_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_vectors(tmp_path / "v", groups_of(0, 9, 5))
    index = api.index(vectors=str(tmp_path / "v"), output=str(tmp_path / "i")).uri
    marks = write_marks(
        tmp_path / "m.csv",
        [
            ("v", "clip-1.wav", "keep"),
            ("v", "gone.wav", "reject"),
            ("v", "clip-1.wav", "reject"),
            ("v", "clip-2.wav", ""),
        ],
    )
    collection = Collection.open(index)
    assert list(ids_of(collection, read_marks(marks)).values()) == [False]  # a clip's last mark counts
    assert "1 marks name clips that the index of v lacks: gone.wav of v" in caplog.text
    with pytest.raises(ValueError, match="the marks keep none of the clips of the index, and reject 1"):
        search(index, learn=marks)
    with pytest.raises(ValueError, match="every recording of the index is marked to be kept"):
        learn(collection, dict.fromkeys(range(9), True))
    with pytest.raises(ValueError, match=r"line 2 of .*m\.csv: mark=maybe is neither keep nor reject"):
        read_marks(write_marks(tmp_path / "m.csv", [("v", "clip-1.wav", "maybe")]))
    (tmp_path / "m.csv").write_text("key,mark\na,keep\n")
    with pytest.raises(ValueError, match=r"lacks the columns source, start_seconds, end_seconds of marks"):
        read_marks(str(tmp_path / "m.csv"))
    (tmp_path / "m.csv").write_text(f"{','.join(COLUMNS)}\nv,a,soon,1,keep\n")
    with pytest.raises(ValueError, match=r"line 2 of .* has no seconds"):
        read_marks(str(tmp_path / "m.csv"))


def test_marks_in_another_encoding_or_that_are_no_csv_are_refused(tmp_path: Path) -> None:
    header, marks = ",".join(COLUMNS), tmp_path / "m.csv"
    for data in (
        f"{header}\nv,Vögel.wav,0,1,keep\n".encode("cp1252"),
        f"{header}\nv,a.wav,0,1,keep\n".encode("utf-16"),
        f"{header}\nv,{'a' * 200_000},0,1,keep\n".encode(),
    ):
        marks.write_bytes(data)
        with pytest.raises(ValueError, match=r"m\.csv is no CSV in UTF-8 \(.+\): save it as UTF-8$"):
            read_marks(str(marks))
    for end in ("\n", "\r\n", "\r"):
        marks.write_bytes(f"{header}\nv,Vögel.wav,0,1,keep\n".replace("\n", end).encode("utf-8-sig"))
        assert [mark.key for mark in read_marks(str(marks))] == ["Vögel.wav"]


def test_the_command_line_prints_a_table_csv_and_json(heard: Path, command_line: Callable[..., Ended]) -> None:
    asked = ["search", str(heard / "index"), "--label", "3", "--count", "4", "--splits", "train"]
    ended = command_line(*asked)
    assert ended.code == 0 and "similarity" in ended.out and "clip-" in ended.out
    rows = list(csv.DictReader(io.StringIO(command_line(*asked, "--format", "csv").out)))
    content = json.loads(command_line(*asked, "--format", "json").out)
    assert [row["key"] for row in rows] == [row["key"] for row in content["hits"]]
    assert {*COLUMNS} <= {*rows[0]} and rows[0]["mark"] == "" and rows[0]["source"] == "shards"
    assert float(rows[0]["similarity"]) == content["hits"][0]["similarity"]
    ended = command_line("search", str(heard / "index"), "--key", "nothing")
    assert (ended.code, ended.err.count("\n")) == (2, 1)


def test_a_search_that_finds_nothing_says_so_and_keeps_its_columns(heard: Path) -> None:
    found = search(str(heard / "index"), key="clip-3", labels=["3"], max_seconds=0.3)
    assert found.question == "clip-3 of shards (only labels 3; at most 0.3 s)"
    assert not found.hits and "Nothing but the question itself passes the filters" in text_of(found.to_terminal())
    full = search(str(heard / "index"), key="clip-3", count=1)
    assert found.to_csv() == full.to_csv().splitlines(keepends=True)[0]


def test_windows_of_one_length_all_pass_a_filter_of_that_length(tmp_path: Path) -> None:
    starts = [0.95 * number for number in range(40)]
    ends = [0.95 * (number + 1) for number in range(40)]
    assert len({end - start for start, end in zip(starts, ends, strict=True)}) > 1  # as floats they differ
    write_vectors(tmp_path / "v", groups_of(0, 40, 5), start_seconds=starts, end_seconds=ends)
    clips = Collection.open(api.index(vectors=str(tmp_path / "v"), output=str(tmp_path / "i")).uri).clips
    for filters, count in (
        ({"min_seconds": 0.95}, 40),
        ({"max_seconds": 0.95}, 40),
        ({"min_seconds": 0.9501}, 0),
        ({"max_seconds": 0.9499}, 0),
    ):
        assert clips.allowed(SearchConfig(**filters)).sum() == count


def test_a_dry_run_says_how_many_pass_the_filters(heard: Path, command_line: Callable[..., Ended]) -> None:
    for named in ([str(heard / "index")], ["--index", str(heard / "index")]):
        ended = command_line("search", "--dry-run", "--label", "3", "--sources", "shards", "--count", "2", *named)
        assert ended.code == 0 and "would search" in ended.out and "16 of 34" in ended.out


def test_the_page_has_every_hit_with_sound_picture_and_a_link(heard: Path, tmp_path: Path) -> None:
    index = str(heard / "index")
    found = search(
        index, str(heard / "field" / "3 #.wav"), first=0.2, last=0.9, count=30, page=str(tmp_path / "p.html")
    )
    html = (tmp_path / "p.html").read_text()
    page = Page(html)
    assert len(page.all("audio")) == len(page.all("img")) == len(found.hits) + 1  # one is of the question
    assert all(audio.attributes["src"].startswith("data:audio/ogg;base64,") for audio in page.all("audio"))
    links = {link.attributes["href"] for link in page.all("a")}
    assert all(link.startswith((heard / "field").as_uri()) and link[-2:] in ("50", "00") for link in links)
    assert any("/0%20%23.wav#t=" in link for link in links)
    assert len(links) == 5  # clips inside Parquet have no link
    assert len(page.all("input")) == 2 * len(found.hits)


def test_a_page_without_the_audio_says_so_and_takes_nothing_for_html(tmp_path: Path) -> None:
    keys = [f"{number} {HOSTILE}" for number in range(5)]
    write_vectors(tmp_path / "v", groups_of(0, 5, 4), key=keys)
    index = api.index(vectors=str(tmp_path / "v"), output=str(tmp_path / "i")).uri
    marks = tmp_path / "m.csv"
    with marks.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([COLUMNS, ("v", keys[0], 0.0, 1.0, "keep")])
    found = search(index, learn=str(marks))
    html = to_html(found)
    assert "its audio cannot be read here: missing" in html
    assert "<script>alert" not in html and "<img src=x" not in html
    assert len(Page(html).all("script")) == 2
    assert write(found, storage.join(str(tmp_path), "page.html")) == len(html.encode())
    assert "1?" in text_of(found.to_terminal())
