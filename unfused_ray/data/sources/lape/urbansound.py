"""UrbanSound8K (Salamon et al., ACM Multimedia 2014): ten kinds of sounds, at most four seconds, in ten folds.

``metadata/UrbanSound8K.csv`` has the columns ``slice_file_name, fsID, fold, class`` and others; a clip's file is
``audio/fold<fold>/<slice_file_name>``. Slices of one Freesound recording (fsID) are in one fold.
"""

from __future__ import annotations

from unfused_ray.data.sources.items import Listing
from unfused_ray.data.sources.lape.disk import Disk, Entry
from unfused_ray.data.sources.lape.task import LapeTask

FOLDER = "UrbanSound8K"
LIST = f"{FOLDER}/metadata/UrbanSound8K.csv"


def clips(disk: Disk) -> Listing:
    """List the clips in the publisher's folds; groups are Freesound recordings.

    Raises:
        ValueError: the list lacks a column.
    """
    entries = [
        Entry(
            f"{FOLDER}/audio/fold{row['fold']}/{row['slice_file_name']}",
            row["class"],
            f"fold{row['fold']}",
            row["fsID"],
        )
        for row in disk.rows(LIST, ("slice_file_name", "fsID", "fold", "class"))
    ]
    return disk.listing(entries, disk.audio(f"{FOLDER}/audio"), LIST)


TASK = LapeTask(
    name="UrbanSound8K",
    classes=10,
    clips=8_732,
    hours=8.8,
    licence="CC BY-NC 3.0",
    url="https://urbansounddataset.weebly.com/urbansound8k.html",
    archives="UrbanSound8K.tar.gz",
    requires=(LIST, f"{FOLDER}/audio"),
    list_clips=clips,
)
