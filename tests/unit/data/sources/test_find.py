"""Audio files of a folder are found by suffix and by content; other files are counted."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.inputs import column, encoded, listed, said, write_clips

from unfused_ray import storage
from unfused_ray.audio.formats import FIRST_BYTES, begins_as_audio
from unfused_ray.data.sources.find import Source, find


def test_audio_is_found_by_suffix_or_content(tmp_path: Path) -> None:
    write_clips(tmp_path, "a.wav", "b.AIFF", "c.m4a", "d.webm", "e.w64", "f.caf", "g.au", "deep/no_suffix", "h.dat")
    (tmp_path / "i.dat").write_bytes(b"numbers, and more numbers")
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "notes.txt").write_bytes(encoded())  # its suffix rules it out
    listing = listed(tmp_path)
    expected = ["a.wav", "b.AIFF", "c.m4a", "d.webm", "deep/no_suffix", "e.w64", "f.caf", "g.au", "h.dat"]
    assert column(listing, "key") == expected
    assert said(listing, "not read") == ".txt × 1; no suffix × 1; .dat × 1"


def test_hidden_files_are_left_out_and_counted(tmp_path: Path) -> None:
    names = ("._a.wav", ".DS_Store", ".cache/b.wav", "__MACOSX/c.wav", "x/.d.wav", "good.wav")
    write_clips(tmp_path, *names)
    for source in (tmp_path, tmp_path / "*"):
        listing = listed(source)
        assert column(listing, "key") == ["good.wav"]
        assert said(listing, "skipped on purpose") == ".DS_Store × 1; ._* of macOS × 2; hidden files × 2"
    assert find(str(tmp_path / ".cache")).files == (str(tmp_path / ".cache/b.wav"),)
    assert find(str(tmp_path / "x/.d.wav")).kind == "audio"


def test_files_that_may_name_test_clips_are_named(tmp_path: Path) -> None:
    write_clips(tmp_path, "bed/a.wav")
    for name in ("testing_list.txt", "meta/validation.csv", "test.zip", "test.py", "latest.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    held_out = {note.text for note in listed(tmp_path).notes if note.held_out}
    assert held_out == {"testing_list.txt", "meta/validation.csv", "test.zip"}


def test_links_to_folders_that_are_read_by_another_path_are_noted_and_may_hold_clips_out(tmp_path: Path) -> None:
    source = write_clips(tmp_path / "in", "all/a/1.wav", "all/b/2.wav", "test/c/3.wav")
    (source / "train").mkdir()
    for link, target in (("train/a", "../all/a"), ("test/b", "../all/b"), ("test/d", "c"), ("test/circle", "..")):
        (source / link).symlink_to(target)
    found = find(str(source))
    assert [storage.relative(uri, found.folder) for uri in found.files] == [
        "all/a/1.wav",
        "all/b/2.wav",
        "test/c/3.wav",
    ]
    listing = listed(source)
    words = "a link to a folder that is read by another path × 1; links to folders that are read by another path × 3"
    assert said(listing, "skipped on purpose") == f"test/b, {words}"
    assert [note.text.partition(",")[0] for note in listing.notes if note.held_out] == ["test/b"]
    assert not any(note.held_out for note in find(str(source / "all/*.wav")).notes)


def test_of_two_links_to_a_folder_outside_the_first_by_name_is_followed(tmp_path: Path) -> None:
    write_clips(tmp_path / "outside", "1.wav")
    for name in ("train", "fold1"):
        (tmp_path / "in").mkdir(exist_ok=True)
        (tmp_path / "in" / name).symlink_to("../outside")
    listing = listed(tmp_path / "in")
    assert column(listing, "key") == ["fold1/1.wav"]
    assert said(listing, "skipped on purpose") == "links to folders that are read by another path × 1"


@pytest.mark.parametrize("source", ["in", "in/*", "in/*t", "in/deep", "link"])
def test_an_output_that_is_the_sources_folder_or_lies_above_it_is_refused(tmp_path: Path, source: str) -> None:
    write_clips(tmp_path / "in", "a.wav", "deep/b.wav", "c.mt")
    (tmp_path / "link").symlink_to("in")
    with pytest.raises(ValueError, match=r"output=.*/in is the folder of source=.*, or lies above it.*beside.*within"):
        find(str(tmp_path / source), str(tmp_path / "in"))
    assert find(str(tmp_path / "in"), str(tmp_path / "in/shards")).files
    assert find(str(tmp_path / "in/a.wav"), str(tmp_path / "in")).files  # a single file: no output is read


@pytest.mark.parametrize("source", ["in/*.wav", "link/*.wav", "in/deep/*", "in/deep/*.wav", "in/bird*"])
def test_a_pattern_that_stands_for_nothing_its_output_writes_is_taken(tmp_path: Path, source: str) -> None:
    write_clips(tmp_path / "in", "bird.wav", "deep/b.wav")
    (tmp_path / "link").symlink_to("in")
    files = find(str(tmp_path / source), str(tmp_path / "in")).files
    assert files == find(str(tmp_path / source)).files
    for name in ("00000.parquet", "part-00000.parquet", "rejects.parquet", "preview/00.wav", "_ingest/00000.json"):
        (tmp_path / "in" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "in" / name).write_bytes(encoded())
    assert find(str(tmp_path / source), str(tmp_path / "in")).files == files


@pytest.mark.parametrize("source", ["in", "in/*", "link", "in/deep"])
def test_what_a_finished_output_in_the_sources_folder_wrote_is_no_part_of_it(tmp_path: Path, source: str) -> None:
    write_clips(tmp_path / "in", "a.wav", "deep/b.wav")
    (tmp_path / "link").symlink_to("in")
    files = find(str(tmp_path / source)).files
    for name in ("00000.parquet", "rejects.parquet", "preview/00.wav", "manifest.json", "statistics-0a.json"):
        (tmp_path / "in" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "in" / name).write_bytes(encoded())
    assert find(str(tmp_path / source), str(tmp_path / "in")).files == files


def test_an_output_within_the_source_by_another_path_is_no_part_of_it(tmp_path: Path) -> None:
    source = write_clips(tmp_path / "in", "a.wav", "out/b.wav")
    (tmp_path / "link").symlink_to("in")
    assert find(str(source), str(tmp_path / "link/out")).files == (str(source / "a.wav"),)


def test_a_source_that_is_gone_is_no_source_without_audio(tmp_path: Path) -> None:
    write_clips(tmp_path / "in", "a.wav")
    for gone in ("gone", "gone/*.wav", "in/*.flac"):
        with pytest.raises(FileNotFoundError, match=r"source .*(no such file|no file matches)"):
            find(str(tmp_path / gone))


@pytest.mark.parametrize("container", ["WAV", "FLAC", "OGG", "MP3", "AIFF", "AU", "CAF", "W64", "RF64", "NIST", "VOC"])
def test_formats_are_known_by_their_first_bytes(container: str) -> None:
    assert begins_as_audio(encoded(0, container)[:FIRST_BYTES])


@pytest.mark.parametrize(
    "head",
    [b"", b"RIFF\0\0\0\0WEBPVP8 ", b"\xff\xfew\0a\0v\0", b"\xff\xd8\xff\xe0\0\x10JFIF", b"\0\0\0 ftypheic", b"PK\3\4"],
)
def test_texts_pictures_and_archives_are_no_audio(head: bytes) -> None:
    assert not begins_as_audio(head)


def test_a_remote_folder_is_looked_into_as_well(tmp_path: Path, object_store: str) -> None:
    for name, data in (("a.wav", encoded()), ("b", encoded(1)), ("c", b"text"), ("._d.wav", b"")):
        storage.write_bytes(f"s3://bucket/{tmp_path.name}/{name}{object_store}", data)
    listing = listed(f"s3://bucket/{tmp_path.name}{object_store}")
    assert column(listing, "key") == ["a.wav", "b"]
    assert said(listing, "not read") == "no suffix × 1"


def test_a_source_is_small_if_its_audio_is_here_and_in_its_own_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, size in (("a.wav", 600), ("b.wav", 400)):
        (tmp_path / name).write_bytes(bytes(size))
    monkeypatch.setattr("unfused_ray.data.sources.find.SMALL", 1000)
    assert find(str(tmp_path)).is_small
    assert find(str(tmp_path / "a.wav")).is_small
    (tmp_path / "c.wav").write_bytes(b"1")
    assert not find(str(tmp_path)).is_small
    assert find(str(tmp_path / "*a.wav")).is_small
    assert not Source("audio", ("s3://bucket/a.wav",), "s3://bucket").is_small
    assert not Source("csv", (str(tmp_path / "list.csv"),), str(tmp_path)).is_small  # it may name files anywhere
