"""The chapter of a sweep: its trials as a table and as drawings, and its winner on the test split."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from pydantic import ValidationError

from unfused_ray import storage
from unfused_ray.config import SweepConfig, explain
from unfused_ray.evaluation.protocol import BootstrapConfig, load_protocol
from unfused_ray.evaluation.table import TABLE, EvaluationTable
from unfused_ray.figures.sweep import (
    MIN_SURFACE,
    Parameter,
    ScoredTrials,
    draw_importance,
    draw_parallel,
    draw_parameter_map,
    surface,
)
from unfused_ray.report.evaluation import UNKNOWN, accuracies, percent
from unfused_ray.report.page import Chapter, PageCell, PageTable, Picture, Section, chart, settings
from unfused_ray.report.parameters import comparable, importances, parameters_of
from unfused_ray.runs.environment import earlier_in_words
from unfused_ray.sweeps.plan import read_sweep
from unfused_ray.sweeps.result import Ranked, rank, short
from unfused_ray.sweeps.space import apply
from unfused_ray.sweeps.trial import Record, read_records

KIND = "sweep"
_PREFERRED = ("method.alpha", "method.beta")
"""Parameters of the map, if a sweep varies both of them."""
_FEW = 10
"""Number of trials per parameter below which an importance means little."""


def sweep_chapter(uri: str) -> Chapter:
    """Make the chapter of a sweep's folder.

    Raises:
        FileNotFoundError: there is no sweep.
        ValueError: the sweep has another version.
    """
    record = read_sweep(uri)
    try:
        config = SweepConfig.model_validate(record["config"])
    except ValidationError as error:
        raise ValueError(f"{uri} has settings of another version:\n{explain(error)}") from error
    records = read_records(uri)
    states = [each.state for each in records]
    facts = {
        "trials": ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states)) or "none yet",
        "tasks": ", ".join(storage.name(task) for task in config.tasks),
        "judged by": f"{config.score} on {'folds of training and ' if len(config.tasks) == 1 else ''}validation clips",
        "teacher": config.distill.teacher,
        "search": f"{config.search}, seed {config.seed}"
        + (f"; early stopping keeps 1 of {config.halving}" if config.early_stopping else ""),
        "time": f"{sum(each.seconds for each in records) / 60:.1f} min of training and scoring, over all trials",
    }
    if earlier := earlier_in_words(record):
        facts["earlier environments"] = earlier
    sections = _sections(config, records, record) if records else [Section("Trials", ["No trial has begun."])]
    environment = {**record["environment"], **settings(record["facts"])}
    folder = storage.join(uri, "table")
    if storage.exists(storage.join(folder, TABLE)):
        found = accuracies(EvaluationTable.load(folder))
        text = "The winner was trained anew, with a seed other than in the search; the test split was read once."
        sections.append(replace(found, heading="The winner on the test split", paragraphs=[text, *found.paragraphs]))
    return Chapter(config.name, KIND, uri, facts, sections, settings(record["config"]), environment)


def _sections(config: SweepConfig, records: Sequence[Record], record: Mapping[str, Any]) -> list[Section]:
    default = next((each.id for each in records if is_default(config, each)), "")
    bootstrap, remark = _bootstrap(config, record["facts"]["protocol"])
    ranked = rank(records, default, bootstrap)
    marks = {default: "default"} if default else {}
    if ranked:
        best = ranked[0].record.id
        marks[best] = "default, winner" if best == default else "winner"
    parameters = parameters_of(records, record["space"])
    sections = [Section("Trials", [_read(ranked) + remark], [_table(records, ranked, parameters, marks)])]
    scored = comparable(records)
    if scored is not None:
        sections.insert(0, _drawings(scored, len(records), parameters, marks))
    return sections


def _bootstrap(config: SweepConfig, sha256: str) -> tuple[BootstrapConfig, str]:
    """Return the bootstrap settings of the sweep's protocol; if that file has changed, this version's with a remark."""
    try:
        protocol = load_protocol(config.protocol)
    except (OSError, ValueError):
        protocol = None
    if protocol is not None and protocol.sha256 == sha256:
        return protocol.config.bootstrap, ""
    own = load_protocol().config.bootstrap
    return own, (
        " The sweep's protocol is missing or has changed: these intervals are by the bootstrap of this version's own, "
        f"{own.replicates:,} replicates with seed {own.seed}; accuracies are as they were scored."
    )


def is_default(config: SweepConfig, record: Record) -> bool:
    """Return True for a trial with exactly the settings of the sweep's distillation."""
    return apply(config.distill, record.point) == config.distill


def _drawings(scored: ScoredTrials, num_trials: int, parameters: Sequence[Parameter], marks: dict[str, str]) -> Section:
    shares = importances(scored, parameters)
    text = f"{len(scored.ids)} of {num_trials} trials, with their scores after epoch {scored.epoch}"
    if len(scored.ids) < num_trials:
        text += ": the others were not scored then, and accuracies after different epochs cannot be compared"
    varied = [p for p in parameters if len(set(map(str, scored.values(p)))) > 1]
    pictures = []
    if len(varied) > 1:
        x, y = _axes(varied, list(shares))
        figure = draw_parameter_map(scored, x, y, marks)
        filled = surface(scored.places((x, y)), (x, y)) is not None
        note = "interpolated between neighbouring trials" if filled else f"no surface: fewer than {MIN_SURFACE} trials"
        if not filled and len(scored.ids) >= MIN_SURFACE:
            note = "no surface: the trials do not cover an area"
        heading, alt = f"{x.label}–{y.label} map", _in_words(scored, (x, y), marks)
        pictures.append(Picture(heading, alt, chart(figure), note, width="two-thirds"))
    if shares:
        alt = "Importance: " + ", ".join(f"{name} {share:.0%}" for name, share in shares.items())
        note = f"functional ANOVA over a random forest (Optuna), {len(scored.ids)} trials"
        if len(scored.ids) < _FEW * len(varied):
            note += ": with so few it means little"
        pictures.append(Picture("Importance of each parameter", alt, chart(draw_importance(shares, parameters)), note))
    figure = draw_parallel(scored, parameters, marks)
    alt = f"A line for each of {len(scored.ids)} trials over its parameters to its accuracy"
    pictures.append(Picture("Parallel coordinates", alt, chart(figure), "a line is a trial", width="full"))
    return Section("Parameters and scores", [f"{text}."], pictures=pictures)


def _axes(varied: Sequence[Parameter], by_importance: Sequence[str]) -> tuple[Parameter, Parameter]:
    """Return the parameters of the map: α and β if both vary, else the two most important."""
    named = {parameter.name: parameter for parameter in varied}
    first, second = [*by_importance, *(name for name in named if name not in by_importance)][:2]
    return (
        (named[_PREFERRED[0]], named[_PREFERRED[1]])
        if set(_PREFERRED) <= named.keys()
        else (named[first], named[second])
    )


def _in_words(scored: ScoredTrials, parameters: Sequence[Parameter], marks: dict[str, str]) -> str:
    """Describe the map: its marked trials, and the range of all."""
    low, high = scored.accuracies.min(), scored.accuracies.max()
    text = f"Mean score on validation clips of {len(scored.ids)} trials, {low:.1%} to {high:.1%}"
    for trial, point, accuracy in zip(scored.ids, scored.points, scored.accuracies.tolist(), strict=True):
        if trial in marks:
            values = ", ".join(f"{p.label} {short(point[p.name])}" for p in parameters)
            text += f"; {marks[trial]}: {accuracy:.1%} at {values}"
    return text


def _read(ranked: Sequence[Ranked]) -> str:
    """Return a paragraph on how to read the table."""
    if not ranked:
        return "No trial has been trained to its end."
    return (
        "Mean score on validation clips in %, with 95 % intervals over groups of held-out clips; differences are from "
        "the default trial on the same clips. The best of many trials looks too good: only the test split shows its "
        "worth. Trials that were stopped early have the accuracy of their last epoch."
    )


def _table(
    records: Sequence[Record], ranked: Sequence[Ranked], parameters: Sequence[Parameter], marks: dict[str, str]
) -> PageTable:
    places = {each.record.id: each for each in ranked}
    order = sorted(records, key=lambda each: (each.state != "finished", -each.accuracy if each.rungs else math.inf))
    rows = []
    for record in order:
        found = places.get(record.id)
        name = f"{record.id} ({marks[record.id]})" if record.id in marks else record.id
        point = [_value(record.point[parameter.name]) for parameter in parameters]
        accuracy = change = UNKNOWN
        if record.rungs:
            accuracy = PageCell(f"{100 * record.accuracy:.1f}", record.accuracy)
        if found:
            accuracy = percent(found.accuracy)
        if found and found.difference:
            change = percent(found.difference, "+")
        epoch = record.rungs[-1].epoch if record.rungs else 0
        last = (
            PageCell(str(epoch), epoch),
            PageCell(record.state, detail=record.message),
            PageCell(f"{record.seconds:.0f}", record.seconds),
        )
        rows.append([PageCell(name), *point, accuracy, change, *last])
    labels = [parameter.label for parameter in parameters]
    headings = ("trial", *labels, "accuracy", "from the default", "epochs", "state", "seconds")
    return PageTable("Trials, the best first", headings, rows)


def _value(value: object) -> PageCell:
    return PageCell(short(value), float(value) if isinstance(value, int | float) else None)
