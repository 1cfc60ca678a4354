"""Unlabelled phrases: made-up melodies, chords and rhythms, played by the training soundfonts."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from corpus.clips import Clip, Task
from corpus.general_midi import DRUM_CLASS, FONTS
from corpus.hashing import hash_int
from corpus.instruments import MELODIC
from corpus.midi import DRUM_CHANNEL, Note, Piece, render
from corpus.packages import Packages
from corpus.soundfont import DRUMS, SoundFont

_SECONDS = 3.0
_PHRASES = {"FluidR3": 3200, "OPL3": 1600}
_FONTS = tuple(font for font in FONTS if font.split == "train")
_SCALES = ((0, 2, 4, 5, 7, 9, 11), (0, 2, 3, 5, 7, 8, 10), (0, 2, 4, 7, 9), (0, 3, 5, 6, 7, 10))


def clips(packages: Packages) -> Iterator[Clip]:
    """Yield phrases: half melodies, a third chords, a sixth drums, on instruments drawn from a whole soundfont."""
    for font in _FONTS:
        contents = SoundFont(font.path(packages))
        programs = sorted(program for bank, program in contents.presets if bank == MELODIC)
        kits = sorted(program for bank, program in contents.presets if bank == DRUMS)
        keys = [f"{font.name}/{number:04d}" for number in range(_PHRASES[font.name])]
        pieces = [_phrase(key, programs, kits) for key in keys]
        for key, piece, wave in zip(keys, pieces, render(contents.path, pieces), strict=True):
            kind = "drums" if piece.channel == DRUM_CHANNEL else "notes"
            yield Clip(kind, f"{font.name}/{piece.program}", key, wave, (font.source,), fade_out=True)


def _phrase(key: str, programs: list[int], kits: list[int]) -> Piece:
    generator = np.random.Generator(np.random.Philox(key=hash_int(f"phrases/{key}")))  # keyed by the phrase: no state
    kind = int(generator.integers(6))
    if kind == 5:
        return Piece(_rhythm(generator), _SECONDS, int(generator.choice(kits)), DRUM_CHANNEL)
    notes = _melody(generator) if kind < 3 else _chords(generator)
    return Piece(notes, _SECONDS, int(generator.choice(programs)))


def _melody(generator: np.random.Generator) -> list[Note]:
    """Make a random walk on a scale, in steps of half a beat, a beat or two beats."""
    scale = _SCALES[int(generator.integers(len(_SCALES)))]
    root, degree = int(generator.integers(40, 72)), int(generator.integers(len(scale)))
    beat, at, notes = float(generator.uniform(0.16, 0.5)), 0.0, list[Note]()
    while at < _SECONDS - 0.1:
        length = beat * float(generator.choice([0.5, 1, 1, 2]))
        octave, step = divmod(degree, len(scale))
        pitch = int(np.clip(root + 12 * octave + scale[step], 24, 100))
        notes.append(Note(at, min(length * 0.9, _SECONDS - at), pitch, int(generator.integers(60, 120))))
        degree += int(generator.integers(-2, 3))
        at += length
    return notes


def _chords(generator: np.random.Generator) -> list[Note]:
    """Make stacks of thirds on the degrees of a scale, struck together or one after the other."""
    scale = _SCALES[int(generator.integers(2))]
    root, length = int(generator.integers(40, 65)), float(generator.choice([0.5, 0.75, 1.0, 1.5]))
    is_broken, size, notes = bool(generator.integers(2)), int(generator.integers(2, 5)), list[Note]()
    for at in np.arange(0, _SECONDS - 0.1, length):
        degree, velocity = int(generator.integers(7)), int(generator.integers(60, 115))
        for number in range(size):
            octave, step = divmod(degree + 2 * number, len(scale))
            start = float(at) + (number * length / size if is_broken else 0.0)
            notes.append(Note(start, float(at) + length - start, root + 12 * octave + scale[step], velocity))
    return notes


def _rhythm(generator: np.random.Generator) -> list[Note]:
    """Make a bar of eighths or sixteenths of three to five drums, and repeat it."""
    step, steps = float(generator.uniform(0.09, 0.22)), int(generator.choice([6, 8, 12, 16]))
    keys = generator.choice(sorted(DRUM_CLASS), int(generator.integers(3, 6)), replace=False)
    struck_KS = generator.random((len(keys), steps)) < generator.uniform(0.15, 0.5, (len(keys), 1))
    notes = []
    for place in range(int((_SECONDS - 0.1) / step)):
        for key, struck_S in zip(keys, struck_KS, strict=True):
            if struck_S[place % steps]:
                notes.append(Note(place * step, step, int(key), int(generator.integers(60, 120))))
    return notes


TASK = Task(
    name="phrases",
    about="unlabelled: made-up melodies, chords and rhythms of the training soundfonts",
    group_is="an instrument",
    packages=tuple(font.package for font in _FONTS),
    programs=("fluidsynth",),
    clips=clips,
    split=None,
    max_seconds=_SECONDS,
)
