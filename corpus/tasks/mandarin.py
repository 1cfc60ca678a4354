"""Tasks tone, rime and onset: parts of a Mandarin syllable, two speakers; all three share recordings and splits."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import TypeAlias

from corpus.clips import Clip, Skip, Task
from corpus.disguise import speech_piece
from corpus.packages import Packages, audio_files
from corpus.splits import Given, balanced_split

SOUNDS = "usr/share/gcin-voice/ogg"
_ONSETS, _GLIDES, _RIMES = "ㄅㄆㄇㄈㄉㄊㄋㄌㄍㄎㄏㄐㄑㄒㄓㄔㄕㄖㄗㄘㄙ", "ㄧㄨㄩ", "ㄚㄛㄜㄝㄞㄟㄠㄡㄢㄣㄤㄥㄦ"
_LATIN = "b p m f d t n l g k h j q x zh ch sh r z c s i u v a o e eh ai ei ao ou an en ang eng er"
_PINYIN = dict(zip(_ONSETS + _GLIDES + _RIMES, _LATIN.split(), strict=True))
_SYLLABIC = "ㄓㄔㄕㄖㄗㄘㄙ"  # syllables without glide and rime
_FOLDER = re.compile(rf"([{_ONSETS}]?)([{_GLIDES}]?)([{_RIMES}]?)([1-4]?)")
"""A folder of gcin-voice in bopomofo: onset, glide, rime and tone. Without a digit it is the first tone; 1 is the
neutral tone."""
LabelOf: TypeAlias = Callable[[str, str, str, str], "str | None"]
_SECONDS = 0.6
_OCTAVES = 0.25
_LEAST_CLIPS = 60
_FRACTIONS = (0.60, 0.15, 0.25)


def tone(onset: str, glide: str, rime: str, digit: str) -> str | None:
    """Return the tone, 1 to 4; None for the neutral tone, which is too rare."""
    return None if digit == "1" else digit or "1"


def rime(onset: str, glide: str, rime: str, digit: str) -> str | None:
    """Return the part after the glide, as written; without it the glide, and ``ih`` without either (zhi, si)."""
    if not (rime or glide):
        return "ih" if onset in _SYLLABIC else None
    return _PINYIN[rime or glide]


def onset(onset: str, glide: str, rime: str, digit: str) -> str | None:
    """Return the consonant, as written; syllables without one are left out."""
    return _PINYIN[onset] if onset and (glide or rime or onset in _SYLLABIC) else None


def _clips(name: str, label_of: LabelOf, packages: Packages) -> Iterator[Clip | Skip]:
    split_of = syllable_splits(packages)
    for path in audio_files(packages["gcin-voice"] / SOUNDS):
        match = _FOLDER.fullmatch(path.parent.name)
        label = label_of(*match.groups()) if match else None
        if match is None or label is None:
            yield Skip("no clear class")
            continue
        syllable = _syllable(match)
        key = f"{syllable}{'0' if match[4] == '1' else match[4] or '1'}/{path.stem}"
        yield Clip(
            label,
            group=syllable,
            key=key,
            audio=partial(speech_piece, path, f"{name}/{key}", _SECONDS, _OCTAVES),
            sources=(path,),
            is_whole=True,
            split=split_of[path.parent.name],
        )


def syllable_splits(packages: Packages) -> dict[str, str]:
    """Return the split of each folder that is named after a syllable, for every task that uses its recordings."""
    folders = [path.parent.name for path in audio_files(packages["gcin-voice"] / SOUNDS)]
    matches = [match for folder in folders if (match := _FOLDER.fullmatch(folder))]
    split_of = _splits(matches)
    return {match[0]: split_of.get(_syllable(match), "train") for match in matches}


def _syllable(match: re.Match[str]) -> str:
    return "".join(_PINYIN[letter] for letter in "".join(match.groups()[:3]))


def _splits(matches: Iterable[re.Match[str]]) -> dict[str, str]:
    """Return the split of each syllable, the same for all tasks, with every rime and onset in every split."""
    rows = [
        (f"{name}/{label}", _syllable(match))
        for match in matches
        for name, label_of in (("rime", rime), ("onset", onset))
        if (label := label_of(*match.groups()))
    ]
    return balanced_split(rows, "mandarin", _FRACTIONS)


def tone_clips(packages: Packages) -> Iterator[Clip | Skip]:
    """Yield syllables, labelled by tone."""
    yield from _clips("tone", tone, packages)


def rime_clips(packages: Packages) -> Iterator[Clip | Skip]:
    """Yield syllables, labelled by rime."""
    yield from _clips("rime", rime, packages)


def onset_clips(packages: Packages) -> Iterator[Clip | Skip]:
    """Yield syllables, labelled by onset."""
    yield from _clips("onset", onset, packages)


def _task(name: str, about: str, clips: Callable[[Packages], Iterator[Clip | Skip]]) -> Task:
    return Task(
        name=name,
        about=about,
        group_is="a syllable without its tone; tone, rime and onset have one split",
        packages=("gcin-voice",),
        clips=clips,
        split=Given(),
        least_clips=_LEAST_CLIPS,
        notes="Two people speak every syllable; each clip is played up to 0.25 octaves faster or slower and goes over "
        "a telephone line of its own. Syllables of valid and test are unheard in train, whatever their tone.",
    )


TONE = _task("tone", "tone of a spoken Mandarin syllable", tone_clips)
RIME = _task("rime", "rime of a spoken Mandarin syllable", rime_clips)
ONSET = _task("onset", "onset of a spoken Mandarin syllable", onset_clips)
