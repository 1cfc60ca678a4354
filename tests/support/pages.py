"""Code blocks of the README and the docs, and the arguments of the commands in them."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from support.paths import ROOT

_FENCE = re.compile(
    r"(?:^<!-- test: run(?P<words>[^\n]*) -->\n)?"
    r'^```(?P<language>\w+)(?: title="(?P<title>[^"]*)")?\n(?P<text>.*?)^```$',
    re.S | re.M,
)
# Commands of this project print their arguments, all others do nothing. A submitted job counts as its command.
_SHELL = r"""
unfused-ray() { printf '%s\0' "$@"; printf '\n\0'; }
python() {
    case $1 in
        jobs/*.py | tuning/*.py) local name=${1##*/}; shift; unfused-ray "${name%.py}" "$@" ;;
        -m) if [ "$2" = unfused_ray ]; then shift 2; unfused-ray "$@"; fi ;;
    esac
}
ray() {
    if [ "$1 $2" = "job submit" ]; then
        while [ $# -gt 0 ] && [ "$1" != -- ]; do shift; done
        shift
        "$@"
    fi
}
command_not_found_handle() { :; }
"""


@dataclass(frozen=True)
class Block:
    """A fenced code block of a page.

    Args:
        page: path from the root of the repository.
        line: line number of its opening fence.
        language: language of the code.
        title: title of the block, such as the file that it belongs to; '' if it has none.
        text: the code.
        runs: True if the comment ``<!-- test: run -->`` before the block asks tests to run it.
        replaced: arguments to replace when tests run it, such as the recipe ``demo`` by ``tiny``.
    """

    page: str
    line: int
    language: str
    title: str
    text: str
    runs: bool
    replaced: dict[str, str]

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"

    def commands(self, home: Path) -> list[list[str]]:
        """Return the arguments of each call of ``unfused-ray``, or of its aliases, after expansion by bash."""
        done = subprocess.run(
            ["/bin/bash", "-c", _SHELL + self.text],
            env={"HOME": str(home), "PATH": "/nowhere"},
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        return [call.split("\0")[:-1] for call in done.stdout.split("\n\0")[:-1]]


def pages() -> list[Path]:
    """Return the README, the other pages at the root, and all pages of the site."""
    return [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(language: str, paths: Sequence[Path] = ()) -> list[Block]:
    """Return all blocks of a language in some pages, by default in all."""
    found = []
    for page in paths or pages():
        text = page.read_text(encoding="utf-8")
        for match in _FENCE.finditer(text):
            if match["language"] == language:
                words = match["words"]
                replaced = dict(word.split("=", 1) for word in (words or "").split())
                line = text.count("\n", 0, match.start("language")) + 1
                name = str(page.relative_to(ROOT))
                title = match["title"] or ""
                found.append(Block(name, line, language, title, match["text"], words is not None, replaced))
    return found
