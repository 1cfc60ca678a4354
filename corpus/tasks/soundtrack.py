"""Task soundtrack: the game that a piece of music is from, on unheard tracks."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np

from corpus.audio import load
from corpus.clips import Clip, Task
from corpus.disguise import colour
from corpus.packages import Packages
from corpus.soundtracks import SOUNDTRACKS, Track, split_of_groups, tracks
from corpus.splits import Given

_PIECES, _SECONDS = 6, 3.0


def clips(packages: Packages) -> Iterator[Clip]:
    """Yield pieces of each track, each over a line of its own, because encoders and levels differ by game."""
    for game in SOUNDTRACKS:
        found = tracks(packages, game)
        split_of = split_of_groups(found)
        for track in found:
            for number, start in enumerate(track.starts(_PIECES, _SECONDS)):
                key = f"{game}/{track.name}/{number}"
                yield Clip(
                    label=game,
                    group=track.group,
                    key=key,
                    audio=partial(_piece, track, start, key),
                    sources=(track.path,),
                    split=split_of[track.group],
                )


def _piece(track: Track, start: float, key: str) -> np.ndarray:
    wave = load(track.path, start, _SECONDS)
    return colour(wave, f"soundtrack/{key}", noise_db=(25.0, 40.0), tilt_db=4.0, band=(100.0, 5500.0))


TASK = Task(
    name="soundtrack",
    about="which game's music, unheard tracks",
    group_is="a track, with its other versions",
    packages=tuple(soundtrack.package for soundtrack in SOUNDTRACKS.values()),
    clips=clips,
    split=Given(),
    max_seconds=_SECONDS,
    notes="Pieces go over a line of their own (100 Hz to 5.5 kHz, tilt, noise at 25 to 40 dB, one level), because "
    "encoders and levels differ by game.",
)
