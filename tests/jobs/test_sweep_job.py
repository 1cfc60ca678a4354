"""A sweep from the command line: a grid on one task, the winner's score on the test split, its runs in MLflow."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run as MlflowRun
from optuna.distributions import CategoricalDistribution, FloatDistribution
from support.tasks import PROTOCOL, write_encoder, write_task
from support.terminal import Ended

from unfused_ray.config import DistillConfig
from unfused_ray.sweeps.space import Space
from unfused_ray.sweeps.spaces import SPACES
from unfused_ray.sweeps.trial import read_records

SPACE: Space = {"method.alpha": FloatDistribution(0.0, 0.7), "method.cut": CategoricalDistribution(("fc1",))}
EXPERIMENT = "sweeps"


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A task with three groups in train and valid, fewer than the protocol's folds, as in the embedded drums."""
    groups = [f"g{i % 3}" for i in range(36)] + [f"t{i % 2}" for i in range(8)]
    return write_task(tmp_path_factory.mktemp("task") / "a", 24, 12, 8, group=groups)


@pytest.fixture
def arguments(task: str, tmp_path: Path, tracking_uri: str, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Arguments of a sweep over a space named "two"."""
    monkeypatch.setitem(SPACES, "two", SPACE)
    (tmp_path / "protocol.toml").write_text(PROTOCOL.replace("folds = 2", "folds = 5"))
    teacher = write_encoder(tmp_path / "teacher" / "encoder", "fc2")
    given = {
        "--tasks": task,
        "--output": f"{tmp_path}/sweep",
        "--protocol": f"{tmp_path}/protocol.toml",
        "--space": "two",
        "--search": "grid",
        "--num-trials": "3",
        "--distill.teacher": teacher,
        "--distill.batch.blocks-per-step": "1",
        "--distill.tracking.uri": tracking_uri,
        "--distill.tracking.experiment": EXPERIMENT,
    }
    return ["sweep", "tiny", *(part for argument in given.items() for part in argument)]


def tracked(uri: str) -> dict[str, list[MlflowRun]]:
    """Return MLflow's runs by stage."""
    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name(EXPERIMENT)
    assert experiment is not None
    found: dict[str, list[MlflowRun]] = {}
    for run in client.search_runs([experiment.experiment_id]):
        found.setdefault(run.data.tags["unfused_ray.stage"], []).append(run)
    return found


@pytest.mark.usefixtures("ray_session")
def test_a_sweep_ends_with_a_recipe_a_table_and_a_run_in_mlflow_for_each_of_its_parts(
    arguments: list[str], task: str, tmp_path: Path, tracking_uri: str, command_line: Callable[..., Ended]
) -> None:
    first = command_line(*arguments)
    assert first.code == 0, first.err
    assert "the default" in first.out and "winner" in first.out

    uri = f"{tmp_path}/sweep"
    records = read_records(uri)
    assert sorted(each.point["method.alpha"] for each in records) == [0.0, 0.7]  # the default trial is on the grid
    assert all(each.has_ended and 0 < each.training_seconds < each.seconds for each in records)
    recipe = DistillConfig.model_validate_json(Path(uri, "winner.json").read_bytes())
    assert recipe.method.alpha in (0.0, 0.7)
    assert "winner" in [row["name"] for row in json.loads(Path(uri, "table", "table.json").read_text())["rows"]]
    (run,) = Path(uri, "winner").glob("*/a/run.json")
    assert json.loads(run.read_text())["config"]["seed"] == recipe.seed + 1  # not the seed it was chosen with

    found = tracked(tracking_uri)
    assert {stage: len(runs) for stage, runs in found.items()} == {"sweep": 1, "trial": 2, "distill": 1, "evaluate": 1}
    (parent,) = found["sweep"]
    assert (parent.info.status, parent.info.run_name) == ("FINISHED", "tiny")
    for child in (*found["trial"], *found["distill"], *found["evaluate"]):
        assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert child.info.status == "FINISHED"
    by_name = {each.info.run_name: each for each in found["trial"]}
    for each in records:
        trial = by_name[each.id]
        assert trial.data.metrics["accuracy"] == pytest.approx(each.accuracy)
        assert trial.data.metrics["a/loss"] > 0
        assert float(trial.data.params["method.alpha"]) == each.point["method.alpha"]
        assert trial.data.tags["unfused_ray.state"] == each.state
        stopped = str(each.rungs[-1].epoch) if each.state == "stopped early" else None
        assert trial.data.tags.get("unfused_ray.stopped_after_epochs") == stopped
    assert parent.data.metrics["best_accuracy"] == pytest.approx(
        max(each.accuracy for each in records if each.state == "finished")
    )

    again = command_line(*arguments, "--resume")
    assert (again.code, again.out) == (0, first.out), again.err  # nothing was left to do
    assert {name: len(runs) for name, runs in tracked(tracking_uri).items()} == {n: len(r) for n, r in found.items()}

    student = ["--output", f"{tmp_path}/student", "--data", task]
    ended = command_line("distill", f"{uri}/winner.json", *student)
    assert ended.code == 0, ended.err
    written = json.loads(Path(tmp_path, "student", "run.json").read_text())["config"]
    assert DistillConfig(**written).method == recipe.method
