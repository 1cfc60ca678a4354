"""The music of games: its tracks, those that share material, and the split of each."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import soundfile

from corpus.hashing import hash_fraction
from corpus.packages import Packages, audio_files
from corpus.splits import Fractions, dealt_split

_LEAST_SECONDS = 25.0
_EDGE = 0.04  # share of a track that is left out at both ends: fades and silence
_FRACTIONS: Fractions = (0.55, 0.12, 0.33)
_VERSION = r"[-_]?(old|remix|enhanced|epic|raw|map|theme)?[-_]?\d*$"


@dataclass(frozen=True)
class Soundtrack:
    """The music of one game."""

    package: str
    folder: str
    version: str = r"[-_](old|enhanced)$"
    """Pattern of the addition to a name that marks another version of a track."""


SOUNDTRACKS = {
    "colobot": Soundtrack("colobot-common-sounds", "usr/share/games/colobot/music"),
    "drascula": Soundtrack("drascula-music", "usr/share/scummvm/drascula/audio"),
    "freedroidrpg": Soundtrack("freedroidrpg-data", "usr/share/freedroidrpg/data/sound/music"),
    "hedgewars": Soundtrack("hedgewars-data", "usr/share/games/hedgewars/Data/Music"),
    "hyperrogue": Soundtrack("hyperrogue-music", "usr/share/hyperrogue/music"),
    "marsshooter": Soundtrack("marsshooter-data", "usr/share/games/marsshooter/audio/music"),
    "singularity": Soundtrack("singularity-music", "usr/share/games/singularity/music"),
    "supertux": Soundtrack("supertux-data", "usr/share/games/supertux2/music", _VERSION),
    "warzone": Soundtrack("warzone2100-music", "usr/share/games/warzone2100/music"),
    "wesnoth": Soundtrack("wesnoth-1.16-music", "usr/share/games/wesnoth/1.16/data/core/music", _VERSION),
}
"""Soundtracks of at least a dozen tracks."""
_SAME = {
    "colobot/hv2": "colobot/humanitarian",
    "freedroidrpg/hellfortresstwo": "freedroidrpg/hellfortressentrance",
}
"""Tracks that share recordings with one of another name, found by comparing fingerprints at all places of both."""
_OF_A_SOUNDTRACK = ("starfighter-data", "through_space")
"""A track of the other packages that is singularity's "Through Space", and is left out."""
OTHER_MUSIC = (
    *("asc-music", "btanks-data", "enigma-data", "extremetuxracer-data", "frozen-bubble-data"),
    *("fretsonfire-songs-muldjord", "fretsonfire-songs-sectoid", "gigalomania-data", "lordsawar-data", "pathological"),
    *("planetblupi-music-ogg", "starfighter-data", "trackballs-data", "wizznic-data", "zaz-data"),
)
"""Packages with fewer tracks, which are only for pre-training."""


@dataclass(frozen=True)
class Track:
    """A piece of music."""

    game: str
    name: str
    """Path relative to the folder of the game's music, without suffix."""
    group: str
    """Name shared by the tracks that are versions of one piece."""
    path: Path
    seconds: float

    def starts(self, number: int, length: float) -> Iterator[float]:
        """Yield starts of at most ``number`` pieces of ``length`` seconds, spread over the track, without overlap."""
        room = (1 - 2 * _EDGE) * self.seconds
        number = min(number, int(room / length))
        for place in range(number):
            spare = room / number - length
            shift = hash_fraction(f"piece/{self.game}/{self.name}/{place}") * spare
            yield _EDGE * self.seconds + place * room / number + shift


def tracks(packages: Packages, game: str) -> list[Track]:
    """List the tracks of a soundtrack, by name."""
    soundtrack = SOUNDTRACKS[game]
    found = []
    for track in _tracks(game, packages[soundtrack.package] / soundtrack.folder):
        stem = track.path.stem.lower()
        group = f"{game}/{re.sub(soundtrack.version, '', stem) or stem}"
        found.append(Track(game, track.name, _SAME.get(group, group), track.path, track.seconds))
    return found


def other_tracks(packages: Packages) -> list[Track]:
    """List the tracks of the other packages, without one that a soundtrack has."""
    found = (track for package in OTHER_MUSIC for track in _tracks(package, packages[package]))
    return [track for track in found if (track.game, track.path.stem) != _OF_A_SOUNDTRACK]


def split_of_groups(tracks_of_game: list[Track]) -> dict[str, str]:
    """Return the split of each group of a soundtrack."""
    game = tracks_of_game[0].game
    # A name that was joined to another keeps its place in the deal, so that no other track changes its split.
    joined = {name for name in _SAME if name.startswith(f"{game}/")}
    return dealt_split({track.group for track in tracks_of_game} | joined, f"soundtrack/{game}", _FRACTIONS)


def _tracks(game: str, folder: Path) -> Iterator[Track]:
    for path in audio_files(folder):
        try:
            seconds = soundfile.info(path).duration
        except soundfile.LibsndfileError:  # such as MIDI under another name
            continue
        if seconds >= _LEAST_SECONDS:
            name = str(path.relative_to(folder).with_suffix(""))
            yield Track(game, name, f"{game}/{name}", path, seconds)
