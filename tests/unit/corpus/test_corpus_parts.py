"""Parts of the corpus: splits, fingerprints, disguise, soundfonts, MIDI and the lists of packages."""

from __future__ import annotations

import struct
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.paths import ROOT

from corpus import near_copies, packages
from corpus.audio import SAMPLE_RATE, to_pcm, trim, trim_speech
from corpus.disguise import speech_piece
from corpus.hashing import by_hash, hash_between, hash_fraction
from corpus.midi import Note, Piece, midi_file
from corpus.packages import PROGRAMS, need_programs, package_lists
from corpus.soundfont import SoundFont
from corpus.soundtracks import Track, split_of_groups
from corpus.splits import SPLITS, Groups, balanced_split, dealt_split, hash_split
from corpus.tasks import TASKS
from corpus.tasks.drum import drum_class

EXCLUDED = ("asterisk-core-sounds", "asterisk-prompt", "ktuberling-data", "lmms-common")


def noise(seed: int, seconds: float = 1.0) -> np.ndarray:
    """Return decaying tones in a hiss, different for each seed."""
    generator = np.random.default_rng(seed)
    wave = 0.03 * generator.standard_normal(int(seconds * SAMPLE_RATE))
    time = np.arange(len(wave)) / SAMPLE_RATE
    for hertz in generator.uniform(100, 6000, 12):
        wave += generator.uniform(0.1, 1) * np.sin(2 * np.pi * hertz * time) * np.exp(-time * generator.uniform(0, 9))
    return (wave / np.abs(wave).max() * 0.5).astype(np.float32)


@given(st.lists(st.tuples(st.sampled_from("xyz"), st.sampled_from("abcdefgh")), min_size=1, max_size=60))
def test_balanced_splits_are_whole_and_the_same_in_any_order(rows: list[tuple[str, str]]) -> None:
    split_of = balanced_split(rows, "t", (0.6, 0.2, 0.2))
    assert split_of.keys() == {group for _, group in rows}
    assert set(split_of.values()) <= set(SPLITS)
    assert split_of == balanced_split(rows[::-1], "t", (0.6, 0.2, 0.2))


def test_balanced_splits_leave_no_class_out_where_the_hash_does() -> None:
    rows = [(label, f"{label}{number}") for label in "xyz" for number in range(5)]
    by_hash_alone = {(label, hash_split(group, "t", (0.6, 0.2, 0.2))) for label, group in rows}
    split_of = balanced_split(rows, "t", (0.6, 0.2, 0.2))
    assert len(by_hash_alone) < 9
    assert {(label, split_of[group]) for label, group in rows} == {
        (label, split) for label in "xyz" for split in SPLITS
    }


def test_dealt_splits_have_the_wanted_shares() -> None:
    split_of = dealt_split({f"g{number}" for number in range(20)}, "t", (0.5, 0.2, 0.3))
    assert Counter(split_of.values()) == {"train": 10, "valid": 4, "test": 6}


def test_joined_groups_are_one() -> None:
    groups = Groups()
    for first, second in (("d", "c"), ("b", "a"), ("c", "b"), ("e", "e")):
        groups.join(first, second)
    assert [groups.find(name) for name in "abcde"] == ["a", "a", "a", "a", "e"]
    assert groups.members() == {"a": ["a", "b", "c", "d"], "e": ["e"]}


@given(st.text(max_size=20))
def test_choices_are_functions_of_their_key(key: str) -> None:
    assert 0 <= hash_fraction(key) < 1
    assert 3 <= hash_between(key, 3, 4) < 4
    assert by_hash("edcba", key) == by_hash("abcde", key)


@pytest.mark.parametrize("seed", range(4))
def test_fingerprints_know_a_recording_again(seed: int) -> None:
    fingerprint, wave = near_copies.Fingerprinter(), noise(seed)
    generator = np.random.default_rng(seed)
    same = {
        "quieter": 0.1 * wave,
        "hissing": wave + 1e-3 * generator.standard_normal(len(wave)).astype(np.float32),
        "later": np.concatenate([1e-3 * generator.standard_normal(3000).astype(np.float32), wave]),
        "longer": np.concatenate([wave, noise(seed + 10)]),
    }
    prints = np.stack([fingerprint(to_pcm(other)) for other in same.values()])
    pairs = list(near_copies.near_pairs(fingerprint(to_pcm(wave))[None], prints))
    assert [column for _, column, _ in pairs] == [0, 1, 2, 3]
    others = np.stack([fingerprint(to_pcm(noise(other))) for other in range(20) if other != seed])
    assert not list(near_copies.near_pairs(fingerprint(to_pcm(wave))[None], others))


@given(st.integers(0, 2**32 - 1))
def test_distances_are_those_of_a_plain_loop(seed: int) -> None:
    generator = np.random.default_rng(seed)
    centre = generator.integers(0, 240, near_copies.FINGERPRINT_SIZE)
    prints = np.clip(centre + generator.integers(-20, 21, (5, 1)) * generator.integers(0, 2, centre.shape), 0, 240)
    prints = prints.astype(np.uint8)
    expected = {}
    for i, first in enumerate(prints.astype(float)):
        for j, second in enumerate(prints.astype(float)):
            active = max((first > 0).sum(), (second > 0).sum())
            if (db := np.sqrt(((first - second) ** 2).sum() / active) / 4) < 3:
                expected[i, j] = db
    found = {(i, j): db for i, j, db in near_copies.near_pairs(prints, prints)}
    assert found == pytest.approx(expected, abs=1e-3)


def test_waveforms_are_compared_up_to_gain_and_shift() -> None:
    wave = noise(0)
    assert near_copies.correlation(wave, 0.1 * wave) == pytest.approx(1)
    assert near_copies.correlation(wave, noise(1)) < 0.5
    assert near_copies.best_correlation(wave, -np.roll(wave, 300)) > 0.9


def test_ends_are_cut() -> None:
    wave = np.concatenate([np.zeros(800), np.full(1600, 0.5), np.full(4000, 0.5e-4), np.zeros(10)]).astype(np.float32)
    assert len(trim(wave)) == 1600
    assert len(trim(np.zeros(100, np.float32))) == 0
    assert (
        len(trim_speech(np.concatenate([np.full(8000, 1e-3), wave[800:2400], np.full(8000, 1e-3)]))) == 1600 + 2 * 320
    )


def test_disguised_speech_is_short_loud_and_the_same_each_time() -> None:
    piece = speech_piece(noise(3, 3.0), "key", 1.0)
    assert len(piece) == SAMPLE_RATE
    assert 20 * np.log10(np.sqrt((piece**2).mean())) == pytest.approx(-23, abs=1)
    assert np.array_equal(piece, speech_piece(noise(3, 3.0), "key", 1.0))
    assert not np.array_equal(piece, speech_piece(noise(3, 3.0), "other", 1.0))


def test_pieces_of_a_track_do_not_overlap() -> None:
    starts = list(Track("game", "name", "group", Path("track.ogg"), 60.0).starts(40, 3.0))
    assert len(starts) == int(60 * 0.92 / 3)
    assert all(second - first >= 3 for first, second in pairwise(starts))
    assert starts[0] >= 2.4
    assert starts[-1] + 3 <= 57.6


def test_a_track_that_turns_out_to_be_another_moves_no_third_one() -> None:
    names = ["hv2", "humanitarian", *(f"track{number}" for number in range(12))]
    tracks = [Track("colobot", name, f"colobot/{name}", Path(name), 60.0) for name in names]
    split_of = split_of_groups(tracks)
    assert {split_of[track.group] for track in tracks} == set(SPLITS)
    assert split_of_groups(tracks[1:]) == split_of  # hv2 is the same track as humanitarian


def chunk(tag: bytes, *parts: bytes) -> bytes:
    data = b"".join(parts)
    return tag + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2)


def write_soundfont(path: Path, samples: list[np.ndarray]) -> None:
    """Write a soundfont of two presets: the piano splits the keys at 60 between two samples, the kit has the second."""
    starts = np.cumsum([0, *(len(sample) + 46 for sample in samples)])
    pcm = b"".join(sample.astype("<i2").tobytes() + bytes(92) for sample in samples)
    headers = [
        struct.pack("<20sIIIIIBbHH", f"s{i}".encode(), start, start + len(sample), 0, 0, 22050, 60, 0, 0, 1)
        for i, (start, sample) in enumerate(zip(starts, samples, strict=False))
    ]
    presets = [("Piano", 0, 0, 0), ("Kit", 0, 128, 1), ("EOP", 0, 0, 2)]
    zones = [(0, 59, 0), (60, 127, 1), (0, 127, 1)]  # lowest key, highest key, sample
    lists = {
        b"phdr": [
            struct.pack("<20sHHHIII", n.encode(), program, bank, bag, 0, 0, 0) for n, program, bank, bag in presets
        ],
        b"pbag": [struct.pack("<HH", i, 0) for i in range(3)],
        b"pgen": [struct.pack("<HH", 41, i) for i in (0, 1)] + [bytes(4)],
        b"inst": [struct.pack("<20sH", n, bag) for n, bag in ((b"i0", 0), (b"i1", 2), (b"EOI", 3))],
        b"ibag": [struct.pack("<HH", 2 * i, 0) for i in range(4)],
        b"igen": [struct.pack("<HHHH", 43, low | high << 8, 53, sample) for low, high, sample in zones] + [bytes(4)],
        b"shdr": [*headers, struct.pack("<20sIIIIIBbHH", b"EOS", 0, 0, 0, 0, 0, 0, 0, 0, 0)],
    }
    data = chunk(b"LIST", b"pdta", *(chunk(tag, *rows) for tag, rows in lists.items()))
    path.write_bytes(chunk(b"RIFF", b"sfbk", chunk(b"LIST", b"sdta", chunk(b"smpl", pcm)), data))


def test_a_soundfont_tells_which_samples_a_key_plays(tmp_path: Path) -> None:
    samples = [np.arange(100), np.arange(100, 250)]
    write_soundfont(tmp_path / "two.sf2", samples)
    font = SoundFont(tmp_path / "two.sf2")
    assert [sample.name for sample in font.samples] == ["s0", "s1"]
    assert all(np.array_equal(read.pcm, sample) for read, sample in zip(font.samples, samples, strict=True))
    first, second = (sample.digest for sample in font.samples)
    assert {place: preset.name for place, preset in font.presets.items()} == {(0, 0): "Piano", (128, 0): "Kit"}
    assert font.used(0, 0) == {first, second}
    assert (font.used(0, 0, 40), font.used(0, 0, 60), font.used(128, 0, 1)) == ({first}, {second}, {second})
    assert font.used(0, 7) == frozenset()


def read_events(midi: bytes) -> list[tuple[int, bytes]]:
    """Return (tick, event) pairs of a MIDI file with one track and without running status."""
    place, tick, events = midi.index(b"MTrk") + 8, 0, []
    while place < len(midi):
        delta = 0
        while True:
            delta, more = delta << 7 | midi[place] & 0x7F, midi[place] & 0x80
            place += 1
            if not more:
                break
        tick += delta
        kind = midi[place]
        length = 3 + midi[place + 2] if kind == 0xFF else 2 if kind & 0xF0 == 0xC0 else 3
        events.append((tick, midi[place : place + length]))
        place += length
    return events


def test_midi_plays_pieces_at_their_starts() -> None:
    pieces = [Piece([Note(0.5, 1.0, 60, 100)], 2.0, 5), Piece([Note(0, 0.25, 35, 90)], 1.0, 8, channel=9)]
    events = read_events(midi_file(pieces, [0.0, 3.0]))
    at = {event: tick / 960 for tick, event in events}
    assert at[bytes([0xC0, 5])] == 0
    assert (at[bytes([0x90, 60, 100])], at[bytes([0x80, 60, 64])], at[bytes([0xB0, 120, 0])]) == (0.5, 1.5, 2.0)
    assert (at[bytes([0xC9, 8])], at[bytes([0x99, 35, 90])], at[bytes([0xB9, 120, 0])]) == (3.0, 3.0, 4.0)
    assert events[-1][1] == b"\xff\x2f\x00"


@pytest.mark.parametrize(
    ("kit", "stem", "label"),
    [
        ("GMRockKit", "HatOpen-Hard", "hat_open"),
        ("GMRockKit", "HatPedal-Soft", "hat_closed"),
        ("GMRockKit", "HatSemiOpen-Soft", None),
        ("GMRockKit", "SideStick-Med", "click"),
        ("BJA_Pacific", "TM2_04", "tom"),
        ("TR808EmulationKit", "808_Clave", "click"),
        ("sonic", "drum_cymbal_closed", "hat_closed"),
        ("sonic", "drum_roll", None),
        ("sonic", "bd_808", "kick"),
        ("performous", "drum_bass", "kick"),
        ("Audiophob", "tom 0105", None),
    ],
)
def test_drums_are_named_by_their_files(kit: str, stem: str, label: str | None) -> None:
    assert drum_class(kit, stem) == label


def test_every_task_names_packages_with_a_licence_and_programs_that_can_be_installed() -> None:
    listed = package_lists()
    for task in TASKS.values():
        assert set(task.packages) <= listed.keys()
        assert set(task.programs) <= PROGRAMS.keys()
    assert not [name for name in listed if name.startswith(EXCLUDED)]
    assert all(package.taken and package.licence.strip("?") for package in listed.values())


def test_missing_programs_come_with_the_line_that_installs_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages.shutil, "which", lambda name: None)
    with pytest.raises(ValueError, match="apt-get install -y espeak-ng fluidsynth"):
        need_programs(["fluidsynth", "espeak-ng"])


def test_the_image_has_every_program() -> None:
    image = (ROOT / "corpus/Containerfile").read_text().split()
    needed = {name for program in PROGRAMS.values() for name in program.split()} - {"apt", "dpkg"}
    assert needed <= set(image)
