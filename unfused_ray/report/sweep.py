"""The chapter of a sweep: its trials as a table and as drawings, and its winner on the test split."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from pydantic import ValidationError

from unfused_ray import storage
from unfused_ray.config import SweepConfig, explain
from unfused_ray.evaluation.protocol import load_protocol
from unfused_ray.report.evaluation import TABLE, accuracies, percent
from unfused_ray.report.page import Cell, Chapter, Picture, Section, Table, settings
from unfused_ray.report.parameters import Parameter, Scored, comparable, importances, parameters_of
from unfused_ray.report.pictures import as_svg
from unfused_ray.report.sweep_figures import MIN_SURFACE, draw_importance, draw_parallel, draw_parameter_map, surface
from unfused_ray.sweep.prepare import read_sweep
from unfused_ray.sweep.result import Ranked, rank
from unfused_ray.sweep.space import apply
from unfused_ray.sweep.trial import Record, read_records

KIND = "sweep"
_PREFERRED = ("method.alpha", "method.beta")
"""Parameters of the map, where a sweep varies both."""
_FEW = 10
"""Trials a parameter under which an importance means little."""


def sweep_chapter(uri: str) -> Chapter:
    """What the folder of a sweep holds.

    Raises:
        FileNotFoundError: there is no sweep.
        ValueError: it is of another version.
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
        "teacher": config.distill.teacher,
        "search": f"{config.search}, seed {config.seed}"
        + (f"; stopped early, 1 of {config.halving} goes on" if config.early_stopping else ""),
        "time": f"{sum(each.seconds for each in records) / 60:.1f} min of training and scoring, over all trials",
    }
    sections = [_nothing()] if not records else _sections(config, records, record["space"])
    environment = {**record["environment"], **settings(record["facts"])}
    path = storage.join(uri, "table", TABLE)
    if storage.exists(path):
        found = accuracies(storage.read_json(path))
        text = "The winner was trained anew, with another seed than it was chosen with; the test split was read once."
        sections.append(Section("The winner on the test split", [text], found.tables, found.pictures))
    return Chapter(config.name, KIND, uri, facts, sections, settings(record["config"]), environment)


def _nothing() -> Section:
    return Section("Trials", ["No trial has begun."])


def _sections(config: SweepConfig, records: Sequence[Record], space: Mapping[str, Any]) -> list[Section]:
    default = next((each.id for each in records if is_default(config, each)), "")
    # The package's bootstrap: the file of the protocol may be on another machine, and trials were scored already.
    ranked = rank(records, default, load_protocol().config.bootstrap)
    marks = {default: "default"} if default else {}
    if ranked:
        best = ranked[0].record.id
        marks[best] = "default, winner" if best == default else "winner"
    parameters = parameters_of(records, space)
    sections = [Section("Trials", [_read(ranked)], [_table(records, ranked, parameters, marks)])]
    scored = comparable(records)
    if scored is not None:
        sections.insert(0, _drawings(scored, len(records), parameters, marks))
    return sections


def is_default(config: SweepConfig, record: Record) -> bool:
    """Whether a trial has the settings that the sweep's distillation has itself."""
    return apply(config.distill, record.point) == config.distill


def _drawings(scored: Scored, num_trials: int, parameters: Sequence[Parameter], marks: dict[str, str]) -> Section:
    shares = importances(scored, parameters)
    text = f"{len(scored.records)} of {num_trials} trials, as they stood after epoch {scored.epoch}"
    if len(scored.records) < num_trials:
        text += ": the others were not scored then, and accuracies after different epochs do not compare"
    varied = [p for p in parameters if len(set(map(str, scored.values(p)))) > 1]
    pictures = []
    if len(varied) > 1:
        x, y = _axes(varied, list(shares))
        figure = draw_parameter_map(scored, x, y, marks)
        places = np.stack([x.places(scored.values(x)), y.places(scored.values(y))], axis=1)
        filled = surface(places, (x, y)) is not None
        note = "interpolated between neighbouring trials" if filled else f"no surface: fewer than {MIN_SURFACE} trials"
        if not filled and len(scored.records) >= MIN_SURFACE:
            note = "no surface: the trials do not cover an area"
        heading, alt = f"{x.label}–{y.label} map", _in_words(scored, (x, y), marks)
        pictures.append(Picture(heading, alt, as_svg(figure), note, width="two-thirds"))
    if shares:
        alt = "Importance: " + ", ".join(f"{name} {share:.0%}" for name, share in shares.items())
        note = f"functional ANOVA over a random forest (Optuna), {len(scored.records)} trials"
        if len(scored.records) < _FEW * len(varied):
            note += ": with so few it means little"
        pictures.append(Picture("Importance of each parameter", alt, as_svg(draw_importance(shares, parameters)), note))
    figure = draw_parallel(scored, parameters, marks)
    alt = f"A line for each of {len(scored.records)} trials over its parameters to its accuracy"
    pictures.append(Picture("Parallel coordinates", alt, as_svg(figure), "a line is a trial", width="full"))
    return Section("What the trials say", [f"{text}."], pictures=pictures)


def _axes(varied: Sequence[Parameter], by_importance: Sequence[str]) -> tuple[Parameter, Parameter]:
    """The parameters of the map: α and β where there are both, else the two that matter most."""
    named = {parameter.name: parameter for parameter in varied}
    first, second = [*by_importance, *(name for name in named if name not in by_importance)][:2]
    return (
        (named[_PREFERRED[0]], named[_PREFERRED[1]])
        if set(_PREFERRED) <= named.keys()
        else (named[first], named[second])
    )


def _in_words(scored: Scored, parameters: Sequence[Parameter], marks: dict[str, str]) -> str:
    """What the map shows: its marked trials, and the range of all."""
    low, high = scored.accuracies.min(), scored.accuracies.max()
    text = f"Mean validation accuracy of {len(scored.records)} trials, {low:.1%} to {high:.1%}"
    for record, accuracy in zip(scored.records, scored.accuracies.tolist(), strict=True):
        if record.id in marks:
            point = ", ".join(f"{p.label} {_short(record.point[p.name])}" for p in parameters)
            text += f"; {marks[record.id]}: {accuracy:.1%} at {point}"
    return text


def _read(ranked: Sequence[Ranked]) -> str:
    """How the table is to be read."""
    if not ranked:
        return "No trial has gone to its end."
    return (
        "Mean validation accuracy in %, with 95 % intervals over groups of held-out clips; differences are from the "
        "default trial on the same clips. The best of many trials is too good: only the test split says what it is "
        "worth. Trials that were stopped early have the accuracy of their last epoch."
    )


def _table(
    records: Sequence[Record], ranked: Sequence[Ranked], parameters: Sequence[Parameter], marks: dict[str, str]
) -> Table:
    places = {each.record.id: each for each in ranked}
    order = sorted(records, key=lambda each: (each.state != "finished", -each.accuracy if each.rungs else math.inf))
    rows = []
    for record in order:
        found = places.get(record.id)
        name = f"{record.id} ({marks[record.id]})" if record.id in marks else record.id
        point = [_value(record.point[parameter.name]) for parameter in parameters]
        accuracy = Cell("–", -math.inf)
        if record.rungs:
            accuracy = Cell(f"{100 * record.accuracy:.1f}", record.accuracy)
        if found:
            accuracy = percent(asdict(found.accuracy))
        change = Cell("–", -math.inf)
        if found and found.difference:
            change = percent(asdict(found.difference), "+")
        epoch = record.rungs[-1].epoch if record.rungs else 0
        seconds = Cell(f"{record.seconds:.0f}", record.seconds)
        rows.append([Cell(name), *point, accuracy, change, Cell(str(epoch), epoch), Cell(record.state), seconds])
    labels = [parameter.label for parameter in parameters]
    headings = ("trial", *labels, "accuracy", "from the default", "epochs", "state", "seconds")
    return Table("Trials, the best first", headings, rows)


def _value(value: object) -> Cell:
    return Cell(_short(value), float(value) if isinstance(value, int | float) else None)


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
