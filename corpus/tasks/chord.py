"""Task chord: the kind of chord that is played, on unheard instruments of unheard soundfonts."""

from __future__ import annotations

from collections.abc import Iterator

from corpus.clips import Clip, Task
from corpus.general_midi import FAMILIES, FONTS
from corpus.hashing import hash_between, hash_int
from corpus.instruments import Instrument, Tone, rendered_tones
from corpus.midi import Note, Piece
from corpus.packages import Packages
from corpus.splits import Given

_CHORDS = {
    "octave": (0, 12),
    "fifth": (0, 7),
    "tritone": (0, 6),
    "second": (0, 2),
    "major": (0, 4, 7),
    "minor": (0, 3, 7),
    "diminished": (0, 3, 6, 9),
    "cluster": (0, 1, 2, 3),
}
_ROOTS = range(48, 72)
# Sustained sounds of one pitch; 86 is a lead in fifths.
_PROGRAMS = {
    *(
        p
        for family in ("keyboard", "organ", "guitar", "string", "brass", "reed", "flute", "vocal")
        for p in FAMILIES[family]
    ),
    *(80, 81, 82),
}
_CHORDS_OF_AN_INSTRUMENT = {"FluidR3": 10, "OPL3": 8, "A320U": 4, "GMbank": 3, "TimGM6mb": 3, "GeneralUser": 5}
_SECONDS = 2.0


def clips(packages: Packages) -> Iterator[Clip]:
    """Yield intervals and chords on hashed roots, with all notes struck together."""
    return rendered_tones(packages, _PROGRAMS, _tones)


def _tones(instrument: Instrument) -> list[Tone]:
    key, names, tones = f"chord/{instrument.font.name}/{instrument.program}", sorted(_CHORDS), []
    first = hash_int(key)
    for number in range(_CHORDS_OF_AN_INSTRUMENT[instrument.font.name]):
        name = names[(first + number) % len(names)]
        root = int(hash_between(f"{key}/{number}/root", _ROOTS.start, _ROOTS.stop))
        velocity = int(hash_between(f"{key}/{number}/velocity", 60, 115))
        notes = [Note(0, 1.5, root + step, velocity) for step in _CHORDS[name]]
        tones.append(Tone(name, f"{name}-{root}-{number}", Piece(notes, _SECONDS, instrument.program)))
    return tones


TASK = Task(
    name="chord",
    about="which of eight intervals and chords, unheard soundfonts",
    group_is="a program of a soundfont; programs that share samples are one group, and a soundfont has one split",
    packages=tuple(font.package for font in FONTS),
    programs=("fluidsynth",),
    clips=clips,
    split=Given(),
    max_seconds=_SECONDS,
    notes="Semitones above the root: "
    + "; ".join(f"{name} {' '.join(map(str, steps))}" for name, steps in _CHORDS.items())
    + ".",
)
