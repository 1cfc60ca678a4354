"""Task kws: keywords in noise by several speech synthesisers; people, and most engines, of test are unheard in
train."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soxr

from corpus.audio import SAMPLE_RATE, fade, load, set_level
from corpus.clips import Clip, Task
from corpus.hashing import by_hash, hash_between, hash_fraction, pick
from corpus.packages import Packages
from corpus.splits import SPLITS, Given, dealt_split
from corpus.synthesis import ACCENTS, PROGRAMS, Utterance, espeak_variants, speak

KEYWORDS = ("yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go")
_OTHERS = (
    "bed bird cat dog eight five four happy house marvin nine one seven sheila six three tree two wow zero backward "
    "forward follow learn visual water music table garden window"
)
OTHER_WORDS = tuple(_OTHERS.split())
_NAMES = (
    "m1 m2 m3 m4 m5 m6 m7 m8 f1 f2 f3 f4 f5 croak whisper whisperf klatt klatt2 klatt3 klatt4 Alex Alicia Andrea Andy "
    "Annie Denis Diogo Gene Gene2 Jacky Lee Mario Michael Mike aunty belinda benjamin boris ed edward grandma grandpa "
    "john linda max norbert paul quincy rob robert sandro shelby steph travis victor"
)
VARIANTS = tuple(_NAMES.split())
"""Variants of espeak-ng. The other variants are effects, or equal to one of these."""
ALIKE = {"klatt2": "klatt", "klatt3": "klatt", "klatt4": "klatt", "edward": "klatt", "benjamin": "klatt"}
ALIKE |= {"Gene2": "Gene", "whisperf": "whisper", "grandpa": "croak"}
"""Variants that sound nearly alike, and count as one voice."""
# People whose recorded voices flite and festival use, the engines that speak with them, and their split. Of the
# engines, statistical synthesis (slt, rms, awb) is unheard in train, and so is espeak-ng's Klatt synthesiser.
_PEOPLE = {
    "kal": (("flite", "kal16"), ("festival", "kal")),
    "ked": (("festival", "ked"),),
    "slt": (("flite", "slt"), ("festival", "slt")),
    "rms": (("flite", "rms"),),
    "awb": (("flite", "awb"),),
}
_PERSON_SPLIT = {"kal": "train", "ked": "train", "slt": "valid", "rms": "test", "awb": "test"}
_FRACTIONS = (0.65, 0.15, 0.20)
_BODIES = {"train": (-0.3, -0.15, 0.0, 0.15, 0.3, 0.45), "valid": (-0.24, -0.08, 0.08, 0.24)}
_BODIES["test"] = (-0.28, -0.17, -0.06, 0.06, 0.17, 0.28, 0.39)
"""Octaves by which a person's speech is played faster; pitch and formants move along, as if of another body."""
_AMBIENCE_SPLITS = ("train", "train", "train", "valid", "train", "test")  # dealt in hash order


@dataclass(frozen=True)
class Voice:
    """One voice of one engine."""

    engine: str
    name: str
    person: str
    """The person whose voice it is; all voices of one person have one split."""
    split: str
    body: float = 0.0
    """Octaves by which it is played faster."""
    clips_a_class: int = 3

    @property
    def key(self) -> str:
        """Name of the voice."""
        return f"{self.engine}/{self.name}" + (f"/{self.body:+.2f}" if self.body else "")


def voices() -> list[Voice]:
    """Return all voices; those of espeak-ng are dealt to the splits."""
    here = espeak_variants()
    variants = [variant for variant in VARIANTS if variant in here]
    people = {ALIKE.get(variant, variant) for variant in variants}
    split_of = {**dealt_split(people - {"klatt"}, "kws", _FRACTIONS), "klatt": "test"}
    found = [
        Voice("espeak-ng", variant, person := ALIKE.get(variant, variant), split_of[person], clips_a_class=4)
        for variant in variants
    ]
    for person, engines in _PEOPLE.items():
        split = _PERSON_SPLIT[person]
        found += [Voice(engine, name, person, split, body) for engine, name in engines for body in _BODIES[split]]
    return found


def clips(packages: Packages) -> Iterator[Clip]:
    """Yield each class in each voice, and pieces of background."""
    ambience = _ambience(packages)
    for voice in voices():
        plan = [
            (label, f"{voice.key}/{label}/{number}")
            for label in (*KEYWORDS, "unknown")
            for number in range(voice.clips_a_class)
        ]
        said = speak(voice.engine, voice.name, [_utterance(label, key) for label, key in plan])
        for (label, key), wave in zip(plan, said, strict=True):
            path = pick(key + "/file", ambience[voice.split])
            yield _clip(voice, label, key, _in_noise(wave, voice.body, _background(path, key), key), path)
        for number in range(voice.clips_a_class):
            key = f"{voice.key}/silence/{number}"
            path = pick(key + "/file", ambience[voice.split])
            level = 10 ** (hash_between(key + "/level", -75, -40) / 20)
            yield _clip(voice, "silence", key, fade(_background(path, key) * np.float32(level), at_start=True), path)


def _clip(voice: Voice, label: str, key: str, wave: np.ndarray, ambience: Path) -> Clip:
    sources = (f"{voice.engine}/{voice.name}", ambience)
    return Clip(label, voice.key, key, wave, sources, family=voice.person, split=voice.split)


def _utterance(label: str, key: str) -> Utterance:
    return Utterance(
        pick(key + "/word", OTHER_WORDS) if label == "unknown" else label,
        rate=hash_between(key + "/speed", 0.75, 1.3),
        pitch=hash_between(key + "/pitch", 0.6, 1.5),
        accent=pick(key + "/accent", ACCENTS),
    )


def _in_noise(word: np.ndarray, body: float, background: np.ndarray, key: str) -> np.ndarray:
    """Return a second with the word somewhere in it, and the background 10 to 25 dB below the word."""
    word = soxr.resample(word, SAMPLE_RATE, SAMPLE_RATE * 2**-body, quality="HQ") if body else word
    word = set_level(word, hash_between(key + "/level", -30, -18))[:SAMPLE_RATE]
    wave = np.zeros(SAMPLE_RATE, np.float32)
    start = int(hash_fraction(key + "/place") * (SAMPLE_RATE - len(word)))
    wave[start : start + len(word)] = word
    distance = hash_between(key + "/snr", 10, 25)
    return wave + background * np.float32(np.sqrt((word**2).mean()) * 10 ** (-distance / 20))


def _ambience(packages: Packages) -> dict[str, list[Path]]:
    folder = packages["sonic-pi-samples"] / "usr/share/sonic-pi/samples"
    paths = [*folder.glob("ambi_*.flac"), folder / "vinyl_hiss.flac"]
    dealt: dict[str, list[Path]] = {split: [] for split in SPLITS}
    for place, path in enumerate(by_hash(paths, "kws-noise", lambda path: path.stem)):
        dealt[_AMBIENCE_SPLITS[place % len(_AMBIENCE_SPLITS)]].append(path)
    return dealt


def _background(path: Path, key: str) -> np.ndarray:
    """Return a second of a recording, with a root mean square of one."""
    wave = load(path)
    wave = np.tile(wave, -(-2 * SAMPLE_RATE // len(wave)))
    start = int(hash_fraction(key + "/offset") * (len(wave) - SAMPLE_RATE))
    wave = wave[start : start + SAMPLE_RATE]
    return wave / (np.sqrt((wave**2).mean()) + np.float32(1e-6))


TASK = Task(
    name="kws",
    about="keyword (ten words, unknown, silence) in a second of synthetic speech with noise",
    group_is="a voice, of one body; variants that sound alike, and all voices of one person, have one split",
    packages=("sonic-pi-samples",),
    programs=PROGRAMS,
    clips=clips,
    split=Given(),
    notes="Spoken by espeak-ng (GPL-3+), flite and festival (free licences of their own) with the voices kal, ked, "
    "slt, rms and awb. Bodies: the recorded voices are also played up to 0.45 octaves faster or slower. Each "
    "word has its own speed, pitch, accent, level, place and background; background recordings do not cross "
    "splits. Unheard in train: the people of valid and test, statistical synthesis (slt, rms, awb) and "
    "espeak-ng's Klatt voices.",
)
