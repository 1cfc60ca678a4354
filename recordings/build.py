"""Build the embedded demo recordings out of the audio corpus.

    python recordings/build.py --corpus FOLDER --out FOLDER

Reads ``<corpus>/<task>/{train,valid,test}.csv`` (``wav_path,label,group``) with their 16 kHz FLAC clips, and writes one
WebDataset tar a task: ``<key>.ogg`` (Opus, mono, 16 kHz) and ``<key>.json`` (label, split, group, source, licence).
Nothing is random: with the same libraries a second run gives the same bytes. README.md says what was chosen and why.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import io
import json
import re
import struct
import sys
import tarfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import soundfile as sf

SPLITS = ("train", "valid", "test")
OPUS_COMPRESSION = 0.93  # libsndfile's scale: about 23 kbit/s, 2.9 kB a second
OGG_HEADER_BYTES = 27


@dataclass(frozen=True)
class Clip:
    """One chosen clip; everything but the two first fields goes into its JSON."""

    key: str
    path: Path
    label: str
    split: str
    group: str
    source: str
    licence: str

    @property
    def rank(self) -> str:
        """Place in the order by which clips are chosen: a shuffle that needs no seed."""
        return hashlib.sha256(self.key.encode()).hexdigest()


STAMPS = "tuxpaint-stamps-default 2022.06.04-1"
HYDROGEN = "hydrogen-drumkits 2017.09.19~dfsg-1"
AVLDRUMS = "avldrums.lv2-soundfont 0.5.2-2"
FLUID = "fluid-soundfont-gm 3.1-5.3"
A320U = "denemo-data 2.6.18-1"
GMBANK = "csound-soundfont 1:6.18.1+dfsg-1"
TIM = "timgm6mb-soundfont 1.3-5"
SONIC_PI = "sonic-pi-samples 3.2.2~repack-8"

# Only kits that were struck, not synthesised: as the corpus names them, with their source and licence.
KITS = {
    "avldrums/Black_Pearl_4_LV2": (f"{AVLDRUMS}: Black Pearl", "CC-BY-SA-3.0"),
    "avldrums/Red_Zeppelin_4_LV2": (f"{AVLDRUMS}: Red Zeppelin", "CC-BY-SA-3.0"),
    "The Black Pearl 1.0": (f"{HYDROGEN}: The Black Pearl 1.0", "GPL-2.0-only"),
    "Gimme A Hand 1.0": (f"{HYDROGEN}: Gimme A Hand 1.0", "GPL-2.0-only"),
    "BJA_Pacific": (f"{HYDROGEN}: BJA_Pacific", "CC-BY-SA-3.0-US"),
    "Millo-Drums_v.1": (f"{HYDROGEN}: Millo-Drums_v.1", "GPL-2.0-only"),
    "Millo_MultiLayered2": (f"{HYDROGEN}: Millo_MultiLayered2", "GPL-2.0-only"),
    "Millo_MultiLayered3": (f"{HYDROGEN}: Millo_MultiLayered3", "GPL-2.0-only"),
    "ForzeeStereo": (f"{HYDROGEN}: ForzeeStereo", "GPL-2.0-only"),
    "ColomboAcousticDrumkit": (f"{HYDROGEN}: ColomboAcousticDrumkit", "GPL-2.0-or-later"),
    "circAfrique v4": (f"{HYDROGEN}: circAfrique v4", "CC-BY-SA-3.0"),
    "sonic-pi/tabla": (f"{SONIC_PI}: tabla_*", "CC0-1.0"),
    "sonic-pi/sn": (f"{SONIC_PI}: sn_*", "CC0-1.0"),
    "sonic-pi/drum": (f"{SONIC_PI}: drum_*", "CC0-1.0"),
    "FluidR3/Standard": (f"{FLUID}: drum kit Standard", "MIT"),
    "FluidR3/Room": (f"{FLUID}: drum kit Room", "MIT"),
    "FluidR3/Power": (f"{FLUID}: drum kit Power", "MIT"),
    "FluidR3/Jazz": (f"{FLUID}: drum kit Jazz", "MIT"),
    "FluidR3/Brush": (f"{FLUID}: drum kit Brush", "MIT"),
    "FluidR3/Orchestra Kit": (f"{FLUID}: drum kit Orchestra Kit", "MIT"),
    "A320U/Standard": (f"{A320U}: drum kit Standard", "GPL-2.0-only"),
    "A320U/Room": (f"{A320U}: drum kit Room", "GPL-2.0-only"),
    "A320U/Power": (f"{A320U}: drum kit Power", "GPL-2.0-only"),
    "A320U/Orchestra": (f"{A320U}: drum kit Orchestra", "GPL-2.0-only"),
    "GMbank/Standard": (f"{GMBANK}: drum kit Standard", "public-domain"),
    "GMbank/Room": (f"{GMBANK}: drum kit Room", "public-domain"),
    "GMbank/Power": (f"{GMBANK}: drum kit Power", "public-domain"),
    "GMbank/Orchestra": (f"{GMBANK}: drum kit Orchestra", "public-domain"),
    "TimGM6mb/Standard": (f"{TIM}: drum kit Standard", "GPL-2.0-only"),
    "TimGM6mb/Room": (f"{TIM}: drum kit Room", "GPL-2.0-only"),
    "TimGM6mb/Power": (f"{TIM}: drum kit Power", "GPL-2.0-only"),
    "TimGM6mb/Orchestra": (f"{TIM}: drum kit Orchestra", "GPL-2.0-only"),
    "TimGM6mb/Brush": (f"{TIM}: drum kit Brush", "GPL-2.0-only"),
}
RARE_DRUMS = frozenset({"clap_shaker"})  # too few training clips to learn from

# Names of the corpus for clips out of tuxpaint's stamps; the languages of which there are enough.
STAMP = re.compile(r"-desc-[a-z]{2}-ogg-[0-9a-f]{6}$")
LANGUAGES = frozenset({"be", "bg", "ca", "da", "el", "es", "fr", "ro", "ru"})

# Most clips of a class in each split. They keep the tests readable and the whole under 10 MB.
DRUM_CAPS = {"train": 81, "valid": 20, "test": 50}
LANGUAGE_CAPS = {"train": 81, "valid": 12, "test": 42}


def corpus_rows(corpus: Path, task: str) -> list[tuple[str, dict[str, str]]]:
    """All (split, row) of a task of the corpus."""
    rows: list[tuple[str, dict[str, str]]] = []
    for split in SPLITS:
        table = corpus / task / f"{split}.csv"
        if not table.is_file():
            raise ValueError(f"--corpus {corpus} has no {task}/{split}.csv: give the folder that make corpus wrote")
        with table.open(encoding="utf-8", newline="") as file:
            rows.extend((split, row) for row in csv.DictReader(file))
    return rows


def drum_clips(corpus: Path) -> list[Clip]:
    """Hits of acoustic percussion, labelled by instrument; whole makers and soundfonts have one split."""
    clips = []
    for split, row in corpus_rows(corpus, "drum"):
        path, kit = corpus / row["wav_path"], row["group"]
        if kit in KITS and row["label"] not in RARE_DRUMS:
            clips.append(Clip(path.stem, path, row["label"], split, kit, *KITS[kit]))
    return clips


def language_clips(corpus: Path) -> list[Clip]:
    """Spoken descriptions of pictures, labelled by language; the description decides the split."""
    clips = []
    for split, row in corpus_rows(corpus, "lid"):
        path = corpus / row["wav_path"]
        if STAMP.search(path.stem) and row["label"] in LANGUAGES:
            clips.append(Clip(path.stem, path, row["label"], split, row["group"], STAMPS, "GPL-2.0-only"))
    return clips


def choose(clips: Iterable[Clip], caps: Mapping[str, int]) -> list[Clip]:
    """Choose at most ``caps[split]`` clips of each class and split, by hash, sorted by key."""
    taken: Counter[tuple[str, str]] = Counter()
    chosen = []
    for clip in sorted(clips, key=lambda clip: clip.rank):
        cell = clip.split, clip.label
        if taken[cell] < caps[clip.split]:
            taken[cell] += 1
            chosen.append(clip)
    return sorted(chosen, key=lambda clip: clip.key)


def check(task: str, clips: Sequence[Clip]) -> None:
    """Raise ValueError where a key is used twice, a group is in two splits, or a split lacks a class."""
    split_of: dict[str, str] = {}
    for clip in clips:
        if split_of.setdefault(clip.group, clip.split) != clip.split:
            raise ValueError(f"{task}: group {clip.group!r} is in {split_of[clip.group]} and in {clip.split}")
    doubled = [key for key, count in Counter(clip.key for clip in clips).items() if count > 1]
    if doubled:
        raise ValueError(f"{task}: two clips have the key {doubled[0]!r}")
    for split in SPLITS:
        missing = {clip.label for clip in clips} - {clip.label for clip in clips if clip.split == split}
        if missing:
            raise ValueError(f"{task}: no clip of {sorted(missing)} in {split}")


@cache
def crc_table() -> tuple[int, ...]:
    """Remainders of the 256 bytes under Ogg's polynomial (RFC 3533 sec. 6)."""
    table = []
    for byte in range(256):
        remainder = byte << 24
        for _ in range(8):
            remainder = (remainder << 1) ^ (0x04C11DB7 if remainder & 0x80000000 else 0)
        table.append(remainder & 0xFFFFFFFF)
    return tuple(table)


def ogg_crc(page: bytes) -> int:
    """Checksum of an Ogg page whose checksum field is zero (RFC 3533 sec. 6)."""
    table, crc = crc_table(), 0
    for byte in page:
        crc = (crc << 8 & 0xFFFFFFFF) ^ table[crc >> 24 ^ byte]
    return crc


def with_serial(ogg: bytes, serial: int) -> bytes:
    """The same Ogg stream under another serial number: libsndfile draws one at random, so bytes would differ by run."""
    out, start = [], 0
    while start < len(ogg):
        num_segments = ogg[start + 26]
        segments = ogg[start + OGG_HEADER_BYTES : start + OGG_HEADER_BYTES + num_segments]
        end = start + OGG_HEADER_BYTES + num_segments + sum(segments)
        page = bytearray(ogg[start:end])
        struct.pack_into("<I", page, 14, serial)
        struct.pack_into("<I", page, 22, 0)
        struct.pack_into("<I", page, 22, ogg_crc(bytes(page)))
        out.append(bytes(page))
        start = end
    return b"".join(out)


def encode(path: Path) -> bytes:
    """A clip of the corpus as Ogg Opus, at its own sample rate and length."""
    samples, sample_rate = sf.read(path, dtype="int16")
    buffer = io.BytesIO()
    sf.write(buffer, samples, sample_rate, format="OGG", subtype="OPUS", compression_level=OPUS_COMPRESSION)
    return with_serial(buffer.getvalue(), serial=1)


def write_tar(path: Path, clips: Iterable[Clip]) -> None:
    """A WebDataset tar of the clips, in their order, without times or owners."""
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for clip in clips:
            about = {name: getattr(clip, name) for name in ("label", "split", "group", "source", "licence")}
            members = {"ogg": encode(clip.path), "json": json.dumps(about, ensure_ascii=False).encode()}
            for extension, data in members.items():
                info = tarfile.TarInfo(f"{clip.key}.{extension}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))


def counts_table(task: str, clips: Iterable[Clip]) -> str:
    """Clips per class and split, as the Markdown table of README.md."""
    cells = Counter((clip.label, clip.split) for clip in clips)
    labels = sorted({label for label, _ in cells})
    rows = [f"| {label} | " + " | ".join(str(cells[label, split]) for split in SPLITS) + " |" for label in labels]
    totals = [str(sum(cells[label, split] for label in labels)) for split in SPLITS]
    return "\n".join(
        [f"| {task} | train | valid | test |", "|---|--:|--:|--:|", *rows, f"| all | {' | '.join(totals)} |"]
    )


def main() -> None:
    """Choose, check, encode and write both tasks; print their tables."""
    parser = argparse.ArgumentParser(description="Build the embedded demo recordings out of the audio corpus.")
    parser.add_argument("--corpus", type=Path, required=True, help="folder that make corpus wrote")
    parser.add_argument("--out", type=Path, required=True, help="folder the tars are written to")
    args = parser.parse_args()
    try:
        tasks = {
            "drums": choose(drum_clips(args.corpus), DRUM_CAPS),
            "languages": choose(language_clips(args.corpus), LANGUAGE_CAPS),
        }
        for task, clips in tasks.items():
            check(task, clips)
    except ValueError as error:
        parser.error(str(error))
    args.out.mkdir(parents=True, exist_ok=True)
    for task, clips in tasks.items():
        write_tar(args.out / f"{task}.tar", clips)
        sys.stdout.write(counts_table(task, clips) + "\n\n")


if __name__ == "__main__":
    main()
