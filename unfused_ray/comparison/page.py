"""The table as Markdown, JSON and a figure."""

from __future__ import annotations

import json
import math
import tomllib
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from unfused_ray import storage
from unfused_ray.comparison.plan import plan_hash
from unfused_ray.comparison.results import Comparison, Line, Results
from unfused_ray.evaluation.protocol import FILE
from unfused_ray.evaluation.rows import headings, num_test_groups
from unfused_ray.evaluation.systems import RandomNetwork
from unfused_ray.evaluation.table import markdown_lines, percent, points
from unfused_ray.figures.run_figures import new_figure
from unfused_ray.figures.run_pictures import save

FILES = ("table.md", "table.json", "accuracy_by_parameters.png")
_AS_PRINTED = Path(__file__).with_name("as_printed.toml")
_MEAN = "mean"


def write(results: Results, output: str) -> None:
    """Write ``FILES`` and the protocol to a folder."""
    markdown, numbers, picture = (storage.join(output, file) for file in FILES)
    storage.write_bytes(storage.join(output, FILE), results.evaluation.protocol.text)
    storage.write_bytes(numbers, json.dumps(to_json(results), indent=1).encode())
    save(draw(results), picture)
    storage.write_bytes(markdown, to_markdown(results).encode())


def to_json(results: Results) -> dict[str, Any]:
    """All numbers, accuracies as shares of 1; null where one cannot be known."""
    return {
        "plan": results.plan.model_dump(mode="json"),
        "plan_sha256": plan_hash(results.plan),
        "protocol_sha256": results.evaluation.protocol.sha256,
        "reference": results.reference,
        "comparisons": [asdict(each, dict_factory=_known) for each in results.comparisons],
        "rows": [asdict(line, dict_factory=_known) for line in results.lines],
    }


def _known(items: list[tuple[str, Any]]) -> dict[str, Any]:
    return {name: None if isinstance(value, float) and math.isnan(value) else value for name, value in items}


def to_markdown(results: Results) -> str:
    """Accuracies, differences from the reference, what is behind them, and the paper's own numbers apart."""
    tasks = [task.name for task in results.evaluation.tasks]
    columns = list(headings(tasks))
    costs = ["parameters", "M multiply–adds / s", "TFLOP", "epochs", "seeds"]
    rows = [_accuracies(line, columns) for line in results.lines]
    parts = [
        "\n".join(markdown_lines(["system", *costs, *columns, *_natural(results), "validation"], rows)),
        differences(results),
    ]
    if results.comparisons:
        compared = [_comparison(each, columns) for each in results.comparisons]
        parts += [
            "Differences that are tested, in points:",
            "\n".join(markdown_lines(["rows", *columns, "p", "p by Holm"], compared)),
        ]
    return "\n\n".join([*parts, results.table.details(), note(results), as_printed()]) + "\n"


def differences(results: Results) -> str:
    """Every row's difference from the reference."""
    columns = list(headings([task.name for task in results.evaluation.tasks]))
    rows = [_differences(line, columns) for line in results.lines if line.row.difference]
    heading = (
        f"Difference from {results.reference}, in points, on the same test clips (not corrected for the number of "
        "comparisons):"
    )
    return "\n\n".join([heading, "\n".join(markdown_lines(["system", *columns, *_natural(results)], rows))])


def _natural(results: Results) -> list[str]:
    """Heading of the mean over the tasks that are not synthetic, where there are others."""
    synthetic = [task.name for task in results.evaluation.tasks if task.name in results.plan.synthetic]
    return [f"{_MEAN} without {' and '.join(synthetic)}"] if results.lines[0].natural else []


def note(results: Results) -> str:
    """What stands under the table."""
    plan, protocol = results.plan, results.evaluation.protocol
    groups = ", ".join(f"{task.name} {num_test_groups(task):,}" for task in results.evaluation.tasks)
    budgets = [f"{plan.tflop.sources:g} on the sources"]
    budgets += [f"{plan.tflop.each_task:g} on each task"] if plan.tflop.each_task else []
    budgets += [f"{plan.tflop.all_tasks:g} on all tasks together"] if plan.tflop.all_tasks else []
    sentences = [
        "Test accuracy in %, with 95 % intervals: paired bootstrap over groups of test clips with the seeds of a row "
        "nested, widened where groups or seeds are few",
        f"Groups of test clips: {groups}",
        "Of a row with one seed the interval is of test clips alone",
        "Validation is the mean over tasks on the clips that chose each readout and C, which rows may be chosen by",
        "p is of the difference in the mean over tasks, Student's t by Welch and Satterthwaite with the variances of "
        f"the same draws; Holm's correction is for the {len(plan.compare)} differences that the plan tests, those of "
        "single tasks are not corrected",
        "TFLOP are the 10¹² floating point operations of one pipeline's training: on the pre-training sources (a "
        "student's teacher and a start's weights included) + on the tasks, the sum of all networks. Counted are "
        "matrix products and convolutions of a training step, forward and backward, with all views, heads and momentum "
        "networks, and the pass that makes the first pseudo-labels; not decoding, log-mels, augmentation, k-means",
        f"Budgets: {', '.join(budgets)}, in whole epochs, without that pass",
        "Parameters and multiply–adds are those of the frozen encoder, of the largest where each task has its own",
        f"Plan {plan.name} with its recipes, SHA-256 {plan_hash(plan)}. Protocol {FILE}, SHA-256 {protocol.sha256}; "
        "both were recorded before this table read its first test clip",
    ]
    made = {(compared.first, compared.second) for compared in results.comparisons}
    if later := [" – ".join(pair) for pair in plan.compare if pair not in made]:
        sentences.append(f"Planned, but not there yet: {'; '.join(later)}")
    if any(compared.single for compared in results.comparisons):
        sentences.append("¹ One training: p takes it as it is, another seed's network could differ")
    missing = {
        system.name: missed
        for system in plan.systems
        if (
            missed := set(plan.seeds)
            - {seed for line in results.lines if line.row.name == system.name for seed in line.seeds}
        )
    }
    if plan.random_seeds and not any(isinstance(network, RandomNetwork) for network in results.evaluation.systems):
        sentences.append("Random networks are still to be read")
    if missing:
        rows = "; ".join(f"{name}: {', '.join(map(str, sorted(seeds)))}" for name, seeds in missing.items())
        sentences.append(f"Not finished, seeds still to come: {rows}")
    if folds := results.table.num_folds:
        sentences.append(f"Mean of folds, each tested once: {', '.join(f'{task} {n}' for task, n in folds.items())}")
        if any(system.on == "all tasks" for system in plan.systems):
            sentences.append(
                "A system trained on all tasks hears none of those with folds: each of their clips is tested"
            )
    return ". ".join([*sentences, *results.table.flaws]) + "."


def as_printed() -> str:
    """The paper's numbers, which stand beside none of ours."""
    printed = tomllib.loads(_AS_PRINTED.read_text())
    lines = markdown_lines(
        ["system", *printed["tasks"]], [[name, *map(str, row)] for name, row in printed["accuracy"].items()]
    )
    return "\n".join(["As printed:", "", *lines, "", printed["note"]])


def draw(results: Results) -> Figure:
    """Mean accuracy against parameters, on a logarithmic axis, with 95 % intervals; a dashed line without network."""
    (heading,) = list(headings([task.name for task in results.evaluation.tasks]))[-1:]
    figure = new_figure(f"Linear evaluation: {heading} accuracy against parameters", 10.0, 6.5)
    axis = figure.add_subplot()
    best_first = sorted(results.lines, key=lambda line: -line.row.accuracy[heading].value)
    for place, line in enumerate(best_first):
        found, colour = line.row.accuracy[heading], f"C{place % 10}"
        label = f"{line.row.name}: {100 * found.value:.1f}"
        if line.row.parameters is None:
            axis.axhline(100 * found.value, color="0.6", linestyle="--", label=label)
            continue
        # Rows of one shape stand side by side, around their size.
        alike = [other for other in best_first if other.row.parameters == line.row.parameters]
        x = line.row.parameters * 1.04 ** (alike.index(line) - (len(alike) - 1) / 2)
        if not math.isnan(found.low):
            axis.plot([x, x], [100 * found.low, 100 * found.high], color=colour, alpha=0.4, linewidth=2)
        axis.plot([x], [100 * found.value], "os^D"[place // 10 % 4], color=colour, label=label)
    axis.set_xscale("log")
    sizes = sorted({line.row.parameters for line in results.lines if line.row.parameters})
    axis.set_xticks(sizes, [f"{size / 1e6:.3g} M" for size in sizes])
    axis.set_xticks([], minor=True)
    axis.set_xlabel("parameters of the frozen encoder (rows of one size are set a little apart)")
    axis.set_ylabel("test accuracy in %")
    axis.grid(color="0.92")
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False, fontsize=9)
    return figure


def _accuracies(line: Line, columns: Sequence[str]) -> list[str]:
    row, cost = line.row, line.cost
    size = f"{row.parameters:,}" if row.parameters else ""
    work = f"{row.multiply_adds / 1e6:,.0f}" if row.multiply_adds else ""
    tflop = epochs = ""
    if cost:
        tflop = " + ".join(
            f"{part:.0f}" if part >= 10 else f"{part:.2g}" for part in (cost.sources_tflop, cost.tasks_tflop) if part
        )
        epochs = "–".join(str(end) for end in sorted({min(cost.epochs), max(cost.epochs)}))
    seeds = str(len(line.seeds) or (row.num_seeds if row.parameters else ""))
    intervals = [row.accuracy[column] for column in columns] + ([line.natural] if line.natural else [])
    validation = f"{100 * line.validation_accuracy:.1f}"
    return [row.name, size, work, tflop, epochs, seeds, *map(percent, intervals), validation]


def _differences(line: Line, columns: Sequence[str]) -> list[str]:
    intervals = [line.row.difference[column] for column in columns]
    intervals += [line.natural_difference] if line.natural_difference else []
    return [line.row.name, *map(points, intervals)]


def _comparison(compared: Comparison, columns: Sequence[str]) -> list[str]:
    intervals = (compared.difference[column] for column in columns)
    names = (name + "¹" * (name in compared.single) for name in (compared.first, compared.second))
    return [" – ".join(names), *map(points, intervals), *map(_p_value, (compared.p_value, compared.p_holm))]


def _p_value(p: float) -> str:
    return "–" if math.isnan(p) else f"{p:.2g}"
