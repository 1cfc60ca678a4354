"""LibriSpeech train-clean-100 (Panayotov et al., ICASSP 2015): 251 readers to tell apart.

Files are ``LibriSpeech/train-clean-100/<reader>/<chapter>/<reader>-<chapter>-<number>.flac``. The publisher gives no
split of each reader's utterances; the LAPE code splits them 80 / 20.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable

from unfused_ray.data.sources.items import Listing
from unfused_ray.data.sources.lape.disk import Disk, Entry
from unfused_ray.data.sources.lape.splits import deal, shuffled
from unfused_ray.data.sources.lape.task import LapeTask

FOLDER = "LibriSpeech/train-clean-100"
_SHARES = {"test": 0.2, "valid": 0.1}


def clips(disk: Disk) -> Listing:
    """List the clips: a fifth of every reader's utterances is test, a tenth valid; groups are chapters.

    A chapter is in several splits, so a probe may recognise the recording instead of the reader. It cannot in
    :func:`clips_by_chapter`.
    """
    files = disk.audio(FOLDER)
    splits: dict[str, str] = {}
    for paths in _by_reader(files).values():
        splits |= deal(paths, _SHARES)
    return disk.listing([_entry(path, splits[path]) for path in files], files, FOLDER)


def clips_by_chapter(disk: Disk) -> Listing:
    """List the clips: one chapter of every reader is test, another valid if there are three or more; the rest is
    train."""
    files = disk.audio(FOLDER)
    splits: dict[str, str] = {}
    for paths in _by_reader(files).values():
        chapters = shuffled(_chapter(path) for path in paths)
        held_out = dict(zip(chapters[1:], ("test", "valid"), strict=False))
        splits |= {path: held_out.get(_chapter(path), "train") for path in paths}
    return disk.listing([_entry(path, splits[path]) for path in files], files, FOLDER)


def _by_reader(files: dict[str, str]) -> dict[str, list[str]]:
    readers = defaultdict(list)
    for path in files:
        readers[_reader(path)].append(path)
    return readers


def _entry(path: str, split: str) -> Entry:
    return Entry(path, _reader(path), split, _chapter(path))


def _reader(path: str) -> str:
    return path.split("/")[-3]


def _chapter(path: str) -> str:
    return "-".join(path.split("/")[-3:-1])


def _task(list_clips: Callable[[Disk], Listing], name: str) -> LapeTask:
    return LapeTask(
        name=name,
        classes=251,
        clips=28_539,
        hours=101,
        licence="CC BY 4.0",
        url="https://www.openslr.org/12",
        archives="train-clean-100.tar.gz",
        requires=(FOLDER,),
        list_clips=list_clips,
    )


TASK = _task(clips, "LibriSpeech train-clean-100")
BY_CHAPTER = _task(clips_by_chapter, "LibriSpeech, split by chapter")
