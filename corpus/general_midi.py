"""The soundfonts of the music tasks, and the split of each: the same in all tasks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from corpus.packages import Packages


@dataclass(frozen=True)
class Font:
    """A General MIDI soundfont of a package."""

    name: str
    package: str
    file: str
    split: str

    @property
    def source(self) -> str:
        """Name of the recording that all clips of the soundfont share."""
        return f"soundfont/{self.name}"

    def path(self, packages: Packages) -> Path:
        """Return the path of the unpacked file."""
        return packages[self.package] / self.file


FONTS = (
    Font("FluidR3", "fluid-soundfont-gm", "usr/share/sounds/sf2/FluidR3_GM.sf2", "train"),
    Font("OPL3", "opl3-soundfont", "usr/share/sounds/sf2/OPL-3_FM_128M.sf2", "train"),
    Font("A320U", "denemo-data", "usr/share/sounds/sf2/A320U.sf2", "valid"),
    Font("GMbank", "csound-soundfont", "usr/share/sounds/sf2/sf_GMbank.sf2", "test"),
    Font("TimGM6mb", "timgm6mb-soundfont", "usr/share/sounds/sf2/TimGM6mb.sf2", "test"),
    Font("GeneralUser", "minuet-data", "usr/share/minuet/soundfonts/GeneralUser-v1.47.sf2", "test"),
)
"""The soundfonts, without MuseScore_General, which is FluidR3 remastered.

The last three share samples, and all are in test. A320U shares some samples with them, as near-copies show.
"""

DRUM_CLASS_KEYS = {
    "kick": (35, 36),
    "click": (37, 75, 76, 77),
    "snare": (38, 40),
    "clap_shaker": (39, 54, 69, 70, 82),
    "hat_closed": (42, 44),
    "hat_open": (46,),
    "tom": (41, 43, 45, 47, 48, 50),
    "bell": (56, 67, 68),
    "cymbal": (49, 51, 52, 53, 55, 57, 59),
    "hand_drum": (60, 61, 62, 63, 64),
}
"""Percussion keys of General MIDI by class; guiro, cuica, whistles, triangle and others are in no class."""
DRUM_CLASS = {key: label for label, keys in DRUM_CLASS_KEYS.items() for key in keys}

FAMILIES: dict[str, tuple[int, ...]] = {
    "bass": tuple(range(32, 40)),
    "brass": tuple(range(56, 64)),
    "flute": tuple(range(72, 80)),
    "guitar": tuple(range(24, 32)),
    "keyboard": tuple(range(8)),
    "mallet": (8, 9, 10, 11, 12, 13, 14, 15, 108, 114),
    "organ": tuple(range(16, 24)),
    "reed": (64, 65, 66, 67, 68, 69, 70, 71, 109, 111),
    "string": (40, 41, 42, 43, 44, 45, 46, 48, 49, 50, 51, 110),
    "synth_lead": (80, 81, 82, 83, 84, 86, 87),
    "vocal": (52, 53, 54, 85, 91),
}
"""NSynth's 11 families and their General MIDI programs, counted from 0.

Mallet is celesta to dulcimer, kalimba and steel drums. Organ is General MIDI's own group, with accordions and
harmonica. Vocal has choirs, synth voice, solo vox and space voice. Pads, effects, ethnic plucked strings, percussive
and sound effects are in no family.
"""
