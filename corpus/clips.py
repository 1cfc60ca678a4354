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
"""A file, 16 kHz mono float32 samples, or a function that gives samples and is called when the clip's turn comes."""


@dataclass(frozen=True)
class Clip:
    """One clip that a task module offers; it is kept unless it is a copy, too short or unreadable."""

    label: str
    """Its class; of an unlabelled task, the kind of sound, which names a folder only."""
    group: str
    """The unit that may not cross splits, and that intervals resample as a whole: a drum kit, a sentence, a voice."""
    key: str
    """Name of the clip, different from all others of the task."""
    audio: Audio
    sources: tuple[Path | str, ...] = ()
    """The recordings it was made from; by default the file ``audio``. A file is known by its bytes, whatever its name.

    No clip for pre-training shares one with a held-out clip of any task. Text names what is no file, such as
    ``"soundfont/FluidR3"``; all tasks share these names."""
    is_whole: bool = False
    """True if ``audio`` is a function of the whole of its one source file, so that another clip of it is a copy. Files
    are always whole."""
    family: str = ""
    """Groups that must have one split, such as the kits of one author; by default the group alone."""
    fade_out: bool = False
    """Fade the last 5 ms out; longer clips than the task allows always are."""
    split: str = ""
    """``train``, ``valid`` or ``test``, for tasks whose rule is ``Given``."""


@dataclass(frozen=True)
class Skip:
    """Something a task module leaves out; the reasons are counted in the report."""

    reason: str


@dataclass(frozen=True)
class Task:
    """One task of the corpus: what its clips are, and how they are split."""

    name: str
    about: str
    """The classes to be told apart, in a line of the report's table."""
    group_is: str
    """The meaning of a group, and the groups that were joined because they share recordings."""
    packages: tuple[str, ...]
    """Debian packages it takes clips from; all are in ``package_lists``."""
    clips: Callable[[Packages], Iterator[Clip | Skip]]
    split: SplitRule | None
    """The rule of its splits; None for unlabelled clips, which are for pre-training only."""
    programs: tuple[str, ...] = ()
    """Programs it runs, of ``packages.PROGRAMS``."""
    max_seconds: float = 4.0
    """Longer clips are cut."""
    least_seconds: float = MIN_SECONDS
    """Shorter clips are left out."""
    least_clips: int = 0
    """Classes of fewer clips are left out."""
    notes: str = ""
    """Sentences for the report: what a class holds, what was disguised, what to mind."""
