"""Miniatures of the LAPE tasks' data sets: their folders, names, lists and oddities, with a few real sounds a class."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Sequence
from functools import cache
from itertools import count
from pathlib import Path

import numpy as np
import soundfile
import soxr

from support.paths import RECORDINGS
from unfused_ray.data.sources.lape import iemocap, librispeech, scenes, speech_commands, urbansound, voxceleb, voxforge

RATE = 16_000
SPEAKERS = ("0132a06d", "0135f3f2", "0137b3f4", "01b4757a", "01bb6a2a", "0a2b400e")


@cache
def recorded(name: str, num_clips: int = 40) -> tuple[np.ndarray, ...]:
    """Return the first recordings of ``drums`` or ``languages``: each (samples,) float32 at 16 kHz."""
    waves = []
    with tarfile.open(RECORDINGS / f"{name}.tar") as tar:
        for member in tar:
            if member.name.endswith(".ogg") and len(waves) < num_clips:
                content = tar.extractfile(member)
                assert content is not None
                wave, rate = soundfile.read(io.BytesIO(content.read()), dtype="float32")
                assert rate == RATE
                waves.append(wave)
    return tuple(waves)


def write(
    path: Path,
    number: int,
    kind: str = "languages",
    seconds: float = 0.35,
    rate: int = RATE,
    channels: int = 1,
    subtype: str = "PCM_16",
) -> None:
    """Write the beginning of recording ``number`` as an audio file of this rate."""
    waves = recorded(kind)
    wave = np.resize(waves[number % len(waves)], round(seconds * RATE))
    wave = soxr.resample(wave, RATE, rate) if rate != RATE else wave
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.stack([wave] * channels, axis=1), rate, subtype=subtype)


def write_lines(path: Path, lines: Sequence[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines))


def speech_commands_archive(root: Path, version: str) -> None:
    """Write the ten words and two others by six speakers: four in train, one in valid, one in test.

    One clip has another rate, one is listed and missing, one is listed twice.
    """
    folder = root / f"speech_commands_{version}"
    numbers = count()
    words = [*speech_commands.WORDS, "bed", "marvin"]
    for word in words:
        for speaker in SPEAKERS:
            rate = 8_000 if (word, speaker) == ("yes", SPEAKERS[0]) else RATE
            write(folder / word / f"{speaker}_nohash_0.wav", next(numbers), rate=rate)
    valid, test = ([f"{word}/{speaker}_nohash_0.wav" for word in words] for speaker in SPEAKERS[4:])
    write_lines(folder / "validation_list.txt", [*valid, "yes/ffffffff_nohash_0.wav", valid[0]])
    write_lines(folder / "testing_list.txt", test)
    for number, noise in enumerate(("pink_noise.wav", "running_tap.wav", "white_noise.wav")):
        write(folder / speech_commands.NOISE / noise, number, kind="drums", seconds=3 + number)
    (folder / speech_commands.NOISE / "README.md").write_text("noises")


def speech_commands_test_set(root: Path, version: str) -> None:
    """Write two clips a class, by the archive's test speaker; one clip of silence is digital silence."""
    folder = root / f"speech_commands_test_set_{version}"
    for number, word in enumerate(speech_commands.WORDS):
        for take in (0, 1):
            write(folder / word / f"{SPEAKERS[5]}_nohash_{take}.wav", 40 + number)
    for number in (0, 1):
        write(folder / "_unknown_" / f"{SPEAKERS[5]}_nohash_{number}.wav", 60 + number)
        write(folder / "_silence_" / f"{number}.wav", number, kind="drums", seconds=1)
    soundfile.write(folder / "_silence_" / "1.wav", np.zeros(RATE, np.int16), RATE)


def librispeech_folder(root: Path) -> None:
    """Write readers of four and two chapters of three utterances, and one of a chapter of five, with transcripts."""
    numbers = count()
    for reader, num_chapters in (("103", 4), ("1034", 2), ("19", 1)):
        for chapter in range(1240, 1240 + num_chapters):
            folder = root / librispeech.FOLDER / reader / str(chapter)
            for utterance in range(3 if num_chapters > 1 else 5):
                write(folder / f"{reader}-{chapter}-{utterance:04d}.flac", next(numbers))
            write_lines(folder / f"{reader}-{chapter}.trans.txt", [f"{reader}-{chapter}-0000 SOME WORDS"])


def voxceleb_folder(root: Path) -> None:
    """Write three speakers of two videos; one clip is there twice, one is listed and missing, one is not listed."""
    folder = root / voxceleb.FOLDER
    numbers, lines = count(), []
    for speaker in ("id10001", "id10003", "id10270"):
        for video, splits in (("1zcIwhmdeo4", "11"), ("na8-QEFmj44", "123")):
            for take, split in enumerate(splits, start=1):
                write(folder / "wav" / speaker / video / f"{take:05d}.wav", next(numbers))
                lines.append(f"{split} {speaker}/{video}/{take:05d}.wav")
    write(folder / "dev" / "wav" / "id10001" / "1zcIwhmdeo4" / "00001.wav", 0)
    write(folder / "wav" / "id10001" / "1zcIwhmdeo4" / "00009.wav", 99)
    write_lines(root / voxceleb.LIST, [*lines, "3 id10003/7gWzIy6yIIk/00001.wav"])


def iemocap_folder(root: Path) -> None:
    """Write a dialogue for each session: both actors say each emotion, an excited and an undecided utterance."""
    numbers = count()
    for session in iemocap.SESSIONS:
        folder = root / iemocap.FOLDER / f"Session{session}"
        dialogue = f"Ses{session:02d}F_impro01"
        lines = ["% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]", ""]
        for number, emotion in enumerate((*iemocap.EMOTIONS, "exc", "xxx")):
            for speaker in "FM":
                utterance = f"{dialogue}_{speaker}{number:03d}"
                write(folder / "sentences" / "wav" / dialogue / f"{utterance}.wav", next(numbers))
                lines += [
                    f"[6.2901 - 8.2357]\t{utterance}\t{emotion}\t[2.5000, 2.5000, 2.5000]",
                    "C-E2:\tNeutral;\t()",
                    "",
                ]
        write_lines(folder / "dialog" / "EmoEvaluation" / f"{dialogue}.txt", lines)
        write_lines(folder / "dialog" / "EmoEvaluation" / "Categorical" / f"{dialogue}_e2_cat.txt", ["of one listener"])
        (folder / "dialog" / "EmoEvaluation" / f"._{dialogue}.txt").write_bytes(b"\x00\xff")
    write(
        root / iemocap.FOLDER / "Session1/sentences/wav/Ses01F_impro01/Ses01F_impro01_F099.wav", 0
    )  # no emotion is listed for it


def voxforge_folder(root: Path) -> None:
    """Write seven submissions a language, as FLAC and as WAV at two rates; one holds a sentence in both formats."""
    numbers = count()
    for language in voxforge.LANGUAGES:
        for submission in range(7):
            folder = root / voxforge.FOLDER / language / f"anonymous-2008100{submission}-abc"
            suffix = "flac" if submission == 6 else "wav"
            for sentence in (1, 2):
                rate = 48_000 if submission == 5 else RATE
                write(folder / suffix / f"{language}-{sentence:03d}.{suffix}", next(numbers), rate=rate)
            write_lines(folder / "etc" / "PROMPTS", ["*/x A SENTENCE"])
    write(root / voxforge.FOLDER / "de" / "anonymous-20081000-abc" / "flac" / "de-001.flac", 0)


def nsynth_folder(root: Path) -> None:
    """Write two families, and ``synth_lead`` in train only; one note is listed and missing, one is not listed."""
    numbers = count()
    for split, takes in (("train", 4), ("valid", 2), ("test", 2)):
        folder, notes = root / f"nsynth-{split}", {}
        for family in ("bass", "string", *(["synth_lead"] if split == "train" else [])):
            for pitch in range(60, 60 + takes):
                instrument = f"{family}_acoustic_{'000' if split == 'train' else '001'}"
                note = f"{instrument}-{pitch:03d}-100"
                notes[note] = {"instrument_str": instrument, "instrument_family_str": family, "pitch": pitch}
                write(folder / "audio" / f"{note}.wav", next(numbers), kind="drums")
        if split == "train":
            write(folder / "audio" / "flute_acoustic_000-060-100.wav", 0)
        if split == "test":
            notes["bass_acoustic_009-060-100"] = notes["bass_acoustic_001-060-100"]
        (folder / "examples.json").write_text(json.dumps(notes))


def bird_folders(root: Path) -> None:
    """Write ten clips a source and label; one of each source is listed twice, one is not listed, one is no audio."""
    for source, base, has_bird in (("ff1010bird", 64_486, (0, 1)), ("warblrb10k", 759_808, (1, 0))):
        names = "ff1010bird_metadata_2018.csv" if source == "ff1010bird" else "warblrb10k_public_metadata_2018.csv"
        items = [(base + number, has_bird[number % 2]) for number in range(20)]
        for item, bird in items:
            write(root / source / "wav" / f"{item}.wav", item, kind="drums" if bird else "languages", rate=44_100)
        lines = ["itemid,datasetid,hasbird", *(f"{item},{source},{bird}" for item, bird in items)]
        write_lines(root / source / names, [*lines, lines[1]])
    write(root / "ff1010bird" / "wav" / "1.wav", 0)
    (root / "warblrb10k" / "wav" / "759809.wav").write_bytes(b"no audio")


def scenes_folder(root: Path) -> None:
    """Write two scenes of six locations, two of them for testing; 48 kHz, two channels, 24 bits."""
    lists: dict[str, list[str]] = {"train": [], "evaluate": []}
    numbers = count()
    for first, scene in ((0, "airport"), (6, "street_pedestrian")):
        for location in range(first, first + 6):
            for segment in (0, 1):
                name = f"audio/{scene}-barcelona-{location}-{2 * location + segment}-a.wav"
                lists["evaluate" if location > first + 3 else "train"].append(f"{name}\t{scene}")
                kind = "drums" if scene == "airport" else "languages"
                path = root / scenes.FOLDER / name
                write(path, next(numbers), kind=kind, rate=48_000, channels=2, subtype="PCM_24")
    for name, lines in lists.items():
        write_lines(root / scenes.FOLDER / "evaluation_setup" / f"fold1_{name}.txt", lines)
    tests = [line.partition("\t")[0] for line in lists["evaluate"]]
    write_lines(root / scenes.FOLDER / "evaluation_setup" / "fold1_test.txt", tests)
    write(root / scenes.FOLDER / "audio" / "airport-paris-9-99-a.wav", 0)


def urbansound_folder(root: Path) -> None:
    """Write three classes in ten folds; sizes and rates differ; one clip is short, one is listed and missing."""
    lines = ["slice_file_name,fsID,start,end,salience,fold,classID,class"]
    classes = ("air_conditioner", "car_horn", "dog_bark")
    for fold in range(1, 11):
        for class_id, label in enumerate(classes):
            for take in range(3 if fold == 4 else 2):
                recording = 100_000 + 10 * fold + class_id
                name = f"{recording}-{class_id}-0-{take}.wav"
                path = root / urbansound.FOLDER / "audio" / f"fold{fold}" / name
                kind = "languages" if class_id == 2 else "drums"
                number, rate = fold + 10 * class_id, (44_100, 96_000, RATE)[class_id]
                short = (fold, class_id, take) == (1, 0, 0)
                write(path, number, kind=kind, seconds=0.05 if short else 0.35, rate=rate, channels=2)
                lines.append(f"{name},{recording},0.0,0.35,1,{fold},{class_id},{label}")
    lines.append("999999-1-0-0.wav,999999,0.0,0.35,1,10,1,car_horn")
    write_lines(root / urbansound.LIST, lines)


def write_all(root: Path) -> None:
    """Write all data sets side by side into one folder."""
    for version in ("v0.01", "v0.02"):
        speech_commands_archive(root, version)
        speech_commands_test_set(root, version)
    for write_set in (
        librispeech_folder,
        voxceleb_folder,
        iemocap_folder,
        voxforge_folder,
        nsynth_folder,
        bird_folders,
        scenes_folder,
        urbansound_folder,
    ):
        write_set(root)
