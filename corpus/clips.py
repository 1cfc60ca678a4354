"""A task and its clips, as a task module describes them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np

from corpus.audio import MIN_SECONDS
from corpus.packages import Packages
from corpus.splits import SplitRule

Audio: TypeAlias = Path | np.ndarray | Callable[[], np.ndarray]
"""A file, 16 kHz mono float32 samples, or a function that returns samples and is called when the clip is written."""


@dataclass(frozen=True)
class Clip:
    """One clip that a task module offers; it is kept unless it is a copy, too short or unreadable."""

    label: str
    """Class of the clip; in an unlabelled task, the kind of sound, which only names a folder."""
    group: str
    """The unit that must not cross splits, and that intervals resample as a whole: a drum kit, a sentence, a voice."""
    key: str
    """Name of the clip, unique within the task."""
    audio: Audio
    sources: tuple[Path | str, ...] = ()
    """The recordings that the clip was made from; by default the file ``audio``. A file is identified by its bytes,
    whatever its name.

    No clip for pre-training shares a recording with a held-out clip of any task. Text names a recording that is not a
    file, such as ``"soundfont/FluidR3"``; all tasks share these names.
    """
    is_whole: bool = False
    """True if ``audio`` depends on the whole of its one source file, so that another clip of that file is a copy. Files
    are always whole."""
    family: str = ""
    """Groups that must have one split, such as the kits of one author; by default only the clip's group."""
    fade_out: bool = False
    """True to fade out the last 5 ms; clips longer than the task allows always fade out."""
    split: str = ""
    """``train``, ``valid`` or ``test``, for tasks whose rule is ``Given``."""


@dataclass(frozen=True)
class Skip:
    """Something that a task module leaves out; the report counts the reasons."""

    reason: str


@dataclass(frozen=True)
class Task:
    """One task of the corpus: its clips, and the rule of its splits."""

    name: str
    about: str
    """The classes to tell apart, as a line of the report's table."""
    group_is: str
    """The meaning of a group, and the groups that were joined because they share recordings."""
    packages: tuple[str, ...]
    """Debian packages that supply its clips; all are in ``package_lists``."""
    clips: Callable[[Packages], Iterator[Clip | Skip]]
    split: SplitRule | None
    """The rule of its splits; None for unlabelled clips, which are only for pre-training."""
    programs: tuple[str, ...] = ()
    """Programs that it runs, from ``packages.PROGRAMS``."""
    max_seconds: float = 4.0
    """Longer clips are cut to this length."""
    least_seconds: float = MIN_SECONDS
    """Shorter clips are left out."""
    least_clips: int = 0
    """Classes with fewer clips are left out."""
    notes: str = ""
    """Sentences for the report: the contents of a class, anything that was disguised, and caveats."""
