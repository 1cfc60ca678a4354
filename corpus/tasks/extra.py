"""Unlabelled clips for pre-training: speech, sounds and synthetic speech, from no held-out group of any task."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import soxr

from corpus.audio import SAMPLE_RATE, set_level, trim
from corpus.clips import Clip, Skip, Task
from corpus.hashing import hash_between, pick
from corpus.packages import Packages, audio_files
from corpus.sounds import Sound, sounds, windows
from corpus.splits import hash_split
from corpus.synthesis import ACCENTS, PROGRAMS, Utterance, speak
from corpus.tasks import effect, letter
from corpus.tasks.kws import KEYWORDS, OTHER_WORDS, voices
from corpus.tasks.lid import SPEECH, STAMPS, stamp_groups
from unfused_ray.audio.errors import AudioError

_SECONDS = 4.0
_WINDOWS = 3
_SPEECH_PACKAGES = ("boswars-data", "codec2-examples", "pocketsphinx-testdata")
"""Packages that no task uses."""
_SOUND_PACKAGES = (
    *("bucklespring-data", "emacspeak", "sound-icons", "oxygen-sounds", "deepin-sound-theme", "colobot-common-sounds"),
    *("xblast-tnt-sounds", "crrcsim-data", "manaplus-data", "atanks-data", "teeworlds-data", "xmoto-data"),
    *("performous",),
)
_OTHERS_DO = re.compile(r"music|/voices/|_desc\b|_desc_|stamps/symbols/|/abcs/|track\d", re.IGNORECASE)
"""Left out: music belongs to another task; voice packs, descriptions and words to tasks with groups of their own."""
_SHORTEST_WORD, _LONGEST_WORD, _WORDS_A_CLIP = 3, 9, 5
_CLIPS_OF_VARIANT, _CLIPS_OF_PERSON = 60, 50


def speech_clips(packages: Packages) -> Iterator[Clip | Skip]:
    """Yield stamps, lines of a play, sentences and letters of groups in train, and packages that no task uses."""
    stamps = packages["tuxpaint-stamps-default"] / STAMPS
    groups = stamp_groups(stamps)
    for path in audio_files(stamps):
        name = path.relative_to(stamps).as_posix()
        match = re.fullmatch(r"(.+)_desc(?:_\w+)?\.ogg", name)
        if match and hash_split(groups.find(match[1]), SPEECH) == "train":
            yield Clip("speech", groups.find(match[1]), f"stamps/{name}", path)
    for language in ("cs", "nl"):
        for sound in sounds(packages, f"fillets-ng-data-{language}"):
            room = f"fillets/{sound.path.parent.parent.name}"
            if hash_split(room, SPEECH) == "train":
                yield from _windows("speech", room, sound)
    for sound in sounds(packages, "festvox-ru"):
        if hash_split(sentence := f"festvox-ru/{sound.path.stem}", SPEECH) == "train":
            yield from _windows("speech", sentence, sound)
    for language, text, path in letter.spoken_letters(packages):
        if "klettres" in path.parts and hash_split(text, letter.TASK.name) == "train":
            yield Clip("speech", text, f"klettres/{language}/{path.parent.name}/{path.stem}", path)
    for package in _SPEECH_PACKAGES:
        for sound in sounds(packages, package):
            yield from _windows("speech", package, sound)


def sound_clips(packages: Packages) -> Iterator[Clip | Skip]:
    """Yield all sounds of games and programs that the task effect trains on, or does not use."""
    trained = [package for package, split in effect.SPLIT_OF.items() if split == "train"]
    for package in (*trained, *_SOUND_PACKAGES):
        for sound in sounds(packages, package):
            if not _OTHERS_DO.search(f"/{sound.name}"):
                yield from _windows("sound", package, sound)


def _windows(label: str, group: str, sound: Sound) -> Iterator[Clip | Skip]:
    try:
        wave = trim(sound.load())
    except AudioError as error:
        yield Skip(f"unreadable: {error.reason}")
        return
    parts = list(windows(wave, _SECONDS, _WINDOWS))
    archive = f"{sound.path.stem}/" if sound.in_archive else ""
    for number, part in enumerate(parts):
        key = f"{sound.package}/{archive}{sound.name}/{number}"
        yield Clip(label, group, key, part, sources=(sound.source,), is_whole=len(parts) == 1)


def said_clips(packages: Packages) -> Iterator[Clip]:
    """Yield rows of words, none of them from kws, in the voices that kws trains on."""
    words = vocabulary(packages["wamerican-small"] / "usr/share/dict/american-english-small")
    for voice in voices():
        if voice.split != "train":
            continue
        count = _CLIPS_OF_PERSON if voice.body else _CLIPS_OF_VARIANT
        keys = [f"said/{voice.key}/{number}" for number in range(count)]
        said = speak(voice.engine, voice.name, [_utterance(key, words) for key in keys])
        for key, wave in zip(keys, said, strict=True):
            audio = partial(_body, wave, voice.body, key)
            yield Clip("speech", voice.person, key, audio, sources=(f"{voice.engine}/{voice.name}",))


def vocabulary(path: Path) -> list[str]:
    """Read words of lower-case letters, in the order of the list, without those of kws."""
    known = {*KEYWORDS, *OTHER_WORDS}
    fits = re.compile(f"[a-z]{{{_SHORTEST_WORD},{_LONGEST_WORD}}}")
    return [word for word in path.read_text("utf-8").split() if fits.fullmatch(word) and word not in known]


def _utterance(key: str, words: list[str]) -> Utterance:
    return Utterance(
        " ".join(pick(f"{key}/{number}", words) for number in range(_WORDS_A_CLIP)),
        rate=hash_between(key + "/speed", 0.85, 1.3),
        pitch=hash_between(key + "/pitch", 0.6, 1.5),
        accent=pick(key + "/accent", ACCENTS),
    )


def _body(wave: np.ndarray, body: float, key: str) -> np.ndarray:
    if body:
        wave = soxr.resample(wave, SAMPLE_RATE, SAMPLE_RATE * 2**-body, quality="HQ")
    return set_level(wave, hash_between(key + "/level", -30, -18))


SPEECH_TASK = Task(
    name="speech",
    about="unlabelled speech",
    group_is="as in lid and letter",
    packages=(
        *("tuxpaint-stamps-default", "fillets-ng-data-cs", "fillets-ng-data-nl", "festvox-ru", "klettres-data"),
        *("qabcs-data", *_SPEECH_PACKAGES),
    ),
    clips=speech_clips,
    split=None,
    notes="Of groups that lid, spk and letter hold out, nothing is taken.",
)
SOUNDS_TASK = Task(
    name="sounds",
    about="unlabelled sounds of games and programs, some of them spoken",
    group_is="a game or program",
    packages=(*(package for package, split in effect.SPLIT_OF.items() if split == "train"), *_SOUND_PACKAGES),
    clips=sound_clips,
    split=None,
    notes="Of games and programs that effect holds out, nothing is taken.",
)
SAID_TASK = Task(
    name="said",
    about="unlabelled rows of English words by speech synthesisers",
    group_is="a voice",
    packages=("wamerican-small",),
    programs=PROGRAMS,
    clips=said_clips,
    split=None,
    notes="Only voices that kws trains on, and no word of kws.",
)
