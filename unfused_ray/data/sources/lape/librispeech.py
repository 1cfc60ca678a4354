"""LibriSpeech train-clean-100 (Panayotov et al., ICASSP 2015): 251 readers, to be told apart.

Files are ``LibriSpeech/train-clean-100/<reader>/<chapter>/<reader>-<chapter>-<number>.flac``. There is no split of
readers' own utterances; the LAPE code deals out 80 / 20.
"""

from __future__ import annotations

from collections import defaultdict

from unfused_ray.data.sources.items import Listing
from unfused_ray.data.sources.lape.disk import Disk, Entry
from unfused_ray.data.sources.lape.splits import deal, shuffled

FOLDER = "LibriSpeech/train-clean-100"
_SHARES = {"test": 0.2, "valid": 0.1}


def clips(disk: Disk) -> Listing:
    """A fifth of every reader's utterances is test, a tenth valid; groups are chapters.

    A chapter is in several splits, so that a probe may tell its recording instead of the reader; see
    :func:`clips_by_chapter`.
    """
    files = disk.audio(FOLDER)
    splits: dict[str, str] = {}
    for paths in _by_reader(files).values():
        splits |= deal(paths, _SHARES)
    return disk.listing([_entry(path, splits[path]) for path in files], files, FOLDER)


def clips_by_chapter(disk: Disk) -> Listing:
    """Of every reader, one chapter is test, one more valid where there are three; of one chapter, all is training."""
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
