"""Builds one task: takes its clips, drops copies, splits whole groups, and writes FLAC files and tables."""

from __future__ import annotations

import csv
import hashlib
import io
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import soundfile

from corpus import near_copies
from corpus.audio import SAMPLE_RATE, fade, load, to_pcm, trim
from corpus.clips import Clip, Skip, Task
from corpus.hashing import file_digest
from corpus.packages import Packages
from corpus.splits import SPLITS
from unfused_ray import storage
from unfused_ray.audio.errors import AudioError

COLUMNS = ("wav_path", "label", "group")
_SPLIT_RANK = {split: rank for rank, split in enumerate(SPLITS)}


@dataclass
class Row:
    """A clip that was kept."""

    wav_path: str
    label: str
    group: str
    family: str
    split: str
    seconds: float
    rms: float
    digest: str
    """SHA-1 of its 16-bit samples."""
    sources: list[str]
    """Digests of the files, and names of other recordings, that the clip was made from."""


@dataclass
class Built:
    """A finished task."""

    rows: list[Row]
    fingerprints: np.ndarray
    """(rows, 768) uint8."""
    skipped: dict[str, int]


@dataclass
class TaskFolder:
    """Takes the clips of one task into a folder.

    Args:
        task: the task.
        folder: folder of the corpus while it is built; the task's files are written below ``folder/<name>``.
    """

    task: Task
    folder: Path
    _rows: list[Row] = field(default_factory=list)
    _prints: dict[str, np.ndarray] = field(default_factory=dict)
    _seen: dict[str, Row | None] = field(default_factory=dict)
    _skipped: Counter[str] = field(default_factory=Counter)
    _keys: set[str] = field(default_factory=set)
    _fingerprint: near_copies.Fingerprinter = field(default_factory=near_copies.Fingerprinter)

    def build(self, packages: Packages) -> Built:
        """Take all clips and write the tables.

        Raises:
            ValueError: a class is missing from a split, or two clips have one key.
        """
        for clip in self.task.clips(packages):
            if isinstance(clip, Skip):
                self._skipped[clip.reason] += 1
            else:
                self._take(clip)
        self._drop_copies_of_other_gain()
        self._drop_small_classes()
        self._split()
        self._rows.sort(key=lambda row: row.wav_path)
        self._write_tables()
        prints = [self._prints[row.wav_path] for row in self._rows]
        shape = (len(prints), near_copies.FINGERPRINT_SIZE)
        return Built(self._rows, np.array(prints, np.uint8).reshape(shape), dict(sorted(self._skipped.items())))

    def _take(self, clip: Clip) -> None:
        if clip.key in self._keys:
            raise ValueError(f"task {self.task.name}: two clips have the key {clip.key!r}")
        self._keys.add(clip.key)
        try:
            audio = clip.audio
            wave = load(audio) if isinstance(audio, Path) else audio if isinstance(audio, np.ndarray) else audio()
        except AudioError as error:
            self._skipped[f"unreadable: {error.reason}"] += 1
            return
        wave = trim(wave)
        if len(wave) < self.task.least_seconds * SAMPLE_RATE:
            self._skipped[f"shorter than {self.task.least_seconds:g} s"] += 1
            return
        most = int(self.task.max_seconds * SAMPLE_RATE)
        if len(wave) > most or clip.fade_out:
            wave = fade(wave[:most])
        pcm = to_pcm(wave)
        sources = clip.sources or ((clip.audio,) if isinstance(clip.audio, Path) else ())
        names = sorted(file_digest(source) if isinstance(source, Path) else source for source in sources)
        digest = hashlib.sha1(pcm.tobytes()).hexdigest()
        marks = {digest, *(names if clip.is_whole or isinstance(clip.audio, Path) else ())}
        if not self._is_copy(marks, clip.label):
            path = self._path(clip)
            row = Row(
                wav_path=path,
                label=clip.label,
                group=clip.group,
                family=clip.family or clip.group,
                split=clip.split,
                seconds=len(pcm) / SAMPLE_RATE,
                rms=_rms(pcm),
                digest=digest,
                sources=names,
            )
            self._write(path, pcm)
            self._prints[path] = self._fingerprint(pcm)
            self._rows.append(row)
            self._seen.update(dict.fromkeys(marks, row))

    def _is_copy(self, marks: set[str], label: str) -> bool:
        """Return True if a clip with one of these marks was seen; of one recording under two labels, neither is
        kept."""
        for mark in sorted(marks & self._seen.keys()):
            old = self._seen[mark]
            if old is not None and old.label == label:
                self._skipped["exact copy"] += 1
                return True
            if old is not None:
                self._drop(old, "one recording under two labels")
                self._seen = {mark: None if row is old else row for mark, row in self._seen.items()}
            self._skipped["one recording under two labels"] += 1
            return True
        return False

    def _path(self, clip: Clip) -> str:
        name = re.sub(r"[^A-Za-z0-9]+", "-", unicodedata.normalize("NFKD", clip.key)).strip("-")[-48:]
        digest = hashlib.sha1(clip.key.encode()).hexdigest()[:6]
        return f"{self.task.name}/clips/{clip.label}/{name}-{digest}.flac"

    def _write(self, path: str, pcm: np.ndarray) -> None:
        (self.folder / path).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(self.folder / path, pcm, SAMPLE_RATE, subtype="PCM_16", compression_level=1.0)

    def _read(self, row: Row) -> np.ndarray:
        return soundfile.read(self.folder / row.wav_path, dtype="int16")[0]

    def _drop(self, row: Row, reason: str) -> None:
        self._rows.remove(row)
        (self.folder / row.wav_path).unlink()
        self._skipped[reason] += 1

    def _stacked(self, rows: Sequence[Row]) -> np.ndarray:
        return np.stack([self._prints[row.wav_path] for row in rows])

    def _drop_copies_of_other_gain(self) -> None:
        """Keep one of the clips that differ only in gain, such as velocity layers; under two labels, keep neither."""
        rows, dropped = sorted(self._rows, key=lambda row: row.wav_path), dict[int, str]()
        if not rows:
            return
        prints = self._stacked(rows)
        for first, second, _ in near_copies.near_pairs(prints, prints):
            if first >= second or second in dropped:
                continue
            if near_copies.correlation(self._read(rows[first]), self._read(rows[second])) < near_copies.SAME_WAVE:
                continue
            if rows[first].label == rows[second].label:
                dropped.setdefault(second, "copy at another level")
            else:
                dropped[first] = dropped[second] = "one recording under two labels"
        for place, reason in dropped.items():
            self._drop(rows[place], reason)

    def _drop_small_classes(self) -> None:
        count = Counter(row.label for row in self._rows)
        for row in [row for row in self._rows if count[row.label] < self.task.least_clips]:
            self._drop(row, "class too small")

    def _split(self) -> None:
        if self.task.split is None:
            return
        split_of = self.task.split.assign(self.task.name, self._rows)
        for row in self._rows:
            row.split = split_of[row.family]
        self._drop_near_copies_across_splits()
        self._check()

    def _check(self) -> None:
        split_of: dict[str, str] = {}
        for row in self._rows:
            if split_of.setdefault(row.group, row.split) != row.split:
                raise ValueError(f"task {self.task.name}: group {row.group!r} is in two families of different splits")
        for split in SPLITS:
            missing = {row.label for row in self._rows} - {row.label for row in self._rows if row.split == split}
            if missing or not self._rows:
                raise ValueError(f"task {self.task.name}: no clip of {sorted(missing)} in {split}")

    def _drop_near_copies_across_splits(self) -> None:
        """Drop near-copies across splits: the clip in train goes before one in valid or test, and valid before test."""
        for split in SPLITS[1:]:
            held = [row for row in self._rows if row.split == split]
            others = [row for row in self._rows if _SPLIT_RANK[row.split] < _SPLIT_RANK[split]]
            if not held or not others:
                continue
            pairs = near_copies.near_pairs(self._stacked(others), self._stacked(held))
            for place in sorted({place for place, _, _ in pairs}):
                self._drop(others[place], "near-copy in another split")

    def _write_tables(self) -> None:
        if self.task.split is not None:
            for split in SPLITS:
                rows = ([getattr(row, name) for name in COLUMNS] for row in self._rows if row.split == split)
                write_csv(self.folder / self.task.name / f"{split}.csv", COLUMNS, list(rows))


def write_csv(path: Path, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Write a table completely or not at all."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    storage.write_bytes(str(path), text.getvalue().encode())


def _rms(pcm: np.ndarray) -> float:
    return float(np.sqrt((pcm.astype(np.float64) ** 2).mean())) / 32768
