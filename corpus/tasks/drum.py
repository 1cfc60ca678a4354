"""Task drum: the percussion type of a single hit, from unheard drum kits."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from corpus.audio import resample
from corpus.clips import Clip, Skip, Task
from corpus.general_midi import DRUM_CLASS, FONTS, Font
from corpus.hashing import by_hash
from corpus.midi import DRUM_CHANNEL, render, single_notes
from corpus.packages import Packages, audio_files
from corpus.soundfont import DRUMS, Sample, SoundFont
from corpus.splits import Given

_UNCLEAR = Skip("no clear class")
# The first rule that matches a name decides; None drops the clip. Names are in lower case, with blanks as separators.
# Ambiguous sounds (half-open hats, chokes, clicks, rolls, effects) are dropped rather than guessed.
_RULES: tuple[tuple[str, str | None], ...] = (
    (r"rim ?click|side ?stick|\bstick|clave|wood ?block|^rim \d|^elec wood", "click"),
    (r"empty|fx|whistle|semi ?open|swish|choke|roll|glass|\bclick\b|hat (low|ring)|\bdrum\b$|^perc|^loop", None),
    (r"conga|bongo|djembe|cajon|(dununba|kenkeni|sangban)\d? head|^tabla", "hand_drum"),
    (r"cow ?bell|agogo|(dununba|kenkeni|sangban)\d? bell", "bell"),
    (r"tambourine|maraca|shaker|cabasa|clap|finger ?snap", "clap_shaker"),
    (r"snare|\bsn\b", "snare"),
    (
        r"h(i ?)?hat.*open|hat op|\bohh\b|hhopen|open ?hat|hh open|hat \d op|hats? ?open|hat.*302 14 open|cymbal open",
        "hat_open",
    ),
    (
        r"hi ?hat.*(closed|foot|pedal)|hat (cl|pd)\b|chh|hhclosed|hhpedal|close ?hi ?hat|pedal ?hi ?hat"
        r"|hat ?(closed|pedal)|hat \d (cl|pd)|hat light|cymbal (closed|pedal)|hat pedal",
        "hat_closed",
    ),
    (r"crash|cra rock|ride|splash|china|cymbal|paiste", "cymbal"),
    (r"\btom|floor ?tom", "tom"),
    (r"kick|bass ?drum|\bbd\b|bd ?\d|hse k|drum bass", "kick"),
)
# Kits whose file names are codes, rewritten by the instrument names in their drumkit.xml before the rules apply.
_CODES = {
    "BJA_Pacific": {
        **{"BD": "kick", "SN": "snare", "SN4": "snare", "HH": "hihat closed", "HH2": "hihat open", "TM": "tom"},
        **{"TM2": "tom", "CB": "crash", "CB2": "crash", "BL": "ride", "RD": "ride", "RD2": "ride"},
    },
    "Millo_MultiLayered3": {
        **{"bd": "kick", "sd": "snare", "t1": "tom", "t2": "tom", "ft": "tom", "hh": "hihat closed", "rc": "ride"},
        **{"ho": "hihat open", "cc": "crash", "rs": "stick", "mc": "cowbell"},
    },
}
_RUMPF = {
    **{"06-38": "kick", "06-46": "kick", "07-18": "kick", "07-20": "kick", "09-12": "click", "01-21": "snare"},
    **{"06-25": "snare", "01-26": "clap_shaker", "09-10": "hat_closed", "06-28": "hat_closed", "08-31": "hat_open"},
    **{"08-17": "tom", "08-18": "tom", "08-19": "tom", "06-43": "cymbal", "08-20": "cymbal", "06-30": "cymbal"},
    **{"06-40": "cymbal", "08-32": "bell"},
}
_AUDIOPHOB_WRONG = ("tom 0105", "fxshake")  # a kick that is named tom, and a pedal hat that is named shake
# The avldrums kits use almost General MIDI's keys (60 is a ride, 64 maraca); half-open hats and chokes have no class.
_AVL_CLASS = {key: label for key, label in DRUM_CLASS.items() if 36 <= key <= 59 and key not in (46, 48, 50, 52)}
_AVL_CLASS |= {60: "cymbal", 64: "clap_shaker"}

# General MIDI keys that mean something else in some kits.
_BRUSH_KEYS = frozenset({39, 40})  # slap, swirl
_ORCHESTRA_KEYS = frozenset({35, 36, 37, 38, 40, 54, 56, 57, 59, 60, 61, 62, 63, 64})  # the other keys are timpani
_KITS = (0, 8, 16, 24, 25, 26, 32, 40, 48)  # programs; the variants between them share samples
_BRUSH, _ORCHESTRA = 40, 48
_VELOCITIES = (110, 64)
_MOST_ALIKE = 8  # clips per kit and class: some kits have a hundred hits of one cymbal

_AVLDRUMS = "avldrums"
# The maker of a kit, as in its drumkit.xml, decides its split; all other makers are in train.
_MAKER = dict.fromkeys(("The Black Pearl 1.0", "Gimme A Hand 1.0", "GMRockKit", _AVLDRUMS), "MacArthur")
_MAKER |= dict.fromkeys(("TR808EmulationKit", "ElectricEmpireKit", "HardElectro1"), "ArtemioLabs")
_MAKER |= dict.fromkeys(("Millo-Drums_v.1", "Millo_MultiLayered2", "Millo_MultiLayered3"), "Millo")
_SPLIT = {
    **dict.fromkeys(("ArtemioLabs", "ColomboAcousticDrumkit", "ForzeeStereo", "sonic-pi/elec"), "valid"),
    **dict.fromkeys(("circAfrique v4", "sonic-pi/drum"), "test"),
}


def clips(packages: Packages) -> Iterator[Clip | Skip]:
    """Yield hits of the kits of hydrogen, avldrums, sonic-pi and performous, and of soundfonts; few per kit and
    class."""
    offered: dict[tuple[str, str], list[Clip]] = {}
    for clip in _all(packages):
        if isinstance(clip, Skip):
            yield clip
        else:
            offered.setdefault((clip.group, clip.label), []).append(clip)
    for alike in offered.values():
        for place, clip in enumerate(by_hash(alike, "drum", lambda clip: clip.key)):
            yield clip if place < _MOST_ALIKE else Skip(f"more than {_MOST_ALIKE} of a kit and class")


def _all(packages: Packages) -> Iterator[Clip | Skip]:
    yield from _hydrogen(packages)
    yield from _avldrums(packages)
    yield from _files(packages)
    for font in FONTS:
        yield from _soundfont(font, SoundFont(font.path(packages)))


def _clip(kit: str, label: str | None, key: str, audio: Path | np.ndarray, source: str = "") -> Clip | Skip:
    if label is None:
        return _UNCLEAR
    maker = _MAKER.get(_AVLDRUMS if kit.startswith(_AVLDRUMS) else kit, kit)
    sources: tuple[Path | str, ...] = (source,) if source else ()
    return Clip(label, kit, f"{kit}/{key}", audio, sources, family=maker, split=_SPLIT.get(maker, "train"))


def _hydrogen(packages: Packages) -> Iterator[Clip | Skip]:
    for package in ("hydrogen-drumkits", "hydrogen-data"):
        for kit in sorted((packages[package] / "usr/share/hydrogen/data/drumkits").iterdir()):
            for path in audio_files(kit):
                yield _clip(kit.name, drum_class(kit.name, path.stem), path.stem, path)


def _avldrums(packages: Packages) -> Iterator[Clip | Skip]:
    for path in sorted((packages["avldrums.lv2-soundfont"] / "usr/share/sounds/sf2").glob("*.sf2")):
        for number, sample in enumerate(SoundFont(path).samples):
            key = re.match(r"\d\d(?=-)", sample.name)
            label = _AVL_CLASS.get(int(key[0])) if key else None
            yield _clip(
                f"{_AVLDRUMS}/{path.stem}", label, f"{sample.name}/{number}", _wave(sample), f"{path.stem}/{number}"
            )


def _files(packages: Packages) -> Iterator[Clip | Skip]:
    """Yield the kits of sonic-pi, by the first part of the file's name, and of performous."""
    for path in audio_files(packages["sonic-pi-samples"] / "usr/share/sonic-pi/samples"):
        kit = path.stem.split("_")[0]
        if kit in ("bd", "drum", "elec", "sn", "tabla"):
            yield _clip(f"sonic-pi/{kit}", drum_class(kit, path.stem), path.stem, path)
    for path in audio_files(packages["performous"] / "usr/share/games/performous/sounds"):
        yield _clip("performous", drum_class("performous", path.stem), path.stem, path)


def _soundfont(font: Font, contents: SoundFont) -> Iterator[Clip]:
    """Yield each kit's keys, without keys whose samples an earlier kit of the soundfont plays."""
    done: set[frozenset[str]] = set()
    for program in _KITS:
        keys = [key for key in DRUM_CLASS if (used := contents.used(DRUMS, program, key)) and used not in done]
        if program == _BRUSH:
            keys = [key for key in keys if key not in _BRUSH_KEYS]
        elif program == _ORCHESTRA:
            keys = [key for key in keys if key in _ORCHESTRA_KEYS]
        if not keys:
            continue
        done |= {contents.used(DRUMS, program, key) for key in keys}
        kit = f"{font.name}/{contents.presets[DRUMS, program].name.strip()}"
        notes = [(key, velocity) for key in keys for velocity in _VELOCITIES]
        pieces = single_notes(notes, program, DRUM_CHANNEL, held=1.9)
        for (key, velocity), wave in zip(notes, render(contents.path, pieces), strict=True):
            yield Clip(
                label=DRUM_CLASS[key],
                group=kit,
                key=f"{kit}/{key}/{velocity}",
                audio=wave,
                sources=(font.source,),
                family=font.name,
                split=font.split,
            )


def _wave(sample: Sample) -> np.ndarray:
    return resample(sample.pcm / np.float32(32768), sample.sample_rate)


def drum_class(kit: str, stem: str) -> str | None:
    """Return the class of a kit's file by its name, or None if it has no clear class."""
    if kit.startswith("rumpf"):
        return _RUMPF.get(stem.replace("beats_", ""))
    if kit in _CODES:
        stem = _CODES[kit].get(stem.split("_")[0], "empty")
    name = re.sub(r"([a-z])([A-Z])", r"\1 \2", stem)
    name = re.sub(r"[^a-z0-9]+", " ", name.lower()).strip()
    if kit == "Audiophob" and any(word in name for word in _AUDIOPHOB_WRONG):
        return None
    return next((label for rule, label in _RULES if re.search(rule, name)), None)


TASK = Task(
    name="drum",
    about="percussion type of a single hit",
    group_is="a kit; kits of one maker or soundfont have one split",
    packages=(
        *("hydrogen-drumkits", "hydrogen-data", "avldrums.lv2-soundfont", "sonic-pi-samples", "performous"),
        *(font.package for font in FONTS),
    ),
    programs=("fluidsynth",),
    clips=clips,
    split=Given(),
    max_seconds=2.0,
    least_seconds=0.1,
)
