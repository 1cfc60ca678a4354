"""Virtual environments with some distributions and their requirements, linked from this one without downloads."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterable
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement


def needed(names: Iterable[str]) -> dict[str, Distribution]:
    """Return the named distributions and all they require, with the extras that are named, by normalised name."""
    found: dict[str, Distribution] = {}
    left = [Requirement(name) for name in names]
    while left:
        requirement = left.pop()
        name = re.sub(r"[-_.]+", "-", requirement.name).lower()
        if name in found:
            continue
        try:
            found[name] = distribution(requirement.name)
        except PackageNotFoundError:  # required on another platform only
            continue
        required = map(Requirement, found[name].requires or ())
        extras = requirement.extras or {""}
        left += [
            each for each in required if not each.marker or any(each.marker.evaluate({"extra": e}) for e in extras)
        ]
    return found


def link(folder: Path, names: Iterable[str]) -> tuple[Path, dict[str, float]]:
    """Make an environment of ``names`` and their requirements, without pip, in ``folder``.

    Returns:
        Path of its Python, and the megabytes of each distribution.
    """
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    sizes = {}
    for name, found in needed(names).items():
        files = [file for file in found.files or () if ".." not in file.parts and "__pycache__" not in file.parts]
        sizes[name] = sum(Path(str(found.locate_file(file))).stat().st_size for file in files) / 1e6
        for file in files:
            target = packages / str(file)
            if not target.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                target.symlink_to(str(found.locate_file(file)))
    return folder / "bin" / "python", sizes
