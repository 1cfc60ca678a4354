"""A finding of the doctor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Finding:
    """The result of one check."""

    check: str
    state: Literal["ok", "warning", "problem"]
    """A run may start with warnings. With a problem it would fail, or be open to others."""
    found: str
    fix: str = ""
    """Remedy; '' if the finding is ok."""
