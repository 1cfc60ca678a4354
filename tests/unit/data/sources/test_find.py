"""Which files of a folder are taken: by suffix and by content; the others are counted."""

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
    (tmp_path / "notes.txt").write_bytes(encoded())  # its suffix says what it is
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
    assert not Source("csv", (str(tmp_path / "list.csv"),), str(tmp_path)).is_small  # it may name any files
