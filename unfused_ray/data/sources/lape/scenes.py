"""TUT Urban Acoustic Scenes 2018, development set (Mesaros et al., arXiv 1807.09840): ten scenes in six cities.

``evaluation_setup/fold1_train.txt`` and ``fold1_evaluate.txt`` have lines
``audio/airport-barcelona-0-0-a.wav<tab>airport``: scene, city, location, segment and device, then the scene again.
Segments last ten seconds and have two channels at 48 kHz.
"""

from __future__ import annotations

from collections import defaultdict

from unfused_ray.data.sources.items import Listing
from unfused_ray.data.sources.lape.disk import Disk, Entry
from unfused_ray.data.sources.lape.splits import deal
from unfused_ray.data.sources.lape.task import LapeTask

FOLDER = "TUT-urban-acoustic-scenes-2018-development"
LISTS = {
    split: f"{FOLDER}/evaluation_setup/fold1_{name}.txt" for split, name in (("train", "train"), ("test", "evaluate"))
}
_SHARES = {"valid": 0.15}


def clips(disk: Disk) -> Listing:
    """List the clips in the archive's split; 15 % of each scene's training locations are valid. Groups are locations.

    Raises:
        ValueError: a line of a list cannot be read.
    """
    entries = [entry for split in LISTS for entry in _of_list(disk, split)]
    locations = defaultdict(list)
    for entry in entries:
        if entry.split == "train":
            locations[entry.label].append(entry.group)
    splits = {scene: deal(groups, _SHARES) for scene, groups in locations.items()}
    entries = [
        entry._replace(split=splits[entry.label][entry.group]) if entry.split == "train" else entry for entry in entries
    ]
    return disk.listing(entries, disk.audio(f"{FOLDER}/audio"), f"{FOLDER}/evaluation_setup")


def _of_list(disk: Disk, split: str) -> list[Entry]:
    entries = []
    for number, line in enumerate(disk.lines(LISTS[split]), start=1):
        path, tab, scene = line.partition("\t")
        parts = path.split("-")
        if not tab or len(parts) != 5:
            raise disk.damaged(LISTS[split], f"its line {number} is {line!r}")
        entries.append(Entry(f"{FOLDER}/{path}", scene, split, "-".join(parts[1:3])))
    return entries


TASK = LapeTask(
    name="TUT Urban Acoustic Scenes 2018",
    classes=10,
    clips=8_640,
    hours=24,
    licence="non-commercial",
    url="https://zenodo.org/record/1228142",
    archives="the audio and meta archives of the development set",
    requires=(*LISTS.values(), f"{FOLDER}/audio"),
    list_clips=clips,
)
