"""Task spk: the speaker; the voices were recorded differently, so each clip goes over a line of its own."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from corpus.audio import load, trim, trim_speech
from corpus.clips import Clip, Task
from corpus.disguise import speech_piece
from corpus.hashing import by_hash
from corpus.packages import Packages, audio_files
from corpus.splits import SPLITS, Given, hash_split
from corpus.tasks.lid import SPEECH, VOICE_PACKS, bucket_of, hedgewars_phrase
from corpus.tasks.mandarin import SOUNDS, syllable_splits

_CAP = 160
"""Largest number of recordings of a voice."""
_SECONDS = 1.6
_PACK_VOICE = {
    "Classic": "en_Default",
    "Default_pl": "pl_Default",
    "Default_ru": "ru_Default",
    "Default_uk": "uk_Default",
}
_PACK_VOICE |= {"Russian_pl": "pl_Russian", "Default_es": "es_Default"}
_PROCESSED = frozenset({"Robot"})
_FISH = re.compile(r"[^-]+-([mv])-.+")
"""Lines of the small fish (m) and the big one (v); the other characters of the play speak too rarely."""
_MANDARIN_VOICES = ("3", "5")
_SYLLABLES = 5  # per clip of a Mandarin voice
_GAP = np.zeros(640, np.float32)


@dataclass(frozen=True)
class _Spoken:
    voice: str
    text: str
    """The words spoken, equal for voices that say the same; this is the group."""
    paths: tuple[Path, ...]
    family: str
    """Recordings that have one split in every task that uses them."""
    split: str


def clips(packages: Packages) -> Iterator[Clip]:
    """Yield up to ``_CAP`` recordings of each voice, each over a line of its own."""
    voices: dict[str, list[_Spoken]] = {}
    for spoken in (*_hedgewars(packages), *_kajongg(packages), *_fillets(packages), *_mandarin(packages)):
        voices.setdefault(spoken.voice, []).append(spoken)
    for voice, lines in sorted(voices.items()):
        for line in by_hash(lines, "spk", lambda line: f"{line.text}/{line.paths[0].name}")[:_CAP]:
            key = f"{voice}/{line.text}/{'+'.join(path.parent.name + path.stem for path in line.paths)}"
            audio = partial(_piece, line.paths, f"spk/{key}")
            yield Clip(
                voice,
                line.text,
                key,
                audio,
                sources=line.paths,
                is_whole=len(line.paths) == 1,
                family=line.family,
                split=line.split,
            )


def _piece(paths: tuple[Path, ...], key: str) -> np.ndarray:
    waves = [trim_speech(trim(load(path))) for path in paths]
    joined = np.concatenate([part for wave in waves for part in (wave, _GAP)][:-1])
    return speech_piece(joined, key, _SECONDS, octaves=0.0)


def _hedgewars(packages: Packages) -> Iterator[_Spoken]:
    for pack in sorted(path for path in (packages["hedgewars-data"] / VOICE_PACKS).iterdir() if path.is_dir()):
        if pack.name not in _PROCESSED:
            for path in audio_files(pack):
                voice, phrase = _PACK_VOICE.get(pack.name, f"en_{pack.name}"), hedgewars_phrase(path)
                yield _line(voice, f"hedgewars/{phrase}", path, family=bucket_of("hedgewars", phrase))


def _kajongg(packages: Packages) -> Iterator[_Spoken]:
    folder = packages["kajongg"] / "usr/share/kajongg/voices"
    for path in audio_files(folder):
        language = "de" if path.parent.parent.name == "de" else "en"
        family = bucket_of("kajongg", path.stem)
        yield _line(f"{language}_{path.parent.name}", f"kajongg/{path.stem}", path, family)


def _fillets(packages: Packages) -> Iterator[_Spoken]:
    for language in ("cs", "nl"):
        for path in audio_files(packages[f"fillets-ng-data-{language}"] / "usr/share/games/fillets-ng/sound"):
            if match := _FISH.fullmatch(path.stem):
                room = f"fillets/{path.parent.parent.name}"
                yield _line(f"{language}_fish_{match[1]}", room, path, family=room)


def _line(voice: str, text: str, path: Path, family: str) -> _Spoken:
    return _Spoken(voice, text, (path,), family, hash_split(family, SPEECH))


def _mandarin(packages: Packages) -> Iterator[_Spoken]:
    """Yield rows of syllables of one split, the same for both voices."""
    split_of = syllable_splits(packages)
    folders = [packages["gcin-voice"] / SOUNDS / name for name in by_hash(split_of, "spk")]
    both = [folder for folder in folders if all((folder / f"{voice}.ogg").is_file() for voice in _MANDARIN_VOICES)]
    for split in SPLITS:
        heard = [folder for folder in both if split_of[folder.name] == split]
        for start in range(0, len(heard) - _SYLLABLES + 1, _SYLLABLES):
            row = f"gcin/{split}/{start}"
            for voice in _MANDARIN_VOICES:
                paths = tuple(folder / f"{voice}.ogg" for folder in heard[start : start + _SYLLABLES])
                yield _Spoken(f"zh_{voice}", row, paths, row, split)


TASK = Task(
    name="spk",
    about="who speaks",
    group_is="what is said: a phrase, a tile of mah-jongg, a room of the game, a row of syllables",
    packages=("hedgewars-data", "kajongg", "fillets-ng-data-cs", "fillets-ng-data-nl", "gcin-voice"),
    clips=clips,
    split=Given(),
    least_clips=40,
    notes="Voices in Czech, Dutch, English, German, Mandarin, Polish, Russian and Ukrainian. The machine they were "
    "recorded on is disguised: pauses are cut, each clip goes over a telephone line of its own (100 Hz to 3.8 "
    "kHz, tilt, noise at 15 to 30 dB, common loudness). Voice packs that share an actor are one class.",
)
