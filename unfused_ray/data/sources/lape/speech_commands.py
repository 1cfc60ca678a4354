"""Speech Commands (Warden, arXiv 1804.03209): single words of about a second, 16 kHz.

An archive holds one folder per word, ``_background_noise_`` (recordings of a minute), ``validation_list.txt`` and
``testing_list.txt`` with lines ``bed/026290a7_nohash_0.wav``; files that neither list names are for training. A file's
name begins with its speaker. The test sets of 12 classes are separate archives, with folders ``_silence_`` and
``_unknown_``.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterable
from functools import partial

import soundfile

from unfused_ray import storage
from unfused_ray.data.sources.items import Listing, draw
from unfused_ray.data.sources.lape.disk import Disk, Entry
from unfused_ray.data.sources.lape.splits import shuffled
from unfused_ray.data.sources.lape.task import LapeTask

WORDS = ("yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go")
NOISE = "_background_noise_"
VALIDATION_NOISE = "running_tap.wav"
_SILENCE, _UNKNOWN = "_silence_", "_unknown_"
_SPEAKER = re.compile(r"([0-9a-f]+)_nohash_\d+\.wav")
_NOISE_SEED = 31
_SECONDS = 1.0
_OTHERS = 10  # one clip of unknown words, and one of silence, for each ten clips of the ten words


def clips_35(disk: Disk, version: str) -> Listing:
    """List the clips of all words, in the splits of the archive's lists; groups are speakers."""
    archive = f"speech_commands_{version}"
    files, entries = _words(disk, archive)
    return disk.listing(entries, files, f"the lists of {archive}")


def clips_12(disk: Disk, version: str) -> Listing:
    """List the clips of ten words, unknown words and silence; the test split is the published 12-class set.

    Training and validation follow the reference recipe: clips of unknown words are a tenth as many as those of the ten
    words, drawn at random from all other words. Clips of silence are as many, cut from the background noises at random
    places. One of the noises is for validation alone.
    """
    archive, test_set = f"speech_commands_{version}", f"speech_commands_test_set_{version}"
    files, words = _words(disk, archive)
    entries: list[Entry] = []
    for split in ("train", "valid"):
        of_split = {entry.path: entry for entry in words if entry.split == split}
        wanted = [entry for entry in of_split.values() if entry.label in WORDS]
        num_others = -(-len(wanted) // _OTHERS)
        others = shuffled(path for path, entry in of_split.items() if entry.label not in WORDS)[:num_others]
        entries += [*wanted, *(of_split[path]._replace(label=_UNKNOWN) for path in others)]
        entries += _silences(disk, archive, split, num_others)
    tests = disk.audio(test_set)
    entries += [Entry(path, path.split("/")[1], "test", _speaker(path)) for path in tests]
    files |= tests | disk.audio(f"{archive}/{NOISE}")
    taken = {entry.path for entry in entries}  # other files of the archive are not part of the task
    files = {path: uri for path, uri in files.items() if path in taken}
    return disk.listing(entries, files, f"the lists of {archive}")


def _words(disk: Disk, archive: str) -> tuple[dict[str, str], list[Entry]]:
    """List the files of words, with an entry for each file and for each line of the lists."""
    files = {path: uri for path, uri in disk.audio(archive).items() if path.split("/")[1] != NOISE}
    valid, test = (
        [f"{archive}/{line}" for line in disk.lines(f"{archive}/{name}_list.txt")] for name in ("validation", "testing")
    )
    train = sorted(files.keys() - {*valid, *test})
    entries = [*_entries(train, "train"), *_entries(valid, "valid"), *_entries(test, "test")]
    return files, entries


def _entries(paths: Iterable[str], split: str) -> list[Entry]:
    return [Entry(path, path.split("/")[1], split, _speaker(path)) for path in paths]


def _speaker(path: str) -> str:
    found = _SPEAKER.search(path)
    return found.group(1) if found else ""


def _silences(disk: Disk, archive: str, split: str, count: int) -> list[Entry]:
    """Cut clips of one second from the background noises of a split, taking turns between the noises."""
    noises = sorted(disk.audio(f"{archive}/{NOISE}"))
    noises = [path for path in noises if (storage.name(path) == VALIDATION_NOISE) == (split == "valid")]
    if not noises:
        raise disk.damaged(f"{archive}/{NOISE}", f"it has no noise but {VALIDATION_NOISE}")
    latest = {path: max(0.0, _duration(disk, path) - _SECONDS) for path in noises}
    entries = []
    for number in range(count):
        path = noises[number % len(noises)]
        start = round(draw(_NOISE_SEED, f"{path} {number}") * latest[path], 6)
        entries.append(Entry(path, _SILENCE, split, path, start, _SECONDS))
    return entries


def _duration(disk: Disk, path: str) -> float:
    try:
        return float(soundfile.info(io.BytesIO(storage.read_bytes(disk.uri(path)))).duration)
    except soundfile.LibsndfileError as error:
        raise disk.damaged(path, error.error_string) from error


def _task(version: str, classes: int, clips: int, hours: float) -> LapeTask:
    archive, test_set = f"speech_commands_{version}", f"speech_commands_test_set_{version}"
    lists = tuple(f"{archive}/{name}" for name in ("validation_list.txt", "testing_list.txt"))
    folders = (test_set, f"{archive}/{NOISE}/{VALIDATION_NOISE}")
    list_clips = clips_12 if classes == 12 else clips_35
    archives = f"{archive}.tar.gz into a folder {archive}"
    if classes == 12:
        archives += f", {test_set}.tar.gz into {test_set}"
    return LapeTask(
        name=f"Speech Commands {version}",
        classes=classes,
        clips=clips,
        hours=hours,
        licence="CC BY 4.0",
        url="http://download.tensorflow.org/data/",
        archives=archives,
        requires=lists + (folders if classes == 12 else ()),
        list_clips=partial(list_clips, version=version),
    )


# Clips of 12 classes (train + valid + test): 22,236 + 3,093 + 3,081 and 36,923 + 4,445 + 4,890, as in the reference
# recipe.
V1 = _task("v0.01", classes=12, clips=28_410, hours=7.8)
V2_12 = _task("v0.02", classes=12, clips=46_258, hours=12.7)
V2_35 = _task("v0.02", classes=35, clips=105_829, hours=29)
