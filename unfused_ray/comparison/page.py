"""The results table as Markdown, JSON and a figure."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from unfused_ray import storage
from unfused_ray.comparison.counting import has_validation_clips, published_tasks
from unfused_ray.comparison.freeze import plan_hash
from unfused_ray.comparison.results import ResultsRow, ResultsTable, TestedDifference
from unfused_ray.config import MEAN
from unfused_ray.evaluation.bootstrap import Interval
from unfused_ray.evaluation.cells import MEASURES
from unfused_ray.evaluation.protocol import FILE
from unfused_ray.evaluation.systems import RandomNetwork
from unfused_ray.evaluation.table import IN_WORDS, MARKDOWN, NOT_CORRECTED, TABLE, costs, markdown, plain
from unfused_ray.figures.accuracies import draw_by_operations, draw_by_parameters
from unfused_ray.figures.canvas import save
from unfused_ray.retrieval.leakage import by_finding

FORMAT_VERSION = 3
"""Version of the table's JSON (3: gaps have intervals)."""
FILES = (MARKDOWN, TABLE, "accuracy_by_parameters.png", "accuracy_by_tflop.png")
AGAINST = "against.json"
"""File with the numbers of a table that shows differences from another row than the plan's reference."""
_NAMED = 6
"""Largest number of tasks that a title names; a longer list is counted."""
_AS_PRINTED = Path(__file__).with_name("as_printed.toml")


def write(results: ResultsTable, output: str) -> None:
    """Write ``FILES`` and the protocol to a folder."""
    markdown, numbers, *pictures = (storage.join(output, file) for file in FILES)
    storage.write_bytes(storage.join(output, FILE), results.evaluation.protocol.text)
    storage.write_json(numbers, to_json(results), FORMAT_VERSION)
    for figure, picture in zip((by_parameters(results), by_tflop(results)), pictures, strict=True):
        save(figure, picture)
    storage.write_bytes(markdown, to_markdown(results).encode())


def write_against(results: ResultsTable, output: str) -> None:
    """Write ``AGAINST`` to a folder."""
    storage.write_json(storage.join(output, AGAINST), to_json(results), FORMAT_VERSION)


def to_json(results: ResultsTable) -> dict[str, Any]:
    """Return all numbers, accuracies as shares of 1; null for unknown ones."""
    return {
        "plan": results.plan.model_dump(mode="json"),
        "plan_sha256": plan_hash(results.plan),
        "protocol_sha256": results.evaluation.protocol.sha256,
        "reference": results.reference,
        "counting": list(results.counting),
        "anchors": [plain(each) for each in results.anchors],
        "comparisons": [plain(each) for each in results.comparisons],
        "rows": [plain(row) for row in results.rows],
    }


def to_markdown(results: ResultsTable) -> str:
    """Return the headlines, measures by task, differences, the details behind them, and the paper's own numbers
    apart."""
    rows = [_summary(row) for row in results.rows]
    first = ["system", "parameters", "M multiply–adds / s", "TFLOP", "epochs", "seeds"]
    parts = [markdown([*first, "headline", "gap closed", "gap to published", *MEASURES[1:], "validation"], rows)]
    tasks = results.table.headings
    for measure in MEASURES:
        rows = [[line.row.name, *(line.row.accuracy[measure][task].text() for task in tasks)] for line in results.rows]
        parts += [f"{IN_WORDS[measure]}:", markdown(["system", *tasks], rows)]
    if results.anchors:
        parts += ["Which tasks count, and why:", counting(results)]
    parts.append(differences(results))
    if results.comparisons:
        compared = [_comparison(each, results.headings) for each in results.comparisons]
        parts += [
            "Tested differences of the headline, in points:",
            markdown(["rows", *results.headings, "p", "p by Holm"], compared),
        ]
    parts += [results.table.details(), note(results)]
    if results.table.near_copies:
        parts.append(near_copies(results))
    return "\n\n".join([*parts, as_printed()]) + "\n"


def counting(results: ResultsTable) -> str:
    """Name the anchor that is highest above random networks on each task, by measure; in bold if the task counts."""
    rows = []
    for task in results.table.tasks:
        cells = []
        for measure in MEASURES:
            of_cell = [each for each in results.anchors if (each.task, each.measure) == (task, measure)]
            if not of_cell:
                cells.append("not tested")
                continue
            best = max(of_cell, key=lambda each: each.difference.low)
            text = f"{best.anchor} {best.difference.text('+')}"
            cells.append(f"**{text}**" if best.is_above else text)
        rows.append([task, *cells])
    return markdown(["task", *MEASURES], rows)


def differences(results: ResultsTable) -> str:
    """Return every row's difference from the reference in the headline, on the tasks that count."""
    columns = results.headings
    rows = [_differences(row, columns) for row in results.rows if row.row.difference]
    heading = (
        f"Difference from {results.reference} in the headline, in points, on the same test clips ({NOT_CORRECTED}):"
    )
    return "\n\n".join([heading, markdown(["system", *columns], rows)])


def note(results: ResultsTable) -> str:
    """Return the text under the table."""
    plan, protocol = results.plan, results.evaluation.protocol
    budgets = [f"{plan.tflop.sources:g} on the sources"]
    budgets += [f"{plan.tflop.each_task:g} on each task"] if plan.tflop.each_task else []
    budgets += [f"{plan.tflop.all_tasks:g} on all tasks together"] if plan.tflop.all_tasks else []
    budgets += ["that of a row which has its own"] if any(system.tflop for system in plan.systems) else []
    sentences = [
        "Test clips in %, with 95 % intervals: paired bootstrap over groups of test clips, those of one name alike in "
        "all tasks, crossed with the seeds of a row, widened where groups or seeds are few",
        _counted(results),
        results.table.groups_note,
        "The interval of a row with one seed is of test clips alone",
        "Validation is the headline over all tasks on validation clips; rows may be chosen by it",
        "p tests the difference in the headline's mean over the tasks that count, by Student's t of Welch and "
        "Satterthwaite with the variances of the same draws; Holm's correction is for the "
        f"{len(plan.compare)} differences that the plan tests, those of single tasks are not corrected",
        "TFLOP are the 10¹² floating point operations of one pipeline's training: on the pre-training sources (a "
        "student's teacher and a start's weights included) + on the tasks, the sum of all networks. Counted are "
        "matrix products and convolutions of a training step, forward and backward, with all views, heads and momentum "
        "networks, and the pass that makes the first pseudo-labels; not decoding, log-mels, augmentation, k-means",
        f"Budgets: {', '.join(budgets)}, in whole epochs, without that pass",
        "Parameters and multiply–adds are those of the frozen encoder, of the largest where each task has its own",
        f"Plan {plan.name} with its recipes, SHA-256 {plan_hash(plan)}. Protocol {FILE}, SHA-256 {protocol.sha256}; "
        "both were recorded before this table read its first test clip; another table may have read the same clips "
        "before",
    ]
    there = {line.row.name for line in results.rows}
    if later := [" – ".join(pair) for pair in plan.compare if not set(pair) <= there]:
        sentences.append(f"Planned, but not there yet: {'; '.join(later)}")
    if plan.peers:
        names = ", ".join(peer.name for peer in plan.peers)
        sentences.append(f"Trained elsewhere, on other data and for longer than the budgets: {names}")
    if any(compared.single for compared in results.comparisons):
        sentences.append("¹ One network: interval and p are of test clips alone; another seed's network could differ")
    seeds = {row.row.name: row.seeds for row in results.rows}
    missing = {
        system.name: sorted(set(plan.seeds_of(system)) - set(seeds.get(system.name, ())))
        for system in plan.systems
        if set(plan.seeds_of(system)) > set(seeds.get(system.name, ()))
    }
    if plan.random_seeds and not any(isinstance(network, RandomNetwork) for network in results.evaluation.systems):
        sentences.append("Random networks are not evaluated yet")
    if missing:
        rows = "; ".join(f"{name}: {', '.join(map(str, absent))}" for name, absent in missing.items())
        sentences.append(f"Not finished, seeds still to come: {rows}")
    sentences += results.table.folds_note
    if results.table.num_folds and any(system.on == "all tasks" for system in plan.systems):
        sentences.append("A system on all tasks is not trained on those with folds, all of whose clips are tested")
    return ". ".join([*sentences, *results.table.flaws]) + "."


def near_copies(results: ResultsTable) -> str:
    """List test clips with a near-copy in a row's training data, one line per finding; tasks share equal lines."""
    lines = by_finding(results.table.near_copies, results.plan.tasks)
    return "\n".join(["Near-copies of test clips in training:\n", *(f"- {line}" for line in lines)])


def as_printed() -> str:
    """Return the paper's numbers, which are never beside ours."""
    printed = tomllib.loads(_AS_PRINTED.read_text(encoding="utf-8"))
    rows = [[name, *map(str, row)] for name, row in printed["accuracy"].items()]
    return "\n\n".join(["As printed:", markdown(["system", *printed["tasks"]], rows), printed["note"]])


def by_parameters(results: ResultsTable) -> Figure:
    """Draw the headline over the tasks that count against parameters."""
    found = {line.row.name: (line.row.parameters, line.counting) for line in results.rows if line.counting}
    return draw_by_parameters(_title(results), found)


def by_tflop(results: ResultsTable) -> Figure:
    """Draw the headline over the tasks that count against the operations of a whole pipeline."""
    curves: dict[str, list[tuple[float, Interval]]] = {}
    levels: dict[str, Interval] = {}
    for line in results.rows:
        name = line.row.name
        if line.counting and line.cost:
            curve = results.plan.system(name).curve or name
            curves.setdefault(curve, []).append((line.cost.sources_tflop + line.cost.tasks_tflop, line.counting))
        elif line.counting:
            levels[name] = line.counting
    return draw_by_operations(_title(results), curves, levels)


def _title(results: ResultsTable) -> str:
    tasks = results.counting
    counting = f"the {len(tasks)} tasks that count" if len(tasks) > _NAMED else ", ".join(tasks)
    return f"Headline (neighbours and few-shot) on {counting or 'no task: none counts'}"


def _counted(results: ResultsTable) -> str:
    if not results.anchors:
        reason = (
            f"{results.plan.random} and an anchor that can be tested are not evaluated yet"
            if results.plan.anchors
            else "no anchor is planned"
        )
        unknown = f"The headline is the mean over all tasks: {reason}, so it is not known which of them count."
        return (unknown + _untested_anchors(results)).removesuffix(".")  # the caller ends the last sentence
    counted = ", ".join(results.counting) or "none"
    published = ""
    published_names = [peer.name for peer in results.plan.peers]
    if tasks := published_tasks(results.plan.tasks, results.anchors, published_names):
        published = f"; to published, the best published encoder, on the tasks that count by these: {', '.join(tasks)}"
    return (
        f"The headline is the mean over the tasks that count: {counted}. Other means are over all tasks. A task "
        f"counts where an anchor is above {results.plan.random} on validation clips, by more than the interval."
        f"{_untested_anchors(results)} The gap is that between {results.plan.random} and the best anchor of each such "
        f"task; a row closes at most all of a task's{published}. Its interval is of the same samples, of these tasks "
        "and of the anchor that is best on all test clips of each; it is unknown where the gap could be zero"
    )


def _untested_anchors(results: ResultsTable) -> str:
    """Return a sentence on supervised anchors and the tasks whose labels they were trained on; "" if there are none."""
    rows = [line.row.name for line in results.rows]
    supervised = [name for name in results.plan.supervised if name in results.plan.anchors and name in rows]
    without = [task.name for task in results.evaluation.tasks if not has_validation_clips(task)]
    if not supervised or not without:
        return ""
    return (
        f" {', '.join(supervised)} is not tested on {', '.join(without)}, without validation clips: it was trained on "
        "the labels that would judge it."
    )


def _summary(line: ResultsRow) -> list[str]:
    row, cost = line.row, line.cost
    tflop = epochs = ""
    if cost:
        tflop = " + ".join(
            f"{part:.0f}" if part >= 10 else f"{part:.2g}" for part in (cost.sources_tflop, cost.tasks_tflop) if part
        )
        epochs = "–".join(str(end) for end in sorted({min(cost.epochs), max(cost.epochs)}))
    seeds = str(len(line.seeds) or (row.num_seeds if row.parameters else ""))
    headline = line.counting.text() if line.counting else "–"
    gaps = ["" if gap is None else _share(gap) for gap in (line.gap_closed, line.published_gap_closed)]
    means = [list(row.accuracy[measure].values())[-1].text() for measure in MEASURES[1:]]
    return [
        row.name,
        *costs(row),
        tflop,
        epochs,
        seeds,
        headline,
        *gaps,
        *means,
        f"{100 * line.validation_accuracy:.1f}",
    ]


def _differences(line: ResultsRow, columns: Sequence[str]) -> list[str]:
    of_tasks = line.row.difference["headline"]
    intervals = [line.counting_difference if column == MEAN else of_tasks[column] for column in columns]
    return [line.row.name, *(each.text("+") if each else "–" for each in intervals)]


def _comparison(compared: TestedDifference, columns: Sequence[str]) -> list[str]:
    intervals = (compared.difference[column] for column in columns)
    names = (name + "¹" * (name in compared.single) for name in (compared.first, compared.second))
    p_values = map(_p_value, (compared.p_value, compared.p_holm))
    return [" – ".join(names), *(each.text("+") for each in intervals), *p_values]


def _share(share: Interval) -> str:
    """Return a share of the gap in whole per cent, because its interval is wider than that."""
    ends = "–" if math.isnan(share.low) else f"{100 * share.low:.0f} … {100 * share.high:.0f}"
    return f"{100 * share.value:.0f} % ({ends})"


def _p_value(p: float) -> str:
    """Return a p for a table: below 0.001 it depends on tails of which a few hundred groups of clips say nothing."""
    return "–" if math.isnan(p) else "< 0.001" if p < 0.001 else f"{p:.2g}"
