"""Assigns splits that a publisher does not give, by name: the same for everybody, even if a few clips are missing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from unfused_ray.data.sources.items import draw

_SEED = 31


def shuffled(names: Iterable[str]) -> list[str]:
    """Put the distinct names in an order that depends on the names alone."""
    return sorted(set(names), key=lambda name: (draw(_SEED, name), name))


def deal(names: Iterable[str], shares: Mapping[str, float]) -> dict[str, str]:
    """Give each distinct name a split.

    Args:
        names: names of clips, or of groups that stay in one split.
        shares: share of each split, of which each gets at least one name; "train" gets the rest, or the only name.
    """
    order = shuffled(names)
    dealt = dict.fromkeys(order, "train")
    first = 0
    for split, share in shares.items():
        count = min(max(1, round(share * len(order))), len(order) - 1 - first)  # training keeps at least one
        dealt.update(dict.fromkeys(order[first : first + count], split))
        first += count
    return dealt
