"""Writes MIDI files and renders them with a soundfont (fluidsynth)."""

from __future__ import annotations

import struct
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from corpus.audio import SAMPLE_RATE, load
from corpus.packages import run_program

DRUM_CHANNEL = 9
_TICKS = 960  # per second: 480 a beat, 120 beats a minute
_ALL_SOUND_OFF = 120
_PIECES_AT_A_TIME = 200
_PAUSE = 0.15  # seconds between two pieces


class Note(NamedTuple):
    """A note of a piece."""

    start: float
    """Start in seconds."""
    seconds: float
    pitch: int
    velocity: int


class Piece(NamedTuple):
    """Notes of one clip, played on one channel."""

    notes: Sequence[Note]
    seconds: float
    """Length of the clip; all sound is off at its end."""
    program: int = 0
    channel: int = 0
    bank: int = 0


def render(font: Path, pieces: Sequence[Piece]) -> Iterator[np.ndarray]:
    """Play pieces one after the other, without effects; yield each as 16 kHz mono samples.

    Args:
        font: soundfont file, SF2 or SF3.
        pieces: pieces to play; each begins in silence.

    Raises:
        RuntimeError: fluidsynth failed.
    """
    for start in range(0, len(pieces), _PIECES_AT_A_TIME):
        yield from _render(font, pieces[start : start + _PIECES_AT_A_TIME])


def _render(font: Path, pieces: Sequence[Piece]) -> Iterator[np.ndarray]:
    starts = np.concatenate([[0.0], np.cumsum([piece.seconds + _PAUSE for piece in pieces])])
    with tempfile.TemporaryDirectory() as folder:
        midi, wav = Path(folder, "pieces.mid"), Path(folder, "pieces.wav")
        midi.write_bytes(midi_file(pieces, starts))
        options = ["-R", "0", "-C", "0", "-g", "0.7", "-r", "44100", "-T", "wav", "-O", "s16"]
        lazy = ["-o", "synth.dynamic-sample-loading=1"]
        run_program(["fluidsynth", "-ni", "-q", *options, *lazy, "-F", wav, font, midi])
        wave = load(wav)
    for piece, start in zip(pieces, starts[:-1], strict=True):
        begin = round(float(start) * SAMPLE_RATE)
        yield wave[begin : begin + round(piece.seconds * SAMPLE_RATE)]


def single_notes(
    notes: Iterable[tuple[int, int]], program: int, channel: int = 0, held: float = 1.5, seconds: float = 2.0
) -> list[Piece]:
    """Make a piece for each (pitch, velocity)."""
    return [Piece([Note(0.0, held, pitch, velocity)], seconds, program, channel) for pitch, velocity in notes]


def midi_file(pieces: Sequence[Piece], starts: Sequence[float] | np.ndarray) -> bytes:
    """Return a MIDI file of one track that plays the pieces at their starts."""
    events: list[tuple[int, int, bytes]] = []  # tick, order within a tick, event
    for piece, start in zip(pieces, starts, strict=False):
        channel, first = piece.channel, round(float(start) * _TICKS)
        events.append((first, 1, bytes([0xB0 | channel, 0, piece.bank])))
        events.append((first, 2, bytes([0xC0 | channel, piece.program])))
        for note in piece.notes:
            begin, end = (round((float(start) + at) * _TICKS) for at in (note.start, note.start + note.seconds))
            events.append((begin, 3, bytes([0x90 | channel, note.pitch, note.velocity])))
            events.append((end, 0, bytes([0x80 | channel, note.pitch, 64])))
        end = round((float(start) + piece.seconds) * _TICKS)
        events.append((end, 0, bytes([0xB0 | channel, _ALL_SOUND_OFF, 0])))
    track, now = b"\x00\xff\x51\x03" + (500000).to_bytes(3, "big"), 0
    for tick, _, event in sorted(events):
        track += _variable_length(tick - now) + event
        now = tick
    track += _variable_length(_TICKS // 2) + b"\xff\x2f\x00"
    return b"MThd" + struct.pack(">IHHH", 6, 0, 1, 480) + b"MTrk" + struct.pack(">I", len(track)) + track


def _variable_length(number: int) -> bytes:
    groups = [number & 0x7F]
    while number := number >> 7:
        groups.append(0x80 | number & 0x7F)
    return bytes(reversed(groups))
