"""The chapter of an evaluation: its table, its differences, and where the classifiers err."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from unfused_ray import storage
from unfused_ray.evaluation.evaluate import RECORD
from unfused_ray.evaluation.protocol import FILE
from unfused_ray.evaluation.rows import headings
from unfused_ray.figures.evaluation_figures import draw_confusion, draw_table
from unfused_ray.report.page import Cell, Chapter, Picture, Section, Table, settings
from unfused_ray.report.pictures import as_svg

KIND = "evaluation"
TABLE = "table.json"
_MAX_CLASSES = 64
"""Of a confusion matrix that can still be read."""
_NUM_CONFUSIONS = 12


def evaluation_chapter(uri: str) -> Chapter:
    """What the folder of an evaluation holds.

    Raises:
        FileNotFoundError: there is no table.
    """
    table = storage.read_json(storage.join(uri, TABLE))
    rows, tasks = table["rows"], table["tasks"]
    facts = {
        "systems": ", ".join(row["name"] for row in rows),
        "tasks": ", ".join(f"{task} ({table['num_groups'][task]:,} groups of test clips)" for task in tasks),
        "reference": table["reference"],
        "protocol": f"SHA-256 {table['protocol_sha256'][:16]}",
    }
    for name, heading in (("unconverged", "not converged"), ("damaged", "damaged clips")):
        if table[name]:
            facts[heading] = ", ".join(table[name])
    sections = [accuracies(table), *_confusions(uri, table)]
    path = storage.join(uri, RECORD)
    record = storage.read_json(path) if storage.exists(path) else {}  # older evaluations have none
    config = settings(record.get("config", {}))
    path = storage.join(uri, FILE)
    if storage.exists(path):
        config["protocol"] = storage.read_bytes(path).decode()
    return Chapter(storage.name(uri), KIND, uri, facts, sections, config, record.get("environment", {}))


def accuracies(table: Mapping[str, Any]) -> Section:
    """Test accuracies with their intervals, and differences from the reference, as tables and as a drawing."""
    rows, columns = table["rows"], headings(table["tasks"])
    values = {
        row["name"]: {task: _ends(row["accuracy"][task]) for task in columns if task in row["accuracy"]} for row in rows
    }
    best = max(rows, key=lambda row: row["accuracy"][columns[-1]]["value"])
    figure = draw_table("", [row["name"] for row in rows], columns, values)
    alt = (
        f"Test accuracy of {len(rows)} systems on {', '.join(table['tasks'])}, with 95 % intervals; the highest "
        f"{columns[-1]} is {100 * best['accuracy'][columns[-1]]['value']:.1f} %, of {best['name']}"
    )
    accuracy = Table(
        "Test accuracy in %, with 95 % intervals",
        ["system", "parameters", *columns],
        [
            [Cell(row["name"]), _count(row["parameters"]), *(percent(row["accuracy"].get(task)) for task in columns)]
            for row in rows
        ],
        "Paired bootstrap over groups of test clips, widened where groups are few.",
    )
    difference = Table(
        f"Difference from {table['reference']} in points, on the same test clips",
        ["system", *columns],
        [
            [Cell(row["name"]), *(percent(row["difference"].get(task), "+") for task in columns)]
            for row in rows
            if row["difference"]
        ],
        "Not corrected for the number of comparisons.",
    )
    tables = [each for each in (accuracy, difference) if each.rows]
    return Section("Accuracy", tables=tables, pictures=[Picture("", alt, as_svg(figure), width="full")])


def _confusions(uri: str, table: Mapping[str, Any]) -> list[Section]:
    """Of each task, where the reference errs and where the best row does; one section, folded away."""
    pictures, tables, missing = [], [], []
    for task in table["tasks"]:
        scored = {row["name"]: row["accuracy"][task]["value"] for row in table["rows"] if task in row["accuracy"]}
        best = max(scored, key=lambda name: scored[name])
        for name in dict.fromkeys((best, table["reference"])):
            path = storage.join(uri, task, f"{name.replace(' ', '-')}.json")
            if not storage.exists(path):
                missing.append(f"{name} on {task}")
                continue
            cell = storage.read_json(path)
            confusion_KK = np.sum([seed["scores"]["confusion"] for seed in cell["seeds"]], axis=0)
            heading = f"{task}: {name}{', the best row' if name == best else ''}"
            if len(cell["classes"]) <= _MAX_CLASSES:
                figure = draw_confusion("", confusion_KK, cell["classes"])
                alt = f"Confusion matrix of {name} on {task}. Most often: {_worst(confusion_KK, cell['classes'])}"
                pictures.append(Picture(heading, alt, as_svg(figure), f"accuracy {scored[name]:.1%}", width="half"))
            else:
                tables.append(_worst_table(heading, confusion_KK, cell["classes"]))
    text = ["Of each task, the best row and the reference; those of the other rows are pictures in the folder."]
    if missing:
        text.append(f"Their cells are not in the folder: {', '.join(missing)}.")
    return [Section("Where they err", text, tables, pictures)]


def most_confused(confusion_KK: np.ndarray, count: int) -> list[tuple[int, int, int]]:
    """The commonest errors as (true class, predicted class, clips), the commonest first; at most ``count``."""
    errors_KK = confusion_KK * (1 - np.eye(len(confusion_KK), dtype=confusion_KK.dtype))
    order = np.argsort(-errors_KK, axis=None, kind="stable")[:count]
    pairs = zip(*np.unravel_index(order, errors_KK.shape), strict=True)
    return [(int(true), int(found), int(errors_KK[true, found])) for true, found in pairs if errors_KK[true, found]]


def _worst(confusion_KK: np.ndarray, classes: Sequence[str]) -> str:
    worst = [f"{classes[true]} taken for {classes[found]} ({n})" for true, found, n in most_confused(confusion_KK, 3)]
    return ", ".join(worst) or "no error"


def _worst_table(heading: str, confusion_KK: np.ndarray, classes: Sequence[str]) -> Table:
    rows = [
        [Cell(classes[true]), Cell(classes[found]), Cell(f"{n:,}", n)]
        for true, found, n in most_confused(confusion_KK, _NUM_CONFUSIONS)
    ]
    note = f"The commonest errors; a matrix of {len(classes):,} classes could not be read."
    return Table(heading, ("true class", "taken for", "test clips"), rows, note)


def percent(interval: Mapping[str, float | None] | None, sign: str = "") -> Cell:
    """A share of 1 as per cent, with the ends of its interval where they are known."""
    if interval is None or interval["value"] is None:
        return Cell("–", -math.inf)
    low, high = interval["low"], interval["high"]
    ends = ""
    if low is not None and high is not None and math.isfinite(low):
        ends = f"{100 * low:{sign}.1f} to {100 * high:{sign}.1f}"
    return Cell(f"{100 * interval['value']:{sign}.1f}", interval["value"], ends)


def _ends(interval: Mapping[str, float | None]) -> tuple[float, float, float]:
    """An estimate as a drawing takes it; an unknown end is drawn at the estimate."""
    value = interval["value"] or 0.0
    low, high = interval["low"], interval["high"]
    return value, value if low is None else low, value if high is None else high


def _count(number: int | None) -> Cell:
    return Cell("–", -math.inf) if number is None else Cell(f"{number:,}", number)
