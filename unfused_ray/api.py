"""The jobs from Python, with the checks, refusals and results of the command line.

Each function takes the name of a recipe, or a configuration, and values to change, by the names of their fields::

    unfused_ray.pretrain("demo", data=["shards/drums"], **{"optimizer.lr": 1e-3})

Modules are imported where they are needed: a training in one process does not import Ray, and importing a name from the
package is cheap.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeVar

from unfused_ray import extras, paths, recipes, storage
from unfused_ray.config import (
    CompareConfig,
    Config,
    DistillConfig,
    DuplicatesConfig,
    EmbedConfig,
    EvaluateConfig,
    ExportConfig,
    IndexConfig,
    PrepareConfig,
    PretrainConfig,
    SearchConfig,
    SweepConfig,
    TrainingConfig,
)
from unfused_ray.kept_session import keep_session
from unfused_ray.machine import memory

if TYPE_CHECKING:
    from unfused_ray.comparison.job import ComparisonResult
    from unfused_ray.data.shards.format import Manifest
    from unfused_ray.embedding.vectors import VectorManifest
    from unfused_ray.evaluation.table import EvaluationTable
    from unfused_ray.exports.job import ExportResult
    from unfused_ray.retrieval.duplicates import Copies
    from unfused_ray.retrieval.format import IndexManifest
    from unfused_ray.retrieval.hits import Found
    from unfused_ray.runs.start_times import StartTimes
    from unfused_ray.runs.status import Status
    from unfused_ray.sweeps.result import SweepResult
    from unfused_ray.tracking.mlflow import TrackedRun
    from unfused_ray.training.driver.launch import TrainingPlan

T = TypeVar("T", bound=Config)
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingResult:
    """A training that has ended or was stopped."""

    folder: str
    """Folder of the run, by path or URI."""
    status: Status
    pictures: tuple[str, ...]
    """URIs of the pictures; empty unless the training is finished."""


@dataclass(frozen=True)
class EvaluationResult:
    """A finished evaluation."""

    folder: str
    """Folder of the tables and pictures, by path or URI."""
    table: EvaluationTable


def prepare(recipe: str | PrepareConfig = "default", /, **changes: Any) -> Manifest:
    """Turn any audio into shards for training; do nothing if the output is finished.

    Args:
        recipe: a recipe of ``unfused-ray prepare``, or a configuration.
        changes: values of fields that differ from the recipe's.

    Returns:
        The manifest of the shards.

    Raises:
        ValueError, OSError: the job cannot work; names field, value and rule.
    """
    config = _configured(recipe, recipes.PREPARE, changes)
    from unfused_ray.data.shards import ingest

    with keep_session():
        manifest = ingest.run(ingest.check(config))
        if config.near_copies:
            from unfused_ray.retrieval.leakage import count_in_words

            found = duplicates(manifest.uri, config.near_copies)
            logger.warning("%s: %s in %s", manifest.uri, count_in_words(found), ", ".join(config.near_copies))
    return manifest


def pretrain(
    recipe: str | PretrainConfig, /, *, start_times: StartTimes | None = None, **changes: Any
) -> TrainingResult:
    """Pre-train an encoder until the end, a SIGTERM or Ctrl-C; the same call again resumes it.

    Args:
        recipe: a recipe of ``unfused-ray pretrain``, or a configuration.
        start_times: times of the calling command's start; by default they are counted from now.
        changes: values of fields that differ from the recipe's; dotted names as ``**{"optimizer.lr": 1e-3}``.

    Raises:
        ValueError, OSError: the job cannot work; names field, value and rule.
        InUseError: another process is working on the run.
    """
    return _train(_configured(recipe, recipes.PRETRAIN, changes), start_times)


def distill(recipe: str | DistillConfig, /, *, start_times: StartTimes | None = None, **changes: Any) -> TrainingResult:
    """Distil a student on a task's own clips, from a pre-trained encoder's clusters; otherwise like :func:`pretrain`.

    Args:
        recipe: a recipe of ``unfused-ray distill``, or a configuration.
        start_times: times of the calling command's start; by default they are counted from now.
        changes: values of fields that differ from the recipe's.
    """
    return _train(_configured(recipe, recipes.DISTILL, changes), start_times)


def evaluate(recipe: str | EvaluateConfig = "default", /, **changes: Any) -> EvaluationResult:
    """Probe frozen encoders on labelled tasks; finished cells are not computed again.

    Args:
        recipe: a recipe of ``unfused-ray evaluate``, or a configuration.
        changes: values of fields that differ from the recipe's.

    Raises:
        ValueError, OSError: the job cannot work; names field, value and rule.
    """
    config = _configured(recipe, recipes.EVALUATE, changes)
    memory.keep_freed()
    from unfused_ray.evaluation_job import job, plan, tracked

    checked = plan.check(config)
    table = job.run(checked)
    tracked.track(checked, table)
    return EvaluationResult(checked.output, table)


def compare(recipe: str | CompareConfig, /, **changes: Any) -> ComparisonResult:
    """Train, validate and evaluate the systems of a plan, by ``stages``; the same call again resumes.

    Args:
        recipe: a plan that comes with the package, a TOML file by its path, or a configuration.
        changes: values of fields that differ from the plan's; at least ``data_root``.

    Raises:
        ValueError, OSError: the job cannot work; names field, value and rule.
        ChildProcessError: an evaluation failed.
    """
    config = _configured(recipe, recipes.PLANS, changes)
    from unfused_ray.comparison import job, plan

    return job.run(plan.check(config))


def sweep(recipe: str | SweepConfig, /, **changes: Any) -> SweepResult:
    """Sweep a distillation's settings, then train the winner anew and read the test split once.

    Args:
        recipe: a recipe of ``unfused-ray sweep``, or a configuration.
        changes: values of fields that differ from the recipe's; those of the distillation as ``**{"distill.teacher":
            …}``.

    Raises:
        ValueError, OSError: the job cannot work; names field, value and rule.
        InUseError: another process is working on the sweep.
        LostTrialError: the process of the default trial died repeatedly; the test split is not read.
    """
    config = _configured(recipe, recipes.SWEEP, changes)
    from unfused_ray.sweeps import job, plan, result

    checked = plan.check(config)
    found = result.conclude(checked, job.run(checked))
    return replace(found, table=result.evaluate_winner(found))


def embed(recipe: str | EmbedConfig = "default", /, **changes: Any) -> VectorManifest:
    """Make vectors of any audio, or of prepared shards; do nothing if the output is finished.

    Args:
        recipe: a recipe of ``unfused-ray embed``, or a configuration.
        changes: values of fields that differ from the recipe's.

    Returns:
        The manifest of the vectors.

    Raises:
        ValueError, OSError: the job cannot work; names field, value and rule.
    """
    config = _configured(recipe, recipes.EMBED, changes)
    from unfused_ray.embedding import job

    with keep_session():
        return job.run(job.check(config))


def export(encoder: str | os.PathLike[str] | ExportConfig = "", /, **changes: Any) -> ExportResult:
    """Write an encoder in a form that other software loads, and compare it with the encoder on real clips.

    Args:
        encoder: folder of a run or of its export, by path or URI, or a configuration.
        changes: other fields of :class:`~unfused_ray.config.ExportConfig`.

    Raises:
        ValueError, OSError: the job cannot work; names field, value and rule.
        MissingExtraError: an extra of the package is not installed.
    """
    config = _about(ExportConfig, "encoder", encoder, changes)
    from unfused_ray.exports import job

    return job.run(job.check(config))


def index(recipe: str | IndexConfig = "default", /, **changes: Any) -> IndexManifest:
    """Index vectors of one or several sources, or change an index; do nothing if it is already as asked for.

    Args:
        recipe: a recipe of ``unfused-ray index``, or a configuration.
        changes: values of fields that differ from the recipe's.

    Returns:
        The manifest of the index.

    Raises:
        ValueError, OSError: the job cannot work; names field, value and rule.
    """
    config = _configured(recipe, recipes.INDEX, changes)
    from unfused_ray.retrieval import job, plan

    with keep_session():
        return job.run(plan.check(config))


def search(index: str | SearchConfig, /, query: str | None = None, **question: Any) -> Found:
    """Find the recordings of an index that sound like a file, a clip, the clips of a label, or marked clips.

    Args:
        index: folder of the index, by path or URI, or a configuration.
        query: audio file, by path or URI; by default that of the configuration.
        question: fields of :class:`~unfused_ray.config.search.SearchConfig`: ``key``, ``label`` or ``learn`` instead of
            a file; ``first`` and ``last``, ``count``, filters, ``page`` …

    Raises:
        ValueError, OSError: the job cannot work; names field, value and rule.
    """
    asked = question if query is None else {"query": query} | question
    config = _about(SearchConfig, "index", index, asked)
    from unfused_ray.retrieval import search as job

    found = job.run(job.check(config))
    if config.page:
        from unfused_ray.report.search import write

        write(found, config.page)
    return found


def duplicates(
    sources: Sequence[str] | str | DuplicatesConfig, /, against: Sequence[str] | str | None = None, **changes: Any
) -> Copies:
    """Find near-copies of the clips of prepared sources, among themselves or among others.

    Args:
        sources: folders of prepared sources, by path or URI, or a configuration.
        against: folders of the sources to look in, by default those of the configuration. If there are none, look among
            the clips of ``sources`` other than the clip itself.
        changes: other fields of :class:`~unfused_ray.config.search.DuplicatesConfig`.

    Raises:
        ValueError, OSError: the job cannot work; names field, value and rule.
    """
    asked = changes if against is None else {"against": against} | changes
    config = _about(DuplicatesConfig, "sources", sources, asked)
    from unfused_ray.retrieval import duplicates_job as job

    with keep_session():
        return job.run(job.check(config))


def _train(config: TrainingConfig, start_times: StartTimes | None) -> TrainingResult:
    """Run a training of either stage; if it finishes, draw its pictures and show them in MLflow."""
    memory.keep_freed()
    from unfused_ray.runs import start_times as times

    start_times = start_times or times.StartTimes()
    from unfused_ray.training.driver.data import read_data

    data = read_data(config)  # read before Ray and torch, which take seconds to start
    with ExitStack() as session:
        if config.runtime.kind == "workers":
            # Import torch while Ray starts, which is mostly waiting for other processes. The reverse would not work:
            # processes that Ray starts would end with the thread that started them.
            threading.Thread(target=import_module, args=("torch",), daemon=True).start()
            from unfused_ray import cluster

            session.enter_context(cluster.session())
            start_times.reach("Ray started")
        from unfused_ray.figures.live import LivePictures
        from unfused_ray.training.driver import launch

        start_times.reach("imported")
        plan = launch.check(data)
        live = LivePictures(partial(_tracked, plan), plan.run.uri, plan.config.checkpoint.pictures_every_minutes)
        status = launch.run(plan, start_times, on_epoch=live.draw)
        live.wait()
    pictures = _draw(plan) if status.state == "finished" else ()
    return TrainingResult(plan.run.uri, status, pictures)


def _draw(plan: TrainingPlan) -> tuple[str, ...]:
    """Draw the pictures of a finished run; log them and the location of its network in its MLflow run."""
    from unfused_ray.figures import run as run_pictures
    from unfused_ray.tracking.mlflow import log_results

    logger.info("drawing pictures")
    config, uri = plan.config, plan.run.uri
    pictures = run_pictures.write(uri)
    log_results(_tracked(plan), pictures, {config.export: storage.join(uri, config.export)})
    return tuple(pictures)


def _tracked(plan: TrainingPlan) -> TrackedRun:
    """Return the run in MLflow, for adding results to it."""
    from unfused_ray.tracking.mlflow import TrackedRun
    from unfused_ray.tracking.store import experiment_name

    config = plan.config
    return TrackedRun(plan.tracking_uri, experiment_name(config.tracking), config.name, plan.run.record()["id"])


def _configured(
    recipe: str | os.PathLike[str] | T, known: Mapping[str, tuple[str, T]], changes: Mapping[str, Any]
) -> T:
    """Return the configuration of a recipe, or of a JSON file of one, with changed fields and absolute paths.

    Raises:
        ValueError: there is no such recipe or field, or the values are refused.
        MissingExtraError: only the core of the package is installed.
    """
    extras.require("train", "pyarrow", "a job")
    if isinstance(recipe, str | os.PathLike):
        recipe = recipes.find(known, os.fspath(recipe))
    kind = type(next(iter(known.values()))[1]) if known else Config
    if not isinstance(recipe, kind):
        found = type(recipe).__name__ if isinstance(recipe, Config) else repr(recipe)
        raise ValueError(f"{found} is no recipe: give a recipe's name, the path of its JSON file, or a {kind.__name__}")
    return paths.check(recipe.replace(changes))  # checked before the job's own imports, which take seconds


def _about(kind: type[T], field: str, value: Any, changes: Mapping[str, Any]) -> T:
    """Return ``value``, or the configuration of this kind with ``value`` in ``field``, with changed fields."""
    return _configured(value if isinstance(value, kind) else kind().replace({field: value}), {}, changes)
