"""The LAPE tasks by code, and the listing of a task's clips."""

from __future__ import annotations

import logging
import os

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
from unfused_ray.data.sources.lape.task import LapeTask

logger = logging.getLogger(__name__)

ROOT = "UNFUSED_RAY_DATA"
"""Environment variable that names the folder that holds the data sets."""

_TOLERANCE = 0.01
"""Largest share by which the number of clips may differ from the published one: publishers corrected data sets by
less."""


TASKS: dict[str, LapeTask] = {
    "sc-v1": speech_commands.V1,
    "sc-v2-12": speech_commands.V2_12,
    "sc-v2-35": speech_commands.V2_35,
    "lbs": librispeech.TASK,
    "vc": voxceleb.TASK,
    "ic": iemocap.TASK,
    "vf": voxforge.TASK,
    "ns": nsynth.TASK,
    "bsd": birds.TASK,
    "tut": scenes.TASK,
    "us8k": urbansound.TASK,
    # Not one of the eleven: it is lbs without the shortcut of recognising the recording instead of the reader.
    "lbs-chapters": librispeech.BY_CHAPTER,
}
"""LAPE tasks by code, in the order of the paper's table."""


def data_root(root: str) -> str:
    """Return the folder that holds the data sets: ``root``, or else the value of the environment variable.

    Raises:
        ValueError: neither names one.
    """
    found = root or os.environ.get(ROOT, "")
    if not found:
        raise ValueError(f"root='' names nothing, and neither does the environment variable {ROOT}: give --root FOLDER")
    return storage.absolute(found)


def list_task(code: str, root: str) -> Listing:
    """List the clips of a task without reading their audio; warn if their number is far from the published one.

    Args:
        code: a key of ``TASKS``.
        root: folder that holds the data set as its publisher distributes it, or the data set's own folder.

    Raises:
        FileNotFoundError: the data set is incomplete; names the missing files and the address to download them from.
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
            "%s in %s has %s clips of %d classes, as published %s of %d: it is not the published task, and "
            "accuracies cannot be compared with published ones. If you did not mean that, extract all archives of %s",
            task.name, disk.root, f"{found:,}", classes, f"{task.clips:,}", task.classes, disk.origin,
        )  # fmt: skip
    return listing
