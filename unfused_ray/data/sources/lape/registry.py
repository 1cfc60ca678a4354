"""What is known of the LAPE tasks: the one place for their facts."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from unfused_ray import storage
from unfused_ray.data.sources.items import Listing
from unfused_ray.data.sources.lape import (
    birds,
    iemocap,
    librispeech,
    nsynth,
    scenes,
    speech_commands,
    urbansound,
    voxceleb,
    voxforge,
)
from unfused_ray.data.sources.lape.disk import Disk

logger = logging.getLogger(__name__)

ROOT = "UNFUSED_RAY_DATA"
"""Environment variable: the folder that holds the data sets."""


_TOLERANCE = 0.01
"""Of the number of clips: publishers have corrected data sets by less."""


@dataclass(frozen=True)
class LapeTask:
    """Facts of a task, and how its clips are listed."""

    name: str
    """Of the data set."""
    classes: int
    clips: int
    """Of all splits, where the data set is whole."""
    hours: float
    """About."""
    licence: str
    url: str
    """From where to get the data set."""
    archives: str
    """What of it, and what goes into a folder of whose name."""
    requires: tuple[str, ...]
    """Files and folders of the publisher's layout."""
    list_clips: Callable[[Disk], Listing]

    def on(self, root: str) -> Disk:
        """The data set in the folder ``root``."""
        return Disk.at(root, self.name, f"{self.url} ({self.archives})", self.requires)


def _speech_commands(version: str, classes: int, clips: int, hours: float) -> LapeTask:
    archive, test_set = f"speech_commands_{version}", f"speech_commands_test_set_{version}"
    lists = tuple(f"{archive}/{name}" for name in ("validation_list.txt", "testing_list.txt"))
    folders = (test_set, f"{archive}/{speech_commands.NOISE}/{speech_commands.VALIDATION_NOISE}")
    list_clips = speech_commands.clips_12 if classes == 12 else speech_commands.clips_35
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


def _librispeech(list_clips: Callable[[Disk], Listing], name: str) -> LapeTask:
    return LapeTask(
        name=name,
        classes=251,
        clips=28_539,
        hours=101,
        licence="CC BY 4.0",
        url="https://www.openslr.org/12",
        archives="train-clean-100.tar.gz",
        requires=(librispeech.FOLDER,),
        list_clips=list_clips,
    )


TASKS: dict[str, LapeTask] = {
    # Clips of 12 classes: 22,236 + 3,093 + 3,081 and 36,923 + 4,445 + 4,890, as the reference recipe has them.
    "sc-v1": _speech_commands("v0.01", classes=12, clips=28_410, hours=7.8),
    "sc-v2-12": _speech_commands("v0.02", classes=12, clips=46_258, hours=12.7),
    "sc-v2-35": _speech_commands("v0.02", classes=35, clips=105_829, hours=29),
    "lbs": _librispeech(librispeech.clips, "LibriSpeech train-clean-100"),
    "vc": LapeTask(
        name="VoxCeleb1",
        classes=1_251,
        clips=153_516,
        hours=352,
        licence="CC BY 4.0",
        url="https://www.robots.ox.ac.uk/~vgg/data/voxceleb/",
        archives="audio of dev and test and meta/iden_split.txt, into a folder VoxCeleb1",
        requires=(voxceleb.LIST,),
        list_clips=voxceleb.clips,
    ),
    "ic": LapeTask(
        name="IEMOCAP",
        classes=4,
        clips=4_490,
        hours=5.6,
        licence="on request",
        url="https://sail.usc.edu/iemocap/",
        archives="IEMOCAP_full_release.tar.gz",
        requires=tuple(
            f"{iemocap.FOLDER}/Session{session}/{folder}"
            for session in iemocap.SESSIONS
            for folder in ("dialog/EmoEvaluation", "sentences/wav")
        ),
        list_clips=iemocap.clips,
    ),
    "vf": LapeTask(
        name="VoxForge",
        classes=6,
        clips=176_428,
        hours=284,
        licence="GPL-3.0",
        url="http://www.repository.voxforge1.org/downloads/",
        archives="<language>/Trunk/Audio/Main/16kHz_16bit/*.tgz, SpeechCorpus/Trunk/… of English, into a folder "
        "voxforge/<language>",
        requires=tuple(f"{voxforge.FOLDER}/{language}" for language in voxforge.LANGUAGES),
        list_clips=voxforge.clips,
    ),
    "ns": LapeTask(
        name="NSynth",
        classes=11,
        clips=305_979,
        hours=340,
        licence="CC BY 4.0",
        url="https://magenta.tensorflow.org/datasets/nsynth",
        archives="nsynth-train, nsynth-valid and nsynth-test.jsonwav.tar.gz",
        requires=tuple(f"nsynth-{split}/{name}" for split in nsynth.SPLITS for name in ("examples.json", "audio")),
        list_clips=nsynth.clips,
    ),
    "bsd": LapeTask(
        name="Bird audio detection",
        classes=2,
        clips=15_690,
        hours=43.6,
        licence="CC BY 4.0",
        url="https://dcase.community/challenge2018/task-bird-audio-detection",
        archives="audio and labels of freefield1010 into a folder ff1010bird, of Warblr into warblrb10k",
        requires=tuple(path for source, names in birds.LISTS.items() for path in (names, f"{source}/wav")),
        list_clips=birds.clips,
    ),
    "tut": LapeTask(
        name="TUT Urban Acoustic Scenes 2018",
        classes=10,
        clips=8_640,
        hours=24,
        licence="non-commercial",
        url="https://zenodo.org/record/1228142",
        archives="the audio and meta archives of the development set",
        requires=(*scenes.LISTS.values(), f"{scenes.FOLDER}/audio"),
        list_clips=scenes.clips,
    ),
    "us8k": LapeTask(
        name="UrbanSound8K",
        classes=10,
        clips=8_732,
        hours=8.8,
        licence="CC BY-NC 3.0",
        url="https://urbansounddataset.weebly.com/urbansound8k.html",
        archives="UrbanSound8K.tar.gz",
        requires=(urbansound.LIST, f"{urbansound.FOLDER}/audio"),
        list_clips=urbansound.clips,
    ),
    # Not one of the eleven: what is left of lbs where a probe cannot tell the recording.
    "lbs-chapters": _librispeech(librispeech.clips_by_chapter, "LibriSpeech, split by chapter"),
}
"""By code, in the order of the paper's table."""


def data_root(root: str = "") -> str:
    """The folder that holds the data sets: ``root``, or else what the environment says.

    Raises:
        ValueError: neither names one.
    """
    found = root or os.environ.get(ROOT, "")
    if not found:
        raise ValueError(f"root='' names nothing, and neither does the environment variable {ROOT}: give --root FOLDER")
    return storage.absolute(found)


def list_task(code: str, root: str) -> Listing:
    """The clips of a task, without reading their audio; a warning where they are not about as many as published.

    Args:
        code: a key of ``TASKS``.
        root: folder that holds the data set as its publisher distributes it, or the data set's own folder.

    Raises:
        FileNotFoundError: the data set is not whole; says what is missing and from where to get it.
        ValueError: one of its lists cannot be read.
    """
    task = TASKS[code]
    disk = task.on(root)
    disk.check()
    listing = task.list_clips(disk)
    found = len(listing.items)
    classes = len({label for labels in listing.items["labels"].to_pylist() for label in labels})
    if classes != task.classes or abs(found - task.clips) > _TOLERANCE * task.clips:
        logger.warning(
            "%s in %s has %s clips of %d classes, as published %s of %d: it is another task than the published one, "
            "and its accuracies compare with nobody's. If that is not meant, extract all archives of %s",
            task.name, disk.root, f"{found:,}", classes, f"{task.clips:,}", task.classes, disk.origin,
        )  # fmt: skip
    return listing
