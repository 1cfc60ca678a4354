"""Task pitch: the note that is played, one of twelve, on unheard instruments of unheard soundfonts."""

from __future__ import annotations

from collections.abc import Iterator

from corpus.clips import Clip, Task
from corpus.general_midi import FAMILIES, FONTS
from corpus.hashing import by_hash, hash_between
from corpus.instruments import Instrument, Tone, rendered_tones
from corpus.midi import Note, Piece
from corpus.packages import Packages
from corpus.splits import Given

_NOTES = {48: "C3", 51: "Eb3", 54: "Gb3", 57: "A3", 60: "C4", 63: "Eb4", 66: "Gb4", 69: "A4"}
_NOTES |= {72: "C5", 75: "Eb5", 78: "Gb5", 81: "A5"}
# In some soundfonts basses sound an octave lower than written; the lead in fifths has two pitches.
_PROGRAMS = {p for family, programs in FAMILIES.items() for p in programs if family != "bass"} - {86}
_NOTES_OF_AN_INSTRUMENT = {"FluidR3": 8, "OPL3": 6, "A320U": 3, "GMbank": 2, "TimGM6mb": 2, "GeneralUser": 3}
_SECONDS = 2.0


def clips(packages: Packages) -> Iterator[Clip]:
    """Yield notes a minor third apart, of hashed length and velocity."""
    return rendered_tones(packages, _PROGRAMS, _tones)


def _tones(instrument: Instrument) -> list[Tone]:
    key = f"pitch/{instrument.font.name}/{instrument.program}"
    tones = []
    for pitch in sorted(by_hash(_NOTES, key)[: _NOTES_OF_AN_INSTRUMENT[instrument.font.name]]):
        held = hash_between(f"{key}/{pitch}/held", 0.4, 1.6)
        velocity = int(hash_between(f"{key}/{pitch}/velocity", 50, 120))
        piece = Piece([Note(0, held, pitch, velocity)], min(_SECONDS, held + 0.3), instrument.program)
        tones.append(Tone(_NOTES[pitch], _NOTES[pitch], piece))
    return tones


TASK = Task(
    name="pitch",
    about="which of 12 notes a minor third apart, unheard soundfonts",
    group_is="a program of a soundfont; programs that share samples are one group, and a soundfont has one split",
    packages=tuple(font.package for font in FONTS),
    programs=("fluidsynth",),
    clips=clips,
    split=Given(),
    max_seconds=_SECONDS,
)
