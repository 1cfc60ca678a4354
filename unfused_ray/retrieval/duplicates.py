"""Finds near-copies within a set of clips, or between two sets, above a threshold whose precision is measured.

Shapes: N clips of the first set, M of the second.
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.console import Group
from rich.table import Table
from rich.text import Text

from unfused_ray import storage
from unfused_ray.audio.log_mel import LogMel
from unfused_ray.config import DuplicatesConfig
from unfused_ray.data.parts.executor import Executor
from unfused_ray.data.shards.index import ClipIndex
from unfused_ray.embedding.clips import read_clips
from unfused_ray.progress import Progress
from unfused_ray.retrieval.alterations import ALTERATIONS
from unfused_ray.retrieval.fingerprints import fingerprint, load_fingerprints

_COPIED = 50
"""Number of clips from which altered copies are made, to choose the threshold."""
_MOST = 0.5
"""If a smaller share than this of the altered copies is found, the search says so. Similarities with nearest others are
taken for those of false pairs, so near-copies of more than a third of the clips raise the threshold beyond the
similarity of near-copies."""
_TILE = 1024
_SHOWN = 10
_COLUMNS = ("similarity", "source", "key", "split", "copy_source", "copy_key", "copy_split")
PRECISION = DuplicatesConfig().precision
_DEVIATIONS = 4.26
"""Standard deviations between the threshold and the middle of false pairs. Half of the pairs with altered copies are
true; of a set's own pairs, one in a thousand may be. So the threshold must also be beyond the spread of false pairs: of
100,000 false pairs, one would be above it if their Fisher z were normal."""
_MAD_TO_DEVIATION = 1.4826
_LARGEST = 1 - 1e-6
_EQUAL = 1 - 1e-4
"""Least similarity of equal clips, whose fingerprints are stored as float16."""


@dataclass(frozen=True)
class Threshold:
    """The least similarity of near-copies, and its quality on altered copies."""

    similarity: float
    precision: float
    """Share of the pairs above it that are a clip and its own altered copy."""
    found: Mapping[str, float]
    """Share of the altered copies that are found, by alteration."""
    num_copies: int

    @property
    def text(self) -> str:
        """The threshold in words."""
        doubt = f". {self.doubt[0].upper()}{self.doubt[1:]}" if self.doubt else ""
        if not self.found:
            return f"similarity of at least {self.similarity:.4f}{doubt}"
        best = ", ".join(f"{name} {share:.0%}" for name, share in self.found.items())
        return (
            f"similarity of at least {self.similarity:.4f}, with a precision of {self.precision:.3f} on "
            f"{self.num_copies} copies made for this test; share of them that it finds: {best}{doubt}"
        )

    @property
    def doubt(self) -> str:
        """Reason why near-copies that are not equal may be missed; '' if most altered copies are found."""
        if not self.found:
            return "only equal clips are found: there was no clip to make test copies of"
        share = sum(self.found.values()) / len(self.found)
        if share >= _MOST:
            return ""
        return (
            f"most near-copies that are not equal are missed, as {1 - share:.0%} of the test copies are: "
            "more than a third of the clips may have one, or different clips are too much alike"
        )


@dataclass(frozen=True)
class Copies:
    """Near-copies of the clips of a set."""

    first: ClipIndex
    second: ClipIndex
    threshold: Threshold
    pairs: Mapping[int, tuple[int, float]]
    """Nearest clip of the second set and its similarity, by clip_id of each clip of the first set with a near-copy."""

    def to_terminal(self) -> Group:
        """Return counts by split, the most similar pairs, and the threshold, for the terminal."""
        by_splits = [[a or "–", b or "–", f"{count:,}"] for (a, b), count in self.by_splits.items()]
        title = f"{len(self.pairs):,} of {self.first.num_clips:,} clips have a near-copy"
        counts = _table(title, ("split", "split of the copy", "clips"), by_splits)
        names = ("similarity", "source", "key", "copy_source", "copy_key")
        shown = [[str(row[name]) for name in names] for row in self._rows()[:_SHOWN]]
        tables = [counts, _table("The most similar", names, shown)] if self.pairs else [Text(title)]
        return Group(*tables, Text(f"Near-copies: {self.threshold.text}."))

    def to_csv(self) -> str:
        """Return all pairs as CSV, the most similar first."""
        buffer = io.StringIO()
        writer = csv.DictWriter(buffer, _COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self._rows())
        return buffer.getvalue()

    def _rows(self) -> list[dict[str, Any]]:
        sides = [_Side(self.first), _Side(self.second)]
        rows = []
        for clip, (other, similarity) in sorted(self.pairs.items(), key=lambda pair: -pair[1][1]):
            values = [f"{similarity:.4f}", *sides[0].describe(clip), *sides[1].describe(other)]
            rows.append(dict(zip(_COLUMNS, values, strict=True)))
        return rows

    @property
    def by_splits(self) -> dict[tuple[str, str], int]:
        """Number of clips of the first set with a near-copy, by their split and the copy's split."""
        firsts, seconds = self.first.column("split"), self.second.column("split")
        return dict(sorted(Counter((firsts[a], seconds[b]) for a, (b, _) in self.pairs.items()).items()))


class _Side:
    """The clips of one side of the pairs, by clip_id."""

    def __init__(self, index: ClipIndex) -> None:
        self._index = index
        self._keys, self._splits = index.column("key"), index.column("split")

    def describe(self, clip_id: int) -> tuple[str, str, str]:
        """Return source, key and split."""
        return storage.masked(self._index.source_of(clip_id).uri), self._keys[clip_id], self._splits[clip_id]


def _table(title: str, headings: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    table = Table(title=Text(title), title_justify="left")
    for heading in headings:
        table.add_column(heading, overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    return table


def find_copies(first: ClipIndex, second: ClipIndex | None, executor: Executor, precision: float = PRECISION) -> Copies:
    """Find the nearest near-copy of each clip.

    Args:
        first: clips whose near-copies are wanted.
        second: clips to search; None searches the first set, leaving out each clip itself.
        executor: computes fingerprints that are not stored yet.
        precision: precision of the threshold.

    Raises:
        ValueError: the sets have different front ends.
        OSError: a shard is missing, or its storage does not answer.
    """
    others = second or first
    front_ends = {manifest.front_end.digest(): manifest.uri for manifest in (*first.manifests, *others.manifests)}
    if len(front_ends) > 1:
        raise ValueError(
            f"{' and '.join(front_ends.values())} were prepared with different front ends: their clips cannot be "
            "compared. Prepare one of them again with the other's --front-end.… settings"
        )
    first_ND = load_fingerprints(first, executor)
    others_MD = first_ND if second is None else load_fingerprints(second, executor)
    threshold = choose_threshold(first, first_ND, None if second is None else others_MD, precision)
    itself = (np.arange(len(first_ND)), np.arange(len(first_ND))) if second is None else None
    with Progress("near-copies", len(first_ND) * len(others_MD), "comparisons") as bar:
        nearest_N, similarities_N = nearest(first_ND, others_MD, itself, bar.update)
    above = np.flatnonzero(similarities_N >= threshold.similarity)
    return Copies(first, others, threshold, {int(i): (int(nearest_N[i]), float(similarities_N[i])) for i in above})


def choose_threshold(
    index: ClipIndex, fingerprints_ND: np.ndarray, others_MD: np.ndarray | None, precision: float
) -> Threshold:
    """Choose the lowest similarity above which enough pairs are true, and which is far from that of false pairs.

    Some clips, always the same ones, are altered in every way of ``ALTERATIONS``. A copy and its original are a true
    pair; a copy and the nearest other clip of the set are a false pair. Other clips that equal the original make no
    false pairs, however many there are: one set may contain all of another, or each clip twice. Clips whose nearest
    other clip stands out are left out, because the set may hold a copy of them. If no threshold reaches the precision,
    the one with the highest precision is chosen.

    Args:
        index: clips to alter.
        fingerprints_ND: fingerprints of these clips.
        others_MD: fingerprints of the clips to search; None if they are the same clips.
        precision: precision to reach.
    """
    ids = np.sort(np.random.default_rng(0).permutation(index.num_clips)[:_COPIED])
    others = fingerprints_ND if others_MD is None else others_MD
    others_M = _same_numbers(others)
    own_N = others_M if others_MD is None else _same_numbers(fingerprints_ND)
    _, similarities = nearest(fingerprints_ND[ids], others, (own_N[ids], others_M))
    ids = ids[_fisher(similarities) <= _beyond(similarities)]
    front_end = index.manifests[0].front_end
    log_mel = LogMel(front_end)
    originals, copies, names = [], [], []
    for clips in read_clips(index, ids):
        for place, pcm in clips:
            for name, alter in ALTERATIONS.items() if fingerprints_ND[ids[place]].any() else ():
                originals.append(int(ids[place]))
                copies.append(fingerprint(alter(pcm, front_end.sample_rate), log_mel))
                names.append(name)
    if not copies:
        return Threshold(_EQUAL, 1.0, {}, 0)
    copies_CD = np.stack(copies)
    true_C = (copies_CD * fingerprints_ND[originals].astype(np.float32)).sum(axis=1)
    false_C = nearest(copies_CD, others, (own_N[originals], others_M))[1]
    similarity, reached = _lowest(true_C, false_C, precision)
    is_found = {name: true_C[np.array(names) == name] >= similarity for name in ALTERATIONS}
    return Threshold(similarity, reached, {name: float(found.mean()) for name, found in is_found.items()}, len(copies))


def _lowest(true_C: np.ndarray, false_C: np.ndarray, precision: float) -> tuple[float, float]:
    """Return the lowest threshold that is precise enough and beyond the spread of false pairs, and its precision."""
    beyond = float(np.tanh(_beyond(false_C)))
    values = np.unique(np.minimum(np.append(true_C[true_C > beyond], beyond), _EQUAL))
    above = len(true_C) - np.searchsorted(np.sort(true_C), values)
    wrong = len(false_C) - np.searchsorted(np.sort(false_C), values)
    reached = np.where(above + wrong > 0, above / np.maximum(above + wrong, 1), 1.0)
    place = int(np.argmax(reached >= precision)) if (reached >= precision).any() else int(np.argmax(reached))
    return float(values[place]), float(reached[place])


def _same_numbers(fingerprints_ND: np.ndarray) -> np.ndarray:
    """Return (N,) int64 numbers, the same for equal fingerprints within one process."""
    return np.array([hash(row.tobytes()) for row in fingerprints_ND], np.int64)


def _fisher(similarities: np.ndarray) -> np.ndarray:
    return np.arctanh(np.clip(similarities, -_LARGEST, _LARGEST))


def _beyond(similarities: np.ndarray) -> float:
    """Return a Fisher z that false pairs hardly ever reach; a few true pairs among them change it little."""
    values = _fisher(similarities)
    middle = np.median(values)
    return float(middle + _DEVIATIONS * _MAD_TO_DEVIATION * np.median(np.abs(values - middle)))


def nearest(
    queries_ND: np.ndarray,
    others_MD: np.ndarray,
    left_out: tuple[np.ndarray, np.ndarray] | None,
    tell: Callable[[int], object] = lambda done: None,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the nearest other vector of each query, (N,) int64, and its similarity, (N,) float32.

    Args:
        queries_ND, others_MD: vectors of length 1, or of zeros, which are near to nothing.
        left_out: numbers of the queries and of the others, (N,) and (M,): others with a query's own number are left
            out.
        tell: called after each tile with the number of the N · M comparisons that are done.
    """
    best_N, places_N = np.full(len(queries_ND), -1.0, np.float32), np.zeros(len(queries_ND), np.int64)
    for first in range(0, len(others_MD), _TILE):
        tile_TD = others_MD[first : first + _TILE].astype(np.float32)
        for start in range(0, len(queries_ND), _TILE):
            rows = slice(start, start + _TILE)
            similarities_RT = queries_ND[rows].astype(np.float32) @ tile_TD.T
            if left_out is not None:
                queries_N, others_M = left_out
                similarities_RT[queries_N[rows, None] == others_M[first : first + _TILE]] = -1.0
            places = similarities_RT.argmax(axis=1)
            values = similarities_RT[np.arange(len(places)), places]
            better = values > best_N[rows]
            best_N[rows] = np.where(better, values, best_N[rows])
            places_N[rows] = np.where(better, places + first, places_N[rows])
            tell(first * len(queries_ND) + len(tile_TD) * min(start + _TILE, len(queries_ND)))
    return places_N, best_N
