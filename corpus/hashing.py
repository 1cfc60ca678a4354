"""Choices without random state: each is a function of a text key, so that two builds give the same corpus."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")


def hash_int(key: str) -> int:
    """Return a 64-bit integer for a text key."""
    return int.from_bytes(hashlib.sha1(key.encode()).digest()[:8], "big")


def hash_fraction(key: str) -> float:
    """Return a number in [0, 1) for a text key."""
    return hash_int(key) / 2.0**64


def hash_between(key: str, low: float, high: float) -> float:
    """Return a number in [low, high) for a text key."""
    return low + (high - low) * hash_fraction(key)


def pick(key: str, options: Sequence[T]) -> T:
    """Choose one of ``options`` by a text key."""
    return options[hash_int(key) % len(options)]


def by_hash(items: Iterable[T], salt: str, name: Callable[[T], str] = str) -> list[T]:
    """Order items by the hash of ``salt`` and their name: a shuffle without a seed."""
    return sorted(items, key=lambda item: (hash_int(f"{salt}/{name(item)}"), name(item)))


@lru_cache(maxsize=1 << 16)
def file_digest(path: Path) -> str:
    """Return the SHA-1 of the bytes of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha1").hexdigest()
