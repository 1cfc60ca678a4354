"""The table of an evaluation as data, as JSON and as Markdown."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from pydantic import TypeAdapter, ValidationError

from unfused_ray import storage
from unfused_ray.config import Measure
from unfused_ray.evaluation.cells import MEASURES, Cell
from unfused_ray.evaluation.embedders import EmbedderModel, is_onnx
from unfused_ray.evaluation.protocol import Protocol
from unfused_ray.evaluation.rows import Margin, Row, headings, margins, num_shared_groups, num_test_groups, score
from unfused_ray.evaluation.systems import System
from unfused_ray.evaluation.tasks import Task

FORMAT_VERSION = 2
"""Version of ``TABLE`` and ``RECORD``."""
TABLE = "table.json"
MARKDOWN = "table.md"
RECORD = "evaluation.json"
"""File with settings and environment of the table, beside it."""
FROZEN = "frozen.json"
"""File in the folder of a comparison, whose table joins those of several evaluations."""
IN_WORDS: Mapping[Measure, str] = {
    "headline": "Headline, the mean of neighbours and few-shot",
    "neighbours": "Neighbours, the share of the nearest training clips that have the clip's class",
    "few-shot": "Few-shot, a linear layer on a few labelled clips of each class, the mean of several draws",
    "linear": "Linear, a linear layer on all training clips",
}
"""Explanation of each measure; the protocol has the numbers."""
NOT_CORRECTED = "not corrected for the number of comparisons"


@dataclass(frozen=True)
class EvaluationTable:
    """Every system on every task."""

    tasks: tuple[str, ...]
    num_groups: dict[str, int]
    """Groups of test clips, by task."""
    rows: tuple[Row, ...]
    reference: str
    protocol_sha256: str
    unconverged: tuple[str, ...]
    """Cells with an unconverged chosen fit, as "row on task"."""
    damaged: tuple[str, ...]
    """Cells with damaged clips, as "row on task (clips)"."""
    num_folds: dict[str, int] = field(default_factory=dict)
    """Number of folds of each task that has folds."""
    margins: tuple[Margin, ...] = ()
    """Differences of trained rows from random networks of their shape."""
    shared: tuple[str, ...] = ()
    """Recordings in two splits of a task, as "task: 3 clips of test are in train too …"."""
    remarks: tuple[str, ...] = ()
    """Sentences on tasks whose clips are not all taken, or not independent, and on rows with other normalisation."""
    num_shared_groups: int = 0
    """Number of group names of test clips that occur in several tasks."""
    near_copies: tuple[str, ...] = ()
    """Test clips with a near-copy in a row's training data, as "task: 3 of 214 test clips have a near-copy …"."""

    @classmethod
    def of(
        cls,
        protocol: Protocol,
        tasks: Sequence[Task],
        systems: Sequence[System],
        cells: Mapping[tuple[str, str], Cell],
        reference: str,
        near_copies: Sequence[str] = (),
    ) -> Self:
        """Score all cells, given by (row, task), and keep the sentences on near-copies."""
        return cls(
            tasks=tuple(task.name for task in tasks),
            num_groups={task.name: num_test_groups(task) for task in tasks},
            rows=score(protocol.config.bootstrap, tasks, systems, cells, reference),
            reference=reference,
            protocol_sha256=protocol.sha256,
            unconverged=tuple(f"{row} on {task}" for (row, task), cell in cells.items() if not cell.converged),
            damaged=tuple(f"{row} on {task} ({cell.damaged:,})" for (row, task), cell in cells.items() if cell.damaged),
            num_folds={task.name: len(task.folds) for task in tasks if task.folds},
            margins=margins(protocol.config.bootstrap, tasks, systems, cells),
            shared=tuple(f"{task.name}: {pair.text}" for task in tasks for pair in task.shared),
            remarks=(*(remark for task in tasks for remark in task.remarks), *_of_onnx(systems)),
            num_shared_groups=num_shared_groups(tasks),
            near_copies=tuple(near_copies),
        )

    @classmethod
    def load(cls, folder: str) -> Self:
        """Read the table of an evaluation's folder.

        Raises:
            FileNotFoundError: there is no table.
            ValueError: the table is damaged or was written by another version, or the folder is that of a comparison.
        """
        refuse_comparison(folder)
        path = storage.join(folder, TABLE)
        raw = storage.read_json(path, FORMAT_VERSION, "evaluate again")
        try:
            found: Self = TypeAdapter(cls).validate_python(raw)
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(map(str, first["loc"]))
            raise ValueError(
                f"{path} is not as unfused-ray evaluate has written it ({error.error_count()} values are wrong or "
                f"missing; {field}: {first['msg']}): evaluate again"
            ) from error
        return found

    def save(self, folder: str) -> None:
        """Write ``MARKDOWN`` and ``TABLE``, which holds all numbers, accuracies as shares of 1."""
        storage.write_bytes(storage.join(folder, MARKDOWN), self.to_markdown().encode())
        storage.write_json(storage.join(folder, TABLE), plain(self), FORMAT_VERSION)

    @property
    def headings(self) -> tuple[str, ...]:
        """Tasks, followed by the mean if there are several."""
        return headings(self.tasks)

    def to_markdown(self) -> str:
        """Return the table as Markdown, in per cent: accuracies and differences by measure, choices, and any parts."""
        last = self.headings[-1]
        summary = [
            [row.name, *costs(row), *(row.accuracy[measure][last].text() for measure in MEASURES)] for row in self.rows
        ]
        parts = [markdown(["system", "parameters", "M multiply–adds / s", *MEASURES], summary)]
        if len(self.headings) > 1:
            for measure in MEASURES:
                rows = [[row.name, *(row.accuracy[measure][h].text() for h in self.headings)] for row in self.rows]
                parts += [f"{IN_WORDS[measure]}:", markdown(["system", *self.headings], rows)]
        for measure in MEASURES:
            rows = [
                [row.name, *(row.difference[measure][h].text("+") for h in self.headings)]
                for row in self.rows
                if row.difference
            ]
            title = f"{measure.capitalize()}: difference from {self.reference}, in points, on the same test clips"
            parts += [f"{title} ({NOT_CORRECTED}):", markdown(["system", *self.headings], rows)]
        return "\n\n".join([*parts, self.details(), "\n".join(f"- {sentence}." for sentence in self.notes)]) + "\n"

    def details(self) -> str:
        """Return the choices of validation and, if there are parts, their accuracies, as Markdown."""
        choices = [[row.name, *(_most_common(row.strengths[task]) for task in self.tasks)] for row in self.rows]
        tables = ["C of the linear probe, chosen on validation clips:", markdown(["system", *self.tasks], choices)]
        if parts := [(task, part) for task, parts in self.rows[0].accuracy_by_part.items() for part in parts]:
            by_part = [
                [row.name, *(f"{100 * row.accuracy_by_part[task][part]:.1f}" for task, part in parts)]
                for row in self.rows
            ]
            names = [f"{task}: {part}" for task, part in parts]
            tables += ["Accuracy of the linear probe by part of the test clips:", markdown(["system", *names], by_part)]
        return "\n\n".join(tables)

    @property
    def margin_notes(self) -> list[str]:
        """Headline differences of trained rows from random networks of their shape, as sentences."""
        return [
            f"Headline over all test clips together, 95 % interval of test clips: {each.text}" for each in self.margins
        ]

    @property
    def flaws(self) -> list[str]:
        """Sentences on cells and tasks that depart from the protocol; empty if none does."""
        sentences = []
        if self.unconverged:
            sentences.append(f"Not converged: {', '.join(self.unconverged)}")
        if self.shared:
            sentences.append(f"Recordings in two splits: {'; '.join(self.shared)}")
        sentences += self.remarks
        if self.damaged:
            sentences.append(
                f"Clips were damaged, these rows are computed again next time: {', '.join(self.damaged)}. Damaged "
                "clips are left out of train, where few-shot draws the next clip of the class instead, and count as "
                "wrong in test"
            )
        return sentences

    @property
    def folds_note(self) -> list[str]:
        """A sentence on tasks with folds; empty without folds."""
        folds = ", ".join(f"{task} {count}" for task, count in self.num_folds.items())
        return [f"Mean of folds, each tested once: {folds}"] if folds else []

    @property
    def networks_note(self) -> list[str]:
        """A sentence on the number of random networks whose mean is a row; empty if there are none."""
        several = " or ".join(str(number) for number in sorted({row.num_seeds for row in self.rows}) if number > 1)
        return [f"A random row is the mean of {several} networks; its interval draws networks too"] if several else []

    @property
    def reading_notes(self) -> list[str]:
        """Sentences without which the numbers must not be read, wherever they are shown."""
        return [*self.networks_note, *self.folds_note, *self.near_copies, *self.flaws]

    @property
    def groups_note(self) -> str:
        """A sentence on the groups of test clips."""
        counts = ", ".join(f"{task} {count:,}" for task, count in self.num_groups.items())
        shared = f"; {self.num_shared_groups:,} groups are in several tasks by name, and drawn equally often in all"
        return f"Groups of test clips: {counts}{shared if self.num_shared_groups else ''}"

    @property
    def notes(self) -> list[str]:
        """The sentences under the table, without their full stops."""
        return [
            *self.margin_notes,
            "Test clips in %, with 95 % intervals: paired bootstrap over their groups, widened where these are few",
            *(IN_WORDS[measure] for measure in MEASURES),
            self.groups_note,
            "Each trained row is one training: its interval is of test clips alone",
            *self.folds_note,
            *self.networks_note,
            f"Protocol {self.protocol_sha256[:16]}",
            *self.near_copies,
            *self.flaws,
        ]


def _of_onnx(systems: Sequence[System]) -> list[str]:
    """Return a sentence on ONNX files, which contain the statistics of their log-mels; empty without such files."""
    files = [system.name for system in systems if isinstance(system, EmbedderModel) and is_onnx(system.spec)]
    if not files:
        return []
    return [
        f"{', '.join(files)}: an ONNX file normalises log-mels by its own training clips, other networks by each task's"
    ]


def refuse_comparison(folder: str) -> None:
    """Refuse the folder of a comparison if that of an evaluation, or of another job, is needed.

    Raises:
        ValueError: the folder is that of a comparison.
    """
    if storage.exists(storage.join(folder, FROZEN)):
        raise ValueError(f"{folder} is the folder of a comparison: name one of its folders evaluations/…")


def costs(row: Row) -> list[str]:
    """Return parameters, and millions of multiply–adds for a second of audio, as text; '' without a network."""
    return [
        f"{row.parameters:,}" if row.parameters else "",
        f"{row.multiply_adds / 1e6:,.0f}" if row.multiply_adds else "",
    ]


def markdown(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table; all columns but the first are right-aligned. A | in a cell is escaped."""
    escaped = ([cell.replace("|", "\\|") for cell in line] for line in (headings, *rows))
    first, *others = (f"| {' | '.join(line)} |" for line in escaped)
    return "\n".join([first, f"|---|{'--:|' * (len(headings) - 1)}", *others])


def plain(dataclass_: Any) -> dict[str, Any]:
    """Return a dataclass as JSON values, with null instead of NaN."""
    return asdict(
        dataclass_,
        dict_factory=lambda items: {
            name: None if isinstance(value, float) and math.isnan(value) else value for name, value in items
        },
    )


def _most_common(strengths: Sequence[float]) -> str:
    """Return the choice of most seeds and folds, with their number if choices differ."""
    ((strength, count),) = Counter(strengths).most_common(1)
    return f"{strength:g}" + (f" ({count} of {len(strengths)})" if count < len(strengths) else "")
