"""A finding of the doctor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    check: str
    state: Literal["ok", "warning", "problem"]
    """A run may start with warnings; with a problem it would fail, or let others in."""
    found: str
    fix: str = ""
    """The remedy; '' for a finding that is well."""
