"""Tiny runs for tests: configurations, readers of their files, and a comparison of two runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
import safetensors.numpy
import torch
from mlflow import MlflowClient
from mlflow.entities import Run as MlflowRun

from unfused_ray import recipes
from unfused_ray.config import DistillConfig, PretrainConfig, TrainingConfig
from unfused_ray.data.stream.prefetch import Prefetcher
from unfused_ray.models.export import WEIGHTS, read_description
from unfused_ray.runs.run import Run
from unfused_ray.runs.status import Status
from unfused_ray.training.driver import launch
from unfused_ray.training.worker import loop

T = TypeVar("T", bound=TrainingConfig)
TIMES = ("clips_per_second", "seconds_")
"""Prefixes of the metrics that differ between equal runs."""
STEPS = 3
"""Steps in an epoch of 100 clips with the recipe "tiny": a global batch has 32 clips."""
SETTINGS: dict[str, dict[str, Any]] = {
    "bank": {},
    "full pass": {"method__labels_from": "full_pass"},
    "mean of views": {"method__bank_embedding": "mean_of_views"},
    "average": {"ema_decay": 0.9},
    "two heads, sgd": {"method__num_clusters": (8, 5), "optimizer__name": "sgd", "optimizer__lr": 0.05},
}
"""Changed fields of runs that must resume exactly, by name of the setting."""


def tiny(source: Path, output: Path, tracking_uri: str, recipe: str = "tiny", **fields: Any) -> PretrainConfig:
    """Return the recipe "tiny", or another, to run here on one thread; ``group__field`` sets a field of a group."""
    return _here(recipes.PRETRAIN[recipe][1], source, output, tracking_uri, fields)


def tiny_student(source: Path, output: Path, tracking_uri: str, **fields: Any) -> DistillConfig:
    """Return the distillation recipe "tiny" in the same way; at least ``teacher`` must be given."""
    return _here(recipes.DISTILL["tiny"][1], source, output, tracking_uri, fields)


def _here(recipe: T, source: Path, output: Path, tracking_uri: str, fields: dict[str, Any]) -> T:
    given = {"data": (str(source),), "output": str(output), "tracking.uri": tracking_uri, "runtime.threads": 1}
    return recipe.replace(given | {name.replace("__", "."): value for name, value in fields.items()})


def train(config: TrainingConfig, **options: Any) -> Status:
    """Check and run a training, without the job's pictures."""
    return launch.run(launch.check(config), **options)


def weights(run: Path) -> dict[str, np.ndarray]:
    """Return the newest checkpoint's weights, their average if there is one, and the optimiser's state."""
    newest = max((run / "checkpoints").iterdir())
    return {
        f"{file.stem}/{name}": tensor
        for file in sorted(newest.glob("*.safetensors"))
        for name, tensor in safetensors.numpy.load(file.read_bytes()).items()
    }


def assignments(run: Path) -> dict[str, bytes]:
    """Return the bytes of all files of pseudo-labels and prototypes, by path in the run's folder."""
    files = [file for name in ("assignments", "pseudo-labels") for file in sorted((run / name).rglob("*.*"))]
    return {str(file.relative_to(run)): file.read_bytes() for file in files if file.name != "assignment.json"}


def exported(run: Path) -> bytes:
    """Return the bytes of a run's exported weights."""
    return Path(read_description(str(run))["folder"], WEIGHTS).read_bytes()


def history(run: Path) -> list[dict[str, float]]:
    """Return the metrics of every epoch, without times."""
    epochs = Run(str(run)).history()
    return [{key: value for key, value in epoch.items() if not key.startswith(TIMES)} for epoch in epochs]


def tracked(uri: str, run: str) -> MlflowRun:
    """Return the MLflow run of the run in a folder; fail unless there is exactly one."""
    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("unfused-ray")
    assert experiment is not None
    found = client.search_runs([experiment.experiment_id], f"tags.`unfused_ray.run` = '{Run(run).record()['id']}'")
    assert len(found) == 1
    return found[0]


class BeginningError(Exception):
    """Carries the initial weights of a run out of it."""


def initial_weights(monkeypatch: pytest.MonkeyPatch, job: TrainingConfig) -> dict[str, torch.Tensor]:
    """Return the weights that a run begins with; the run ends before its first step."""

    def begin(self: loop.Loop, prefetcher: Prefetcher) -> None:
        raise BeginningError({name: value.clone() for name, value in self.learner.method.state_dict().items()})

    with monkeypatch.context() as patch:
        patch.setattr(loop.Loop, "run", begin)
        with pytest.raises(BeginningError) as beginning:
            train(job)
    return beginning.value.args[0]


def assert_equal_runs(run: Path, other: Path) -> None:
    """Fail unless weights, optimiser, pseudo-labels, metrics and export of two runs are equal, bit for bit."""
    ours, theirs = weights(run), weights(other)
    assert ours.keys() == theirs.keys()
    differing = [name for name in ours if not np.array_equal(ours[name], theirs[name])]
    assert not differing
    assert assignments(run) == assignments(other)
    assert history(run) == history(other)
    assert exported(run) == exported(other)
