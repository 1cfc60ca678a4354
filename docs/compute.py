"""Draws docs/pictures/compute.png, the headline against operations, from docs/tables: python docs/compute.py."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from unfused_ray.evaluation.bootstrap import Interval
from unfused_ray.figures.accuracies import draw_by_operations
from unfused_ray.figures.canvas import save

DOCS = Path(__file__).parent
PICTURE = DOCS / "pictures" / "compute.png"

_FIRST, _WITH_600, _STUDENTS, _LAST = "corpus", "corpus-600-tflop", "corpus-first-weights", "corpus-compute"
CURVES: dict[str, list[tuple[float, str, str]]] = {
    "DECAR-v2": [
        (66, _LAST, "DECAR-v2, 60 TFLOP (seed 0)"),
        (200, _WITH_600, "DECAR-v2"),
        (593, _WITH_600, "DECAR-v2, 600 TFLOP"),
        (593, _STUDENTS, "DECAR-v2, 600 TFLOP (seed 1)"),
        (593, "corpus-600-tflop-seed-2", "DECAR-v2 600"),
        (2010, _LAST, "DECAR-v2, 2,000 TFLOP (seed 0)"),
    ],
    "DeLoRes-M": [
        (56, _LAST, "DeLoRes-M, 60 TFLOP (seed 0)"),
        (207, _WITH_600, "DeLoRes-M"),
        (601, _WITH_600, "DeLoRes-M, 600 TFLOP"),
        (601, _LAST, "DeLoRes-M, 600 TFLOP (seed 1)"),
        (601, _LAST, "DeLoRes-M, 600 TFLOP (seed 2)"),
    ],
    "UnFuSeD student of DECAR-v2": [
        (405, _STUDENTS, "UnFuSeD, own first weights"),
        (792, _LAST, "UnFuSeD of DECAR-v2, 600 TFLOP (seed 2)"),
        (2209, _LAST, "UnFuSeD of DECAR-v2, 2,000 TFLOP (seed 0)"),
    ],
    "student of a random encoder": [(205, _STUDENTS, "student of a random encoder")],
    "student of shuffled labels": [(405, _WITH_600, "student of shuffled labels")],
    "BYOL-A": [
        (57, _LAST, "BYOL-A, 60 TFLOP (seed 0)"),
        (200, "corpus-200-tflop-byol-a", "BYOL-A"),
    ],
    "supervised, the student's shape": [(226, _FIRST, "supervised")],
}
"""Points by curve: 10¹² operations, and a row of a table."""
LEVELS = {
    "random, the encoder's shape": (_FIRST, "random fc2"),
    "random, the student's shape": (_FIRST, "random fc1"),
    "log-mel statistics": (_WITH_600, "log-mel statistics"),
}


def headline(table: str, name: str) -> Interval:
    """Return a row's mean over the tasks; tables of ``compare`` keep it one level lower than those of ``evaluate``."""
    rows: list[dict[str, Any]] = json.loads((DOCS / "tables" / f"{table}.json").read_bytes())["rows"]
    (row,) = [found for row in rows if (found := row.get("row", row))["name"] == name]
    return Interval(**row["accuracy"]["headline"]["mean"])


if __name__ == "__main__":
    curves = {curve: [(tflop, headline(*row)) for tflop, *row in points] for curve, points in CURVES.items()}
    levels = {name: headline(*row) for name, row in LEVELS.items()}
    figure = draw_by_operations("Headline (neighbours and few-shot) of 13 tasks, test clips", curves, levels)
    save(figure, str(PICTURE))
