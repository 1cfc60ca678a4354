"""Splits that a publisher does not give: dealt out by name, the same for everybody and with or without a few clips."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from unfused_ray.data.sources.items import draw

_SEED = 31


def shuffled(names: Iterable[str]) -> list[str]:
    """The distinct names in an order that depends on nothing but themselves."""
    return sorted(set(names), key=lambda name: (draw(_SEED, name), name))


def deal(names: Iterable[str], shares: Mapping[str, float]) -> dict[str, str]:
    """A split for each distinct name.

    Args:
        names: of what is dealt out: clips, or groups of them that may not be torn apart.
        shares: of the names, by split, each of at least one name; "train" gets the others, and of one name all.
    """
    order = shuffled(names)
    dealt = dict.fromkeys(order, "train")
    first = 0
    for split, share in shares.items():
        count = min(max(1, round(share * len(order))), len(order) - 1 - first)  # training keeps at least one
        dealt.update(dict.fromkeys(order[first : first + count], split))
        first += count
    return dealt
