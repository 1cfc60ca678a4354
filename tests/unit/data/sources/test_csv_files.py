"""CSV lists as people write them are read whole, or refused with file and line."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest
from support.inputs import column, encoded, listed, said, write_clips, write_list

from unfused_ray import storage
from unfused_ray.config import ColumnsConfig
from unfused_ray.data.sources.fetch import fetch
from unfused_ray.data.sources.locate import _folders_nearby
from unfused_ray.data.sources.pieces import Piece, pieces


def reads(listing) -> list[bool]:
    """Return True for each listed clip that can be read."""
    return [
        all(isinstance(each, Piece) for each in pieces(item, source, 16_000, 10.0))
        for item, source in fetch(listing.items)
    ]


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        ("blanks.csv", ["wav_path, label , split", " a.wav ,  dog, train ", 'b.wav, "cat" ,train']),
        ("semicolons.csv", ["wav_path;label;split", "a.wav;dog;train", "b.wav;cat;train"]),
        ("tabs.tsv", ["wav_path\tlabel\tsplit", "a.wav\tdog\ttrain", "b.wav\tcat\ttrain"]),
        ("tabs.csv", ["wav_path\tlabel\tsplit", "a.wav\tdog\ttrain", "b.wav\tcat\ttrain"]),
        ("commas.tsv", ["wav_path,label,split", "a.wav,dog,train", "b.wav,cat,train"]),
        ("case.CSV", ["WAV_Path,Label,Split", "a.wav,dog,Train", "b.wav,cat,TRAIN"]),
        ("trailing.csv", ["wav_path,label,split,", "a.wav,dog,train,", "b.wav,cat,train,,"]),
        ("pandas.csv", [",wav_path,label,split", "0,a.wav,dog,train", "1,b.wav,cat,train"]),
        ("empty lines.csv", ["", "wav_path,label,split", "", "a.wav,dog,train", "", "b.wav,cat,train", ""]),
        ("crlf.csv", ["wav_path,label,split\r", "a.wav,dog,train\r", "b.wav,cat,train\r"]),
    ],
)
def test_blanks_separators_cases_and_empty_lines_are_read_as_they_are_meant(
    tmp_path: Path, name: str, lines: list[str]
) -> None:
    write_clips(tmp_path, "a.wav", "b.wav")
    listing = listed(write_list(tmp_path / name, [line.replace('"cat" ', '"cat"') for line in lines]))
    assert column(listing, "key") == ["a.wav", "b.wav"]
    assert column(listing, "labels") == [["dog"], ["cat"]]
    assert column(listing, "split") == ["train", "train"]
    assert listing.rejects == ()


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_byte_order_marks_are_read(tmp_path: Path, encoding: str) -> None:
    write_clips(tmp_path, "ä.wav")
    listing = listed(write_list(tmp_path / "x.csv", ["files,label", "ä.wav,Käuzchen"], encoding))
    assert (column(listing, "key"), column(listing, "labels")) == (["ä.wav"], [["Käuzchen"]])


def test_other_encodings_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"x\.csv is not UTF-8 text .*save it as UTF-8"):
        listed(write_list(tmp_path / "x.csv", ["files,label", "ä.wav,Käuzchen"], "latin-1"))


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (
            ["wav_path,label", "a.wav,dog", "b.wav,Water tap, dripping"],
            r"line 3 of .*x\.csv has 3 cells .*header 2",
        ),
        (["wav_path,label", "a.wav,dog", "b.wav"], r"line 3 of .*x\.csv has 1 cells .*header 2"),
        (
            ["wav_path,label", 'a.wav,"tick', "b.wav,cat", 'c.wav,tock"'],
            r"lines 2 to 4 of .*x\.csv are one row, .*2",
        ),
        (["note,wav_path", '"x,a.wav', "y,b.wav", 'z",c.wav'], r"lines 2 to 4 of .*x\.csv are one row, whose note"),
        (["wav_path,label", 'a.wav,"dog"s'], r"x\.csv cannot be read as CSV from line 2 on"),
        (["wav_path,label", 'a.wav,"dog'], r"x\.csv cannot be read as CSV from line 2 on"),
        (["wav_path,label,label", "a.wav,dog,cat"], r"x\.csv has label twice among its columns"),
        (["a.wav,dog", "b.wav,cat"], r"columns a\.wav, dog: its first line must name columns"),
    ],
)
def test_rows_that_do_not_fit_their_header_are_refused_with_file_and_line(
    tmp_path: Path, lines: list[str], message: str
) -> None:
    write_clips(tmp_path, "a.wav", "b.wav", "c.wav")
    with pytest.raises(ValueError, match=message):
        listed(write_list(tmp_path / "x.csv", lines))


def test_a_caption_over_several_lines_is_no_mistake(tmp_path: Path) -> None:
    write_clips(tmp_path, "a.wav", "b.wav")
    rows = ["wav_path,caption,label", 'a.wav,"A dog,', 'barking, twice",dog', "b.wav,a cat,cat"]
    assert column(listed(write_list(tmp_path / "x.csv", rows)), "labels") == [["dog"], ["cat"]]


@pytest.mark.parametrize("name", ["file", "Files", "filename", "file_name", "fname", "path", "wav_path", "audio"])
def test_paths_are_found_by_their_usual_names(tmp_path: Path, name: str) -> None:
    write_clips(tmp_path, "a.wav")
    assert column(listed(write_list(tmp_path / "x.csv", [name, "a.wav"])), "uri") == [str(tmp_path / "a.wav")]


def test_another_column_of_paths_can_be_asked_for(tmp_path: Path) -> None:
    write_clips(tmp_path, "a.wav")
    path = write_list(tmp_path / "x.csv", ["file,resampled", "none.wav,a.wav"])
    assert reads(listed(path)) == [False]
    assert reads(listed(path, ColumnsConfig(path="resampled"))) == [True]


def test_fsd50k_leaves_the_suffix_out_and_keeps_its_audio_beside_its_lists(tmp_path: Path) -> None:
    write_clips(tmp_path, "FSD50K.dev_audio/64760.wav", "FSD50K.dev_audio/9.wav", "FSD50K.eval_audio/37199.wav")
    truth = tmp_path / "FSD50K.ground_truth"
    rows = ['64760,"Electric_guitar,Guitar","/m/02sgy,/m/0342h",train', '9,"Bark","/m/05tny_",val']
    write_list(truth / "dev.csv", ["fname,labels,mids,split", *rows])
    write_list(truth / "eval.csv", ["fname,labels,mids", '37199,"Bark,Dog","/m/05tny_"'])
    listing = listed(truth)
    assert column(listing, "split") == ["train", "valid", "test"]
    assert column(listing, "labels") == [["Electric_guitar", "Guitar"], ["Bark"], ["Bark", "Dog"]]
    assert reads(listing) == [True] * 3
    assert f"paths start in {tmp_path}/FSD50K.dev_audio and end in .wav there" in said(listing, "columns used")
    (truth / "dev.csv").write_text("fname,labels\n64760.wav,Guitar\n")
    assert reads(listed(truth / "dev.csv")) == [True]


def test_files_that_two_folders_have_are_refused(tmp_path: Path) -> None:
    write_clips(tmp_path, "audio_16k/a.wav", "audio_44k/a.wav")
    with pytest.raises(ValueError, match=r"names a\.wav, which is both in .*audio_16k/\* and .*audio_44k/\*"):
        listed(write_list(tmp_path / "meta/x.csv", ["files", "a.wav"]))


@pytest.mark.parametrize("own", ["/data", "/"])
def test_the_folders_beside_a_folder_of_the_root_are_not_those_of_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own: str
) -> None:
    folders = {"/": ["/audio", "/data"], "/data": []}
    monkeypatch.chdir(tmp_path)
    of_cwd = ["/home/me/audio"]
    monkeypatch.setattr("unfused_ray.storage.list_folders", lambda uri: folders.get(storage.absolute(uri), of_cwd))
    nearby = _folders_nearby(storage.join(own, "list.csv"))
    assert sorted(nearby) == (["/audio"] if own == "/data" else ["/audio", "/data"])


def test_files_of_another_data_set_beside_a_list_are_not_taken(tmp_path: Path) -> None:
    write_clips(tmp_path, "frogs/a.wav", "frogs_audio/a.wav")
    assert reads(listed(write_list(tmp_path / "birds/x.csv", ["files", "a.wav"]))) == [False]


def test_backslashes_and_either_form_of_accents_are_found(tmp_path: Path) -> None:
    composed, decomposed = (unicodedata.normalize(form, "Käuzchen.wav") for form in ("NFC", "NFD"))
    folder = tmp_path / unicodedata.normalize("NFC", "Vögel")  # the folder keeps this form, files may differ
    write_clips(folder, "sub/a.wav", f"one/{decomposed}", f"two/{composed}", "back\\slash.wav")
    rows = ["sub\\a.wav", f"one/{composed}", f"two/{decomposed}", "back\\slash.wav", f"one\\{composed}"]
    listing = listed(write_list(folder / "x.csv", ["files", *rows]))
    assert column(listing, "key") == rows
    assert reads(listing) == [True] * 5


def test_a_list_of_macos_is_left_out_and_files_that_no_list_names_are_set_aside(tmp_path: Path) -> None:
    decomposed = unicodedata.normalize("NFD", "é.wav")
    write_clips(tmp_path, "a.wav", "extra/b.WAV", decomposed, "noise")
    (tmp_path / b"\xe4.wav".decode("utf-8", "surrogateescape")).write_bytes(encoded())
    (tmp_path / "._list.csv").write_bytes(b"\0\5\x16\7")
    write_list(tmp_path / "list.csv", ["files", "a.wav", "é.wav"])
    write_list(tmp_path / "meta/more.csv", ["files", "extra/b.WAV"])
    (tmp_path / "README.md").write_text("")
    listing = listed(tmp_path)
    assert len(listing.items) == 2
    assert [(reject.key, reject.reason) for reject in listing.rejects] == [
        ("extra/b.WAV", "unlisted"),
        ("noise", "unlisted"),
        ("\\udce4.wav", "unlisted"),
    ]
    assert said(listing, "skipped on purpose") == "._* of macOS × 1"
    assert "lists that are not read: meta/more.csv" in said(listing, "look again")


@pytest.mark.parametrize(
    ("start", "end"),
    [
        ("start", "end"),
        ("onset", "offset"),
        ("start_s", "end_s"),
        ("Begin Time (s)", "End Time (s)"),
        ("startTime", "endTime"),
        ("t_start", "t_stop"),
        ("tmin", "tmax"),
    ],
)
def test_parts_of_files_that_rows_name_are_said_not_to_be_read(tmp_path: Path, start: str, end: str) -> None:
    write_clips(tmp_path, "a.wav")
    rows = [f"file,{start},{end},label,start_date,trend,legend", "a.wav,0,1:02.5,dog,x,y,z", "a.wav,1,2,cat,x,y,z"]
    listing = listed(write_list(tmp_path / "x.csv", rows))
    assert column(listing, "key") == ["a.wav", "a.wav#2"]
    assert f"column {start}, {end} may name a part of each file; whole files are read" in said(listing, "look again")
    assert "1 clip has the key of another" in said(listing, "look again")


def test_columns_of_0_and_1_for_each_class_are_said_not_to_be_labels(tmp_path: Path) -> None:
    write_clips(tmp_path, "a.wav", "b.wav")
    rows = ["file,dog,cat,is_test,day", "a.wav,1,0,0,3", "b.wav,1,1,0,1"]
    text = "columns dog, cat hold 0 and 1, as if each were a class, and were not taken: clips have no labels"
    listing = listed(write_list(tmp_path / "x.csv", rows))
    assert text in said(listing, "look again") and "such as dog;cat" in said(listing, "look again")
    labelled = [f"{row},{cell}" for row, cell in zip(rows, ("label", "dog", "dog;cat"), strict=True)]
    assert "as if each were a class" not in said(listed(write_list(tmp_path / "x.csv", labelled)), "look again")


def test_latin_1_names_on_disk_are_set_aside_and_not_mangled(tmp_path: Path) -> None:
    (tmp_path / b"\xe4.wav".decode("utf-8", "surrogateescape")).write_bytes(encoded())
    write_clips(tmp_path, "b.wav")
    listing = listed(tmp_path)
    assert column(listing, "key") == ["b.wav"]
    assert [reject.reason for reject in listing.rejects] == ["unreadable"]
