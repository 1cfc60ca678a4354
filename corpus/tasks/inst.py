"""Task inst: the instrument family of a note, from unheard soundfonts."""

from __future__ import annotations

from collections.abc import Iterator

from corpus.clips import Clip, Task
from corpus.general_midi import FAMILIES, FONTS
from corpus.hashing import by_hash
from corpus.instruments import Instrument, Tone, rendered_tones
from corpus.midi import Note, Piece
from corpus.packages import Packages
from corpus.splits import Given

_FAMILY = {program: family for family, programs in FAMILIES.items() for program in programs}
_PITCHES, _VELOCITIES = range(36, 85, 3), (50, 80, 115)
_CLIPS_OF_A_FAMILY = {"FluidR3": 130, "OPL3": 90, "A320U": 50, "GMbank": 24, "TimGM6mb": 24, "GeneralUser": 40}
_SECONDS, _HELD = 2.0, 1.5


def clips(packages: Packages) -> Iterator[Clip]:
    """Yield notes from two octaves below to two octaves above middle C, at three velocities."""
    return rendered_tones(packages, _FAMILY, _tones)


def _tones(instrument: Instrument) -> list[Tone]:
    family = _FAMILY[instrument.program]
    number = -(-_CLIPS_OF_A_FAMILY[instrument.font.name] // len(FAMILIES[family]))
    grid = [(pitch, velocity) for pitch in _PITCHES for velocity in _VELOCITIES]
    return [
        Tone(
            family,
            f"{pitch:03d}-{velocity:03d}",
            Piece([Note(0, _HELD, pitch, velocity)], _SECONDS, instrument.program),
        )
        for pitch, velocity in sorted(by_hash(grid, f"inst/{instrument.font.name}/{instrument.program}")[:number])
    ]


TASK = Task(
    name="inst",
    about="instrument family of a note, unheard soundfonts",
    group_is="a program of a soundfont; programs that share samples are one group, and a soundfont has one split",
    packages=tuple(font.package for font in FONTS),
    programs=("fluidsynth",),
    clips=clips,
    split=Given(),
    max_seconds=_SECONDS,
    notes="Families are NSynth's, by General MIDI programs counted from 0: "
    + "; ".join(f"{family} {' '.join(map(str, programs))}" for family, programs in FAMILIES.items())
    + ".",
)
