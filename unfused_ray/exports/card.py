"""Writes the model card of an export from its run and an evaluation."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any

import jinja2

from unfused_ray import storage
from unfused_ray.config import ExportConfig
from unfused_ray.data.shards.format import Manifest
from unfused_ray.evaluation.cells import MEASURES
from unfused_ray.evaluation.systems import LogMelStatistics
from unfused_ray.evaluation.table import IN_WORDS, RECORD, EvaluationTable, markdown
from unfused_ray.exports.agreement import Agreement
from unfused_ray.models.cost import multiply_adds, num_parameters
from unfused_ray.models.export import find_export, read_description
from unfused_ray.models.frozen import FrozenEncoder
from unfused_ray.runs.reader import RunReader, seconds_of
from unfused_ray.runs.run import is_run
from unfused_ray.runs.start_times import read_arithmetic

_LABELS = {
    "teacher": "clusters of its teacher's vectors",
    "random": "clusters of a random encoder's vectors",
    "shuffled": "clusters of its teacher's vectors, dealt out at random",
    "true": "the classes of the clips",
}
"""Description of a distillation's labels, by their origin."""


@dataclass(frozen=True)
class CardResults:
    """Rows of an evaluation that the card shows."""

    table: EvaluationTable
    row: str
    """Name of the encoder's row."""
    tasks: tuple[str, ...]
    """Tasks on which the encoder was scored in that row."""

    def markdown(self) -> str:
        """Return the rows of the encoder and of the untrained systems, by task and measure."""
        trained = {margin.row: margin.random for margin in self.table.margins}
        shown = (LogMelStatistics.name, trained.get(self.row), self.row)
        rows = []
        for task in self.tasks:
            for row in self.table.rows:
                if row.name in shown:
                    name = f"**{row.name}**" if row.name == self.row else row.name
                    rows.append([task, name, *(row.accuracy[measure][task].text() for measure in MEASURES)])
        head, line, *body = markdown(["task", "system", *MEASURES], rows).splitlines()
        return "\n".join([head, line.replace("|---|--:|", "|---|---|"), *body])

    def limits(self) -> list[str]:
        """Return sentences on what the numbers do not show."""
        groups = ", ".join(f"{self.table.num_groups[task]:,} on {task}" for task in self.tasks)
        return [
            "The row is one training: its intervals are of other test clips, not of another training.",
            f"Groups of test clips: {groups}; where there are few, an interval is wide and rough.",
            self._margin(),
            "Rows are read with log-mels normalised by each task's own statistics; these weights carry those of their "
            "training.",
            "Other kinds of recordings, other microphones and noise were not tested.",
            f"Protocol {self.table.protocol_sha256[:16]}.",
            *(f"{each}." for each in self.table.reading_notes),
        ]

    def _margin(self) -> str:
        """Return a sentence on the difference from random networks."""
        mine = next((margin for margin in self.table.margins if margin.row == self.row), None)
        if mine is None:
            return "No random network of the same shape was evaluated beside it."
        if self.tasks != self.table.tasks:  # the row has other networks for the other tasks
            return (
                f"It is not tested here whether this network is above random ones: the table tests {self.row} on "
                f"{', '.join(self.table.tasks)} together, with a network for each."
            )
        return f"Over the test clips of all tasks together, {mine.text}: an interval with 0 in it shows nothing."


def find_results(evaluation: str, description: Mapping[str, Any]) -> CardResults:
    """Find the row of an encoder in an evaluation, by its weights.

    Args:
        evaluation: folder of the evaluation.
        description: description of the encoder's own export.

    Raises:
        FileNotFoundError: there is no evaluation.
        ValueError: the evaluation has no row of these weights, or was written by another version.
    """
    table, own = EvaluationTable.load(evaluation), [description["sha256"]]
    for row, encoders in storage.read_json(storage.join(evaluation, RECORD)).get("encoders", {}).items():
        if tasks := tuple(task for task in table.tasks if encoders.get(task) == own):
            return CardResults(table, row, tasks)
    raise ValueError(
        f"evaluation={evaluation} has no row for the present weights of {description['folder']} ({own[0][:12]}); its "
        f"rows are {', '.join(row.name for row in table.rows)}. Evaluate the encoder again, and name that folder"
    )


def write(
    config: ExportConfig,
    encoder: FrozenEncoder,
    description: Mapping[str, Any],
    results: CardResults | None,
    check: Agreement,
) -> bytes:
    """Return the card as Markdown, with the hub's metadata at its top."""
    front_end = encoder.log_mel.config
    training = description["extra"].get("config", {})
    template = jinja2.Environment(undefined=jinja2.StrictUndefined, trim_blocks=True, autoescape=False).from_string(
        (resources.files(__package__) / "card.md.j2").read_text()
    )
    text = template.render(
        name=training.get("name") or storage.name(config.output),
        method=description["extra"].get("method", "unknown"),
        place=storage.name(config.output),
        dim=encoder.output_dim,
        parameters=num_parameters(encoder.encoder),
        multiply_adds=multiply_adds(encoder.encoder, front_end),
        sample_rate=front_end.sample_rate,
        hop_ms=encoder.frame_hop_ms,
        first_ms=encoder.frame_first_ms,
        shortest_seconds=encoder.shortest / front_end.sample_rate,
        tiles=encoder.crop.short_clips == "tile",
        licence=config.licence,
        training=_training(config, description),
        results=results.markdown() if results else "",
        measures=[IN_WORDS[measure] for measure in MEASURES],
        limits_of_results=results.limits() if results else [],
        origin=training.get("labels", {}).get("origin", ""),
        check=check,
        sha256=description["sha256"],
    )
    return f"{text.rstrip()}\n".encode()


def _training(config: ExportConfig, description: Mapping[str, Any]) -> dict[str, str]:
    """Return facts of the training in words, as far as its run is available."""
    extra = description["extra"]
    training = extra.get("config", {})
    facts = {"method": extra.get("method", "unknown")}
    if training:
        facts["data"] = "; ".join(_data(uri, training["splits"]) for uri in training["data"])
        facts |= _beginnings(training)
        epochs = extra.get("run_epochs", extra.get("epochs", training["epochs"]))
        facts["epochs"] = f"{epochs}, seed {training['seed']}"
        if seen := extra.get("watched"):
            facts["chosen"] = (
                f"after {extra['epochs']} of {epochs} epochs, by {seen['measure']} on labelled validation clips of "
                f"{', '.join(seen['tasks'])} ({seen['accuracy']:.1%}; random networks {seen['random']:.1%})"
            )
    facts["licence of the weights"] = config.licence or "not stated: ask whoever publishes them"
    facts["licence of the recordings"] = config.data_licence or "not stated"
    run = storage.parent(description["folder"])
    if is_run(run):
        reader = RunReader(run)
        seconds = seconds_of(reader.history())
        others = {"teacher": "its teacher", "began with": "the run it began with"}
        without = " and ".join(name for fact, name in others.items() if fact in facts)
        only = f", without {without}" if without else ""
        facts["begun"] = time.strftime("%Y-%m-%d", time.gmtime(reader.created))
        facts["compute"] = f"{seconds / 60:.1f} minutes{only}; {reader.environment.get('machine', 'machine unknown')}"
        facts["precision"] = read_arithmetic(run) or "not kept"
        versions = [
            f"{name} {reader.environment[name]}" for name in ("unfused-ray", "torch") if name in reader.environment
        ]
        facts["versions"] = ", ".join([*versions, f"commit {reader.environment.get('commit', 'unknown')}"])
        if reader.earlier:
            facts["versions"] += f"; the run was begun or continued before with {reader.earlier}"
    else:
        facts["compute"] = "unknown: the run is not beside its export"
    return facts


def _beginnings(training: Mapping[str, Any]) -> dict[str, str]:
    """Return the labels of a distillation, the teacher if they come from it, and the run that gave initial weights."""
    facts = {}
    if labels := training.get("labels"):
        facts["labels"] = _LABELS[labels["origin"]]
        if labels["origin"] in ("teacher", "shuffled"):
            facts["teacher"] = _other(training["teacher"])
    if training.get("fork"):
        facts["branched from"] = _other(training["fork"])
    elif training.get("init_from"):
        facts["began with"] = _other(training["init_from"])
    return facts


def _other(uri: str) -> str:
    """Return name, method and data of another run, as far as its export is still there."""
    if find_export(uri) is None:
        return f"{storage.name(uri)}, which is not there any more"
    extra = read_description(uri)["extra"]
    training = extra.get("config", {})
    data = "; ".join(_data(source, training["splits"]) for source in training.get("data", ()))
    name, method = training.get("name", storage.name(uri)), extra.get("method", "method unknown")
    return f"{name}, {method}, on {data or 'unknown data'}"


def _data(uri: str, splits: list[str]) -> str:
    """Return name, clips and hours of a prepared source, in the splits that were trained on."""
    try:
        manifest = Manifest.load(uri)
        training = manifest.select([split for split in splits if split in manifest.clips_by_split])
    except (FileNotFoundError, ValueError):
        return f"{storage.name(uri)}, whose shards are not there any more"
    return f"{storage.name(uri)}, {training.num_clips:,} clips, {training.seconds / 3600:.2f} hours"
