"""Bird audio detection (Stowell et al., arXiv 1807.05812): is a bird heard in ten seconds?

There are two sources, freefield1010 (field recordings from all over the world) and Warblr (telephones in Britain). Each
has a folder ``wav`` with ``<itemid>.wav`` and a CSV file with the columns ``itemid,datasetid,hasbird``. A quarter of
the first source's clips have birds, and three quarters of the second's: a model that only knows the source gets three
quarters of the labels right.
"""

from __future__ import annotations

from collections import defaultdict

from unfused_ray.data.sources.items import Listing, combine
from unfused_ray.data.sources.lape.disk import Disk, Entry
from unfused_ray.data.sources.lape.splits import deal
from unfused_ray.data.sources.lape.task import LapeTask

LISTS = {
    "ff1010bird": "ff1010bird/ff1010bird_metadata_2018.csv",
    "warblrb10k": "warblrb10k/warblrb10k_public_metadata_2018.csv",
}
"""The CSV file of each source, by the name of the source's folder."""
_LABELS = {"0": "no bird", "1": "bird"}


def clips(disk: Disk) -> Listing:
    """List the clips: of each source's clips with a bird, and of those without, a fifth is test and a tenth valid.

    The test clips' splits are ``test-ff1010bird`` and ``test-warblrb10k``, so that each source is reported too.

    Raises:
        ValueError: a list lacks a column, or has a label other than 0 and 1.
    """
    return combine([_of_source(disk, source) for source in LISTS])


def _of_source(disk: Disk, source: str) -> Listing:
    names = LISTS[source]
    by_label: dict[str, list[str]] = defaultdict(list)
    for row in disk.rows(names, ("itemid", "hasbird")):
        if row["hasbird"] not in _LABELS:
            raise disk.damaged(names, f"hasbird of {row['itemid']} is {row['hasbird']!r}, neither 0 nor 1")
        by_label[_LABELS[row["hasbird"]]].append(f"{source}/wav/{row['itemid']}.wav")
    entries: list[Entry] = []
    for label, paths in by_label.items():
        splits = deal(paths, {f"test-{source}": 0.2, "valid": 0.1})
        entries += [Entry(path, label, splits[path]) for path in paths]
    return disk.listing(entries, disk.audio(f"{source}/wav"), names)


TASK = LapeTask(
    name="Bird audio detection",
    classes=2,
    clips=15_690,
    hours=43.6,
    licence="CC BY 4.0",
    url="https://dcase.community/challenge2018/task-bird-audio-detection",
    archives="audio and labels of freefield1010 into a folder ff1010bird, of Warblr into warblrb10k",
    requires=tuple(path for source, names in LISTS.items() for path in (names, f"{source}/wav")),
    list_clips=clips,
)
