"""Reasons to set a clip aside, and reasons to warn of a clip that is kept."""

from __future__ import annotations

import errno
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
    "wrong scale",  # float samples so far beyond full scale that they have another scale, such as that of 16 bits
]

WarningReason = Literal[
    "cut short",  # it ends before its header, its container or its list says
    "longer than its header",
    "damaged",  # parts of it cannot be decoded, and are left out
    "beyond full scale",  # float samples that are clipped
    "channels cancel",  # their mean is almost zero: only the loudest is used
    "joined",  # several files are joined end to end: all are read
    "several streams",  # one of several audio streams is used
    "changed while read",
]

Warn = Callable[[WarningReason, str], None]
"""Takes the reason of a warning and its details."""


_MAY_PASS = frozenset(
    {
        *(errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.ENOMEM),
        *(errno.ENOTCONN, errno.ESTALE, errno.ETIMEDOUT, errno.ECONNRESET, errno.ECONNREFUSED, errno.ECONNABORTED),
        *(errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENETDOWN, errno.ENETUNREACH),
    }
)
"""Codes of a full disk or quota, of too many open files, of little memory, and of a network folder that does not
answer."""


class AudioError(ValueError):
    """A clip that cannot be used. ``reason`` is one of a few words to count by, ``detail`` describes what was found."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}"


def may_pass(error: BaseException) -> bool:
    """Tell whether an error of the system says nothing of the file that was to be read, so that trying again may
    help."""
    while isinstance(error, OSError) and error.errno is None and error.__cause__ is not None:
        error = error.__cause__
    return isinstance(error, OSError) and error.errno in _MAY_PASS
