"""Draws docs/pictures/layers.svg from the contracts of import-linter in pyproject.toml: python docs/layers.py."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
PICTURE = ROOT / "docs" / "pictures" / "layers.svg"

_WIDTH, _BOX, _ROW, _GAP, _MARGIN = 760, 30, 42, 10, 20
_PLAIN, _PURE = ("#e8eef9", "#7d97c9"), ("#e6f4ea", "#79b08a")


def layers() -> tuple[list[list[str]], set[str]]:
    """Rooms by layer, upper ones first, and those that never import Ray or MLflow."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        contracts = tomllib.load(file)["tool"]["importlinter"]["contracts"]
    rows = next(contract["layers"] for contract in contracts if contract["type"] == "layers")
    pure = {
        module
        for contract in contracts
        if contract["type"] == "forbidden" and "ray" in contract["forbidden_modules"]
        for module in contract["source_modules"]
    }
    rooms = [re.split(r"\s*[|:]\s*", row.replace("unfused_ray.", "")) for row in rows]
    return rooms, {module.removeprefix("unfused_ray.") for module in pure}


def draw() -> str:
    """The picture as SVG."""
    rows, pure = layers()
    height = _MARGIN * 2 + len(rows) * _ROW + 24
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}" '
        'font-family="Helvetica, Arial, sans-serif" font-size="14" text-anchor="middle">',
        f'<rect width="{_WIDTH}" height="{height}" rx="8" fill="#ffffff"/>',
    ]
    inner = _WIDTH - 2 * _MARGIN
    for number, rooms in enumerate(rows):
        top = _MARGIN + number * _ROW
        width = (inner - (len(rooms) - 1) * _GAP) / len(rooms)
        for place, room in enumerate(rooms):
            left = _MARGIN + place * (width + _GAP)
            fill, line = _PURE if room in pure else _PLAIN
            lines += [
                f'<rect x="{left:.1f}" y="{top}" width="{width:.1f}" height="{_BOX}" rx="5" fill="{fill}" '
                f'stroke="{line}"/>',
                f'<text x="{left + width / 2:.1f}" y="{top + 20}" fill="#1c2430">{room}</text>',
            ]
    note = "A room may import the rooms below it. Green rooms import neither Ray nor MLflow."
    lines += [f'<text x="{_WIDTH / 2}" y="{height - 18}" fill="#55606e" font-size="12">{note}</text>', "</svg>"]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    PICTURE.write_text(draw(), encoding="utf-8")
