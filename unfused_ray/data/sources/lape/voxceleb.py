"""VoxCeleb1 (Nagrani et al., Interspeech 2017): 1,251 speakers in videos, to tell apart.

The archives hold ``wav/<speaker>/<video>/<number>.wav``. The split for speaker identification is ``iden_split.txt``,
with lines ``1 id10003/na8-QEFmj44/00003.wav``: 1 is training, 2 validation, 3 test. The same speakers are in all three.
"""

from __future__ import annotations

from unfused_ray.data.parts.rejects import Reject
from unfused_ray.data.sources.items import Listing
from unfused_ray.data.sources.lape.disk import Disk, Entry
from unfused_ray.data.sources.lape.task import LapeTask

FOLDER = "VoxCeleb1"
LIST = f"{FOLDER}/iden_split.txt"
_SPLITS = {"1": "train", "2": "valid", "3": "test"}


def clips(disk: Disk) -> Listing:
    """List the clips that ``iden_split.txt`` names; groups are videos.

    Files may lie at any depth, as in ``wav``, or in ``dev/wav`` and ``test/wav``, which many people keep apart.

    Raises:
        ValueError: a line of the list cannot be read.
    """
    entries = []
    for number, line in enumerate(disk.lines(LIST), start=1):
        split, _, path = line.partition(" ")
        if split not in _SPLITS or path.count("/") != 2:
            raise disk.damaged(LIST, f"its line {number} is {line!r}")
        speaker, video, _ = path.split("/")
        entries.append(Entry(path, speaker, _SPLITS[split], f"{speaker}/{video}"))
    files: dict[str, str] = {}
    again: list[Reject] = []
    for found, uri in disk.audio(FOLDER).items():
        path = "/".join(found.split("/")[-3:])
        if path in files:
            again.append(Reject(found, "duplicate", f"{files[path]} is the same clip"))
        else:
            files[path] = uri
    return disk.listing(entries, files, LIST, again)


TASK = LapeTask(
    name="VoxCeleb1",
    classes=1_251,
    clips=153_516,
    hours=352,
    licence="CC BY 4.0",
    url="https://www.robots.ox.ac.uk/~vgg/data/voxceleb/",
    archives="audio of dev and test and meta/iden_split.txt, into a folder VoxCeleb1",
    requires=(LIST,),
    list_clips=clips,
)
