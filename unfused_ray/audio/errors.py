"""Reasons to set a clip aside, and to warn of one that is kept."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

Reason = Literal[
    "missing",
    "unreadable",
    "wrong format",
    "empty",
    "too short",
    "too long",
    "silent",
    "not finite",
    "wrong scale",  # float samples so far beyond full scale that they are of another one, such as that of 16 bits
]

WarningReason = Literal[
    "cut short",  # it ends before its header, its container or its list says
    "longer than its header",
    "damaged",  # parts of it cannot be decoded, and are left out
    "beyond full scale",  # float samples that are clipped
    "channels cancel",  # their mean is next to nothing: the loudest is taken alone
    "joined",  # several files lie end to end: all are read
    "several streams",  # one of several audio streams is taken
    "changed while read",
]

Warn = Callable[[WarningReason, str], None]
"""Takes the reason of a warning, and what was found."""


class AudioError(ValueError):
    """A clip cannot be used. ``reason`` is one of a few words to count by, ``detail`` what was found."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}"
