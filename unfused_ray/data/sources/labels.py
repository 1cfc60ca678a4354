"""Labels as archives write them: a list, one string, or class numbers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

_NAMES = ("human_labels", "labels", "label", "tags", "tag", "mids", "category")


def label_name(names: Iterable[str]) -> str | None:
    """Return the column or field that holds the labels; None if there is none."""
    known = set(names)
    return next((name for name in _NAMES if name in known), None)


def to_labels(column: str | None, value: Any, class_names: Sequence[str] | None = None) -> list[str]:
    """Return a value of a column or field as labels. One string is a list with commas, but a single ``label``."""
    if value is None:
        return []
    if isinstance(value, str) and column != "label":
        value = [part.strip() for part in value.split(",") if part.strip()]
    values = value if isinstance(value, list) else [value]
    if class_names:
        return [class_names[v] if isinstance(v, int) and 0 <= v < len(class_names) else str(v) for v in values]
    return [str(v) for v in values if v not in (None, "")]
