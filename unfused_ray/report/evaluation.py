"""Shows an evaluation as a chapter of a page (table, differences, errors of the classifiers), and in the terminal."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from typing import Literal

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table as TerminalTable
from rich.text import Text

from unfused_ray import storage
from unfused_ray.evaluation.bootstrap import Interval
from unfused_ray.evaluation.cells import MEASURES, read_content
from unfused_ray.evaluation.protocol import FILE
from unfused_ray.evaluation.systems import TrainedModel, parse_model
from unfused_ray.evaluation.table import (
    FORMAT_VERSION,
    IN_WORDS,
    MARKDOWN,
    NOT_CORRECTED,
    RECORD,
    EvaluationTable,
    costs,
)
from unfused_ray.figures.accuracies import draw_evaluation
from unfused_ray.figures.confusion import draw_confusion
from unfused_ray.figures.watched import of_models
from unfused_ray.report.nearest import nearest_to_hear
from unfused_ray.report.page import Chapter, PageCell, PageTable, Picture, Section, chart, settings
from unfused_ray.report.training import watched_section

KIND = "evaluation"
UNKNOWN = PageCell("–", -math.inf)
_MAX_CLASSES = 64
"""Largest number of classes for which a confusion matrix is readable."""
_NUM_CONFUSIONS = 12


def evaluation_chapter(uri: str) -> Chapter:
    """Make the chapter of an evaluation's folder.

    Raises:
        FileNotFoundError: there is no table.
        ValueError: the table has another version.
    """
    table = EvaluationTable.load(uri)
    facts = {
        "systems": ", ".join(row.name for row in table.rows),
        "tasks": ", ".join(f"{task} ({table.num_groups[task]:,} groups of test clips)" for task in table.tasks),
        "reference": table.reference,
        "protocol": f"SHA-256 {table.protocol_sha256[:16]}",
    }
    record = storage.read_json(storage.join(uri, RECORD), FORMAT_VERSION, "evaluate again")
    config = settings(record["config"]) | {"protocol": storage.read_bytes(storage.join(uri, FILE)).decode()}
    sections = [accuracies(table)]
    models = [model for text in record["config"]["models"] if isinstance(model := parse_model(text), TrainedModel)]
    if watched := of_models(models, table.tasks):
        sections.append(watched_section("While the models trained", watched))
    if record.get("asked"):  # newer than the format version
        sections.append(nearest_to_hear(uri, record))
    sections.append(_confusions(uri, table))
    return Chapter(storage.name(uri), KIND, uri, facts, sections, config, record["environment"])


def accuracies(table: EvaluationTable) -> Section:
    """Show test accuracies with intervals, and differences from the reference, as tables and as a drawing.

    The notes without which they must not be read are above them.
    """
    columns, last = table.headings, table.headings[-1]
    best = max(table.rows, key=lambda row: row.accuracy["headline"][last].value)
    alt = (
        f"Test clips that {len(table.rows)} systems classify correctly, on {', '.join(table.tasks)}, with 95 % "
        f"intervals; the highest headline is {best.accuracy['headline'][last].percent()} %, of {best.name}"
    )
    tables = [
        PageTable(
            f"By measure, {last}, in %, with 95 % intervals",
            ["system", "parameters", *MEASURES],
            [
                [
                    PageCell(row.name),
                    UNKNOWN if row.parameters is None else PageCell(f"{row.parameters:,}", row.parameters),
                    *(percent(row.accuracy[measure][last]) for measure in MEASURES),
                ]
                for row in table.rows
            ],
            "Paired bootstrap over groups of test clips, widened where groups are few.",
        )
    ]
    for measure in MEASURES:
        if len(columns) > 1:
            rows = [[PageCell(row.name), *(percent(row.accuracy[measure][h]) for h in columns)] for row in table.rows]
            tables.append(PageTable(f"{IN_WORDS[measure]}, in %", ["system", *columns], rows))
        compared = [
            [PageCell(row.name), *(percent(row.difference[measure][h], "+") for h in columns)]
            for row in table.rows
            if row.difference
        ]
        heading = f"{measure.capitalize()}: difference from {table.reference} in points, on the same test clips"
        tables.append(PageTable(heading, ["system", *columns], compared, f"{NOT_CORRECTED.capitalize()}."))
    picture = Picture("", alt, chart(draw_evaluation("", table)), width="full")
    notes = [f"{sentence}." for sentence in (*table.margin_notes, *table.reading_notes)]
    return Section("Accuracy", notes, tables=[each for each in tables if each.rows], pictures=[picture])


def _confusions(uri: str, table: EvaluationTable) -> Section:
    """Show the errors of the linear probe of the reference and of the best row, task by task."""
    pictures, tables, missing = [], [], []
    for task in table.tasks:
        scored = {row.name: row.accuracy["linear"][task].value for row in table.rows}
        best = max(scored, key=lambda name: scored[name])
        for name in dict.fromkeys((best, table.reference)):
            try:
                cell = read_content(uri, task, name)
            except FileNotFoundError:
                missing.append(f"{name} on {task}")
                continue
            confusion_KK = np.sum([seed["classes"]["confusion"] for seed in cell["seeds"]], axis=0)
            heading = f"{task}: {name}{', the best row' if name == best else ''}"
            if len(cell["classes"]) <= _MAX_CLASSES:
                source = chart(draw_confusion("", confusion_KK, cell["classes"]))
                alt = f"Confusion matrix of {name} on {task}. Most often: {_worst(confusion_KK, cell['classes'])}"
                pictures.append(Picture(heading, alt, source, f"linear: {scored[name]:.1%}", width="half"))
            else:
                tables.append(_worst_table(heading, confusion_KK, cell["classes"]))
    text = ["Confusions of the best row and of the reference on each task; pictures of other rows are in the folder."]
    if missing:
        text.append(f"Missing, because their results are not in the folder: {', '.join(missing)}.")
    return Section("Errors", text, tables, pictures)


def most_confused(confusion_KK: np.ndarray, count: int) -> list[tuple[int, int, int]]:
    """Return the most common errors as (true class, predicted class, clips), the most common first; at most
    ``count``."""
    errors_KK = confusion_KK * (1 - np.eye(len(confusion_KK), dtype=confusion_KK.dtype))
    order = np.argsort(-errors_KK, axis=None, kind="stable")[:count]
    pairs = zip(*np.unravel_index(order, errors_KK.shape), strict=True)
    return [(int(true), int(found), int(errors_KK[true, found])) for true, found in pairs if errors_KK[true, found]]


def _worst(confusion_KK: np.ndarray, classes: Sequence[str]) -> str:
    worst = [f"{classes[true]} taken for {classes[found]} ({n})" for true, found, n in most_confused(confusion_KK, 3)]
    return ", ".join(worst) or "no error"


def _worst_table(heading: str, confusion_KK: np.ndarray, classes: Sequence[str]) -> PageTable:
    rows = [
        [PageCell(classes[true]), PageCell(classes[found]), PageCell(f"{n:,}", n)]
        for true, found, n in most_confused(confusion_KK, _NUM_CONFUSIONS)
    ]
    note = f"The commonest errors; a matrix of {len(classes):,} classes would be unreadable."
    return PageTable(heading, ("true class", "taken for", "test clips"), rows, note)


def percent(interval: Interval, sign: Literal["", "+"] = "") -> PageCell:
    """Return a share of 1 in per cent, with the ends of its interval if they are known."""
    return PageCell(interval.percent(sign), interval.value, interval.ends(sign))


def evaluation_table(table: EvaluationTable, console: Console) -> TerminalTable:
    """Show an evaluation's accuracies; ▲ and ▼ mark differences whose interval excludes zero.

    If the terminal is too narrow, the table leaves out parameters and intervals; failing that, the single tasks;
    failing that, both.
    """
    shown = [
        _evaluation_table(table, full, headings)
        for headings in (table.headings, table.headings[-1:])
        for full in (True, False)
    ]
    unbounded = console.options.update(max_width=sys.maxsize)
    fits = (each for each in shown if console.measure(each, options=unbounded).maximum <= console.width)
    return next(fits, shown[-1])


def _evaluation_table(table: EvaluationTable, full: bool, headings: Sequence[str]) -> TerminalTable:
    is_whole = full and len(headings) == len(table.headings)
    under = [
        *table.margin_notes,
        f"▲ ▼ above, below {table.reference}: the 95 % interval of the difference excludes zero; {NOT_CORRECTED}",
        f"Test clips in %{', with 95 % intervals' if full else ''}. Each trained row is one training",
        *table.networks_note,
        *table.folds_note,
        f"{table.groups_note}. Protocol {table.protocol_sha256[:16]}",
        *table.near_copies,
        *table.flaws,
        f"Measures and intervals are explained in {MARKDOWN}"
        + ("" if is_whole else ", with the columns that this terminal is too narrow for"),
    ]
    caption = "\n".join(f"{sentence}." for sentence in under)
    shown = TerminalTable(box=box.HORIZONTALS, caption=caption, caption_justify="left")
    shown.add_column("system", overflow="fold")
    columns = [(measure, heading) for measure in MEASURES for heading in headings]
    names = [f"{measure}\n{heading}" if len(table.headings) > 1 else measure for measure, heading in columns]
    for name in (*(["parameters"] if full else []), *names):
        shown.add_column(name, justify="right", no_wrap=True)
    for row in table.rows:
        of_row = row.difference
        cells = [Text(f"{row.accuracy[m][h].percent()}{_mark(of_row[m][h] if of_row else None)}") for m, h in columns]
        if full:
            for (measure, heading), cell in zip(columns, cells, strict=True):
                cell.append(f"\n{row.accuracy[measure][heading].ends() or '–'}", "dim")
            cells.insert(0, Text(costs(row)[0]))
        shown.add_row(row.name, *cells)
    return shown


def _mark(difference: Interval | None) -> str:
    """Return the direction of a difference whose interval excludes zero, one column wide."""
    if difference is None:
        return " "
    return "▲" if difference.low > 0 else "▼" if difference.high < 0 else " "
