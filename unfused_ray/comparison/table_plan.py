"""The plan of a results table: its systems, their training data and budgets, and the tasks on which they are scored.

A plan is a TOML file. Together with the recipes that it names, it holds everything that decides a number of the table.
It does not say where the shards are.
"""

from __future__ import annotations

import re
import tomllib
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, model_validator

from unfused_ray.config import MEAN, Config, PositiveFloat, Seed, TrainingConfig, explain
from unfused_ray.evaluation.cells import file_stem
from unfused_ray.evaluation.embedders import is_spec
from unfused_ray.evaluation.systems import LogMelStatistics
from unfused_ray.evaluation.tasks import role
from unfused_ray.models.encoder import LAYERS
from unfused_ray.recipes import recipe

_PLANS = Path(__file__).parent / "plans"

_DECIDED = {
    "name": "the row's name",
    "seed": "seeds",
    "data": "on, sources and tasks",
    "output": "--output",
    "epochs": "tflop",
    "teacher": "the row's teacher",
    "init_from": "the row's init_from",
    "fork": "the row's init_from",
    "labels_of": "the row's teacher",
}
"""Settings of a training that something else in a plan decides, with the name of that."""
_ENDS = ("stop_after", "watch.patience")
"""Settings that end a training before its TFLOP are spent."""

TrainedOn = Literal["sources", "each task", "all tasks"]
"""Training data of a system: the sources for pre-training; the training clips of each task, with a network for each; or
those of all tasks together, except tasks with folds, all of whose clips are tested."""


class PlannedSystem(Config):
    """A row of the table whose networks are trained by the comparison."""

    name: str
    """Heading of the row; folders and the command line use it in small letters, with hyphens."""
    job: Literal["pretrain", "distill"] = "pretrain"
    """The job that trains it."""
    recipe: str
    """Name of a recipe of that job."""
    settings: dict[str, Any] = Field(default_factory=dict)
    """Changes to the recipe, by dotted field name such as "encoder.cut"."""
    on: TrainedOn = "sources"
    """Its training data."""
    tflop: PositiveFloat | None = None
    """Budget of each of its trainings, if it differs from the plan's."""
    seeds: tuple[Seed, ...] = ()
    """Seeds of the plan that it is trained with; empty for all seeds."""
    curve: str = ""
    """Curve that it is a point of in the plot of accuracy against operations; empty for a curve of its own."""
    teacher: str = ""
    """For a distillation: an earlier system whose clusters are the pseudo-labels."""
    init_from: str = ""
    """An earlier system whose weights it starts from."""

    @model_validator(mode="after")
    def _name_serves_folders_and_models(self) -> Self:
        if not self.slug or {"/", "="} & set(self.name):
            raise ValueError(
                f"{self.name!r}: a system's name has a letter from a to z or a digit, and neither a slash nor a ="
            )
        return self

    @model_validator(mode="after")
    def _settings_count(self) -> Self:
        for field, value in self.settings.items():
            if field in _DECIDED:
                raise ValueError(f"{self.name}: settings.{field}={value!r} would be ignored: give {_DECIDED[field]}")
            if field in _ENDS:
                raise ValueError(
                    f"{self.name}: settings.{field}={value!r} would end the training before its TFLOP are spent: "
                    "leave it out"
                )
            if field == "splits" and self.on != "sources":
                raise ValueError(
                    f"{self.name}: settings.{field}={value!r}: a network of {self.on} trains on their training clips, "
                    "because validation and test clips judge it: leave it out"
                )
            if isinstance(value, Mapping) and "kind" not in value:
                raise ValueError(
                    f"{self.name}: settings.{field}={dict(value)} is a whole group, and its other fields would lose "
                    f'the recipe\'s values: write each in quotes, "{field}.{next(iter(value), "field")}"'
                )
        if self.teacher and (origin := self.settings.get("labels.origin")) in ("random", "true"):
            raise ValueError(
                f"{self.name}: teacher={self.teacher} would be ignored: labels.origin={origin} uses no teacher"
            )
        return self

    @property
    def slug(self) -> str:
        """The name in the form that folders use."""
        return re.sub(r"[^a-z0-9]+", "-", self.name.lower().replace("'", "")).strip("-")

    def config(self, values: Mapping[str, Any]) -> TrainingConfig:
        """Return the recipe with the system's settings and then ``values`` applied, by dotted field name.

        Raises:
            ValueError: there is no such recipe, or a setting is impossible; names it.
        """
        try:
            config = recipe(f"{self.job}/{self.recipe}", {**self.settings, **values})
        except ValueError as error:
            raise ValueError(f"{self.name} cannot be trained:\n{error}") from error
        assert isinstance(config, TrainingConfig)
        return config


class Peer(Config):
    """A row of the table that was trained elsewhere, and is used as it is."""

    name: str
    """Heading of the row."""
    embedder: str
    """``module:callable`` that makes an :class:`unfused_ray.evaluation.embedders.Embedder`."""

    @model_validator(mode="after")
    def _names_a_callable(self) -> Self:
        if not is_spec(self.embedder) or {"/", "="} & set(self.name):
            raise ValueError(f"{self.name}: {self.embedder!r} is not a module:callable, or the name has a slash or a =")
        return self


class TflopBudget(Config):
    """Floating point operations of a training, in units of 10¹²; the number of epochs follows from them."""

    sources: PositiveFloat
    """Budget of a training on the sources for pre-training."""
    each_task: PositiveFloat | None = None
    """Budget of a training on the training clips of one task."""
    all_tasks: PositiveFloat | None = None
    """Budget of a training on the training clips of all tasks together."""

    def of(self, system: PlannedSystem) -> float:
        """Return the budget of each training of a system.

        Raises:
            ValueError: the plan names no such budget.
        """
        field = system.on.replace(" ", "_")
        budget: float | None = system.tflop or getattr(self, field)
        if budget is None:
            raise ValueError(f"tflop.{field} is missing: {system.name} is trained on {system.on}")
        return budget


class TablePlan(Config):
    """A whole table."""

    name: str
    """Name of the output folder, and of the evaluations in tracking."""
    sources: Annotated[tuple[str, ...], Field(min_length=1)]
    """Prepared sources for pre-training, folders below the data root."""
    tasks: Annotated[tuple[str, ...], Field(min_length=1)]
    """Prepared tasks, also folders below the data root."""
    anchors: tuple[str, ...] = ()
    """Rows that must know more than a random network, such as peers and supervised systems: a task counts if one of
    them is above ``random`` on validation clips. Without anchors, all tasks count."""
    random: str = "random fc2"
    """Row of the random networks with which anchors are compared."""
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1)] = (0,)
    """Seeds of the full pipelines, each of which trains every system again."""
    reference: str
    """Row from which the differences of all others are shown."""
    compare: tuple[tuple[str, str], ...] = ()
    """Pairs of rows whose difference in the mean is tested, the first minus the second, with Holm's correction over
    these pairs. Rows without training are "log-mel statistics" and "random " with a layer, such as "random fc1"."""
    random_seeds: Annotated[int, Field(ge=0)] = 10
    """Number of random networks of each shape."""
    protocol: str = ""
    """Protocol file beside the plan; empty for the package's own."""
    tflop: TflopBudget
    systems: Annotated[tuple[PlannedSystem, ...], Field(min_length=1)]
    peers: tuple[Peer, ...] = ()

    @model_validator(mode="after")
    def _nothing_is_named_twice(self) -> Self:
        lists = {"seeds": self.seeds, "tasks": self.tasks, "compare": self.compare}
        for field, values in {**lists, **{f"{system.name}: seeds": system.seeds for system in self.systems}}.items():
            if repeated := [value for value, times in Counter(values).items() if times > 1]:
                raise ValueError(f"{field}: {repeated[0]!r} is given more than once: give it once")
        if not self.name or "/" in self.name:
            raise ValueError(f"name={self.name!r}: a plan's name is that of a folder, without a slash")
        if odd := [task for task in self.tasks if "/" in task or task == MEAN]:
            raise ValueError(
                f"tasks: {odd[0]!r} must be the name of a folder directly below the data root, and not {MEAN!r}, which "
                "is the column of the mean"
            )
        return self

    @model_validator(mode="after")
    def _systems_build_on_earlier_ones(self) -> Self:
        earlier: dict[str, PlannedSystem] = {}
        for system in self.systems:
            if system.slug in {other.slug for other in earlier.values()}:
                raise ValueError(f"{system.name!r}: another system has this name, as folders spell it")
            if system.teacher and system.job != "distill":
                raise ValueError(f"{system.name}: a teacher is for job = 'distill'")
            for name in filter(None, (system.teacher, system.init_from)):
                if name not in earlier:
                    raise ValueError(
                        f"{system.name}: {name!r} is not an earlier system; these are {', '.join(earlier)}"
                    )
                if earlier[name].on == "each task" != system.on:
                    raise ValueError(f"{system.name}: {name!r} has a network for each task, and a single one is needed")
                if missing := set(self.seeds_of(system)) - set(self.seeds_of(earlier[name])):
                    raise ValueError(f"{system.name}: {name!r} is not trained with seed {min(missing)}")
            if unknown := set(system.seeds) - set(self.seeds):
                raise ValueError(f"{system.name}: seed {min(unknown)} is not in the plan, whose seeds are {self.seeds}")
            self.tflop.of(system)
            earlier[system.name] = system
        return self

    @model_validator(mode="after")
    def _trains_on_no_held_out_clips(self) -> Self:
        tasks = sorted(set(self.sources) & set(self.tasks))
        for system in self.systems:
            held_out = [
                split for split in system.settings.get("splits", ()) if role(split) in ("valid", "test", "fold")
            ]
            if tasks and held_out:
                raise ValueError(
                    f"{system.name}: settings.splits has {held_out[0]!r}, and the source {tasks[0]} is a task, too: "
                    "its validation and test clips judge the rows, so no system trains on them"
                )
        return self

    @model_validator(mode="after")
    def _compares_rows(self) -> Self:
        compared = [("compare", name) for pair in self.compare for name in pair]
        anchors = [("anchors", name) for name in self.anchors]
        for field, name in (*compared, *anchors, ("random", self.random), ("reference", self.reference)):
            if name not in self._named() and not _is_untrained(name):
                raise ValueError(f"{field}: {name!r} is not a row of the plan; these are {self._rows()}")
        if alike := [first for first, second in self.compare if first == second]:
            raise ValueError(f"compare: {alike[0]!r} cannot be compared with itself")
        return self

    @model_validator(mode="after")
    def _rows_have_names_of_their_own(self) -> Self:
        stems = Counter(map(file_stem, self._named()))
        for field, rows in (("systems", self.systems), ("peers", self.peers)):
            for row in rows:
                if stems[file_stem(row.name)] > 1 or _is_untrained(row.name):
                    raise ValueError(f"{field}: {row.name!r} is the name of another row too, as files spell it")
        return self

    @property
    def supervised(self) -> list[str]:
        """Names of the systems that train on labels."""
        return [system.name for system in self.systems if system.settings.get("labels.origin") == "true"]

    def seeds_of(self, system: PlannedSystem) -> tuple[int, ...]:
        """Return the seeds that a system is trained with."""
        return system.seeds or self.seeds

    def system(self, name: str) -> PlannedSystem:
        """Return the system of this name, spelt as in the plan or as in folders.

        Raises:
            ValueError: there is no such system.
        """
        for system in self.systems:
            if name in (system.name, system.slug):
                return system
        raise ValueError(f"{name!r} is not a row of the plan; these are {self._rows()}")

    def row(self, name: str) -> str:
        """Return the row of this name; a system's name may be spelt as in the plan or as in folders.

        Raises:
            ValueError: there is no such row.
        """
        others = [peer.name for peer in self.peers]
        return name if _is_untrained(name) or name in others else self.system(name).name

    def _named(self) -> list[str]:
        return [*(system.name for system in self.systems), *(peer.name for peer in self.peers)]

    def _rows(self) -> str:
        return ", ".join([*self._named(), LogMelStatistics.name, *(f"random {layer}" for layer in LAYERS)])

    def select(self, names: tuple[str, ...]) -> list[PlannedSystem]:
        """Return the systems of these names, each after the systems that it builds on; all systems if none is named.

        Raises:
            ValueError: there is no such system.
        """
        wanted = {self.system(name).name for name in names}
        for system in reversed(self.systems):
            if system.name in wanted:
                wanted |= {system.teacher, system.init_from}
        return [system for system in self.systems if system.name in wanted or not names]


def _is_untrained(row: str) -> bool:
    """Return True for the name of a row without training; random networks of unusual size have it in the name."""
    kind, _, shape = row.partition(" ")
    return row == LogMelStatistics.name or (kind == "random" and shape.partition(" (")[0] in LAYERS)


def find_plan(name: str) -> Path:
    """Return the file of a plan, given by path or by the name of a plan in the package.

    Raises:
        ValueError: there is no such plan.
    """
    path = Path(name) if name.endswith(".toml") else _PLANS / f"{name}.toml"
    if not name or not path.exists():
        known = ", ".join(sorted(each.stem for each in _PLANS.glob("*.toml")))
        raise ValueError(f"plan={name} is neither one of {known} nor an existing TOML file")
    return path


def load_plan(path: Path) -> TablePlan:
    """Read a plan.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not TOML, or a field is missing, unknown or impossible; names the field.
    """
    try:
        return TablePlan(**tomllib.loads(path.read_text(encoding="utf-8")))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not a TOML file: {error}") from error
    except ValidationError as error:
        raise ValueError(f"{path} is not a plan:\n{explain(error)}") from error
