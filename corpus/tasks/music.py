"""Unlabelled music: pieces of the soundtracks' training tracks, and of games with few tracks."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from corpus.audio import load
from corpus.clips import Clip, Task
from corpus.packages import Packages
from corpus.soundtracks import OTHER_MUSIC, SOUNDTRACKS, Track, other_tracks, split_of_groups, tracks

_PIECES, _SECONDS = 40, 3.0


def clips(packages: Packages) -> Iterator[Clip]:
    """Yield pieces of all tracks that the task ``soundtrack`` does not hold out."""
    for game in SOUNDTRACKS:
        found = tracks(packages, game)
        split_of = split_of_groups(found)
        yield from _pieces([track for track in found if split_of[track.group] == "train"])
    yield from _pieces(other_tracks(packages))


def _pieces(found: list[Track]) -> Iterator[Clip]:
    for track in found:
        for number, start in enumerate(track.starts(_PIECES, _SECONDS)):
            key = f"{track.game}/{track.name}/{number}"
            yield Clip(
                "music", track.group, key, partial(load, track.path, start, _SECONDS), (track.path,), fade_out=True
            )


TASK = Task(
    name="music",
    about="unlabelled: pieces of game music",
    group_is="a track",
    packages=(*(soundtrack.package for soundtrack in SOUNDTRACKS.values()), *OTHER_MUSIC),
    clips=clips,
    split=None,
    max_seconds=_SECONDS,
)
