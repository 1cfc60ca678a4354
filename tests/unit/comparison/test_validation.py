"""Rows on validation clips: damaged clips count as wrong, tasks without such clips are left out; both are named."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from support.tasks import PROTOCOL, audio_of, replace_columns, write_folds, write_task

from unfused_ray.comparison.validation import (
    ValidationScores,
    validated,
    validation_table,
    validation_tasks,
)
from unfused_ray.config import QUICK_MEASURES, EvaluateConfig, FrontEndConfig, Measure
from unfused_ray.embedding.cache import EmbeddingCache
from unfused_ray.evaluation.protocol import BootstrapConfig, ProtocolConfig
from unfused_ray.evaluation.tasks import Task
from unfused_ray.evaluation_job import plan as evaluation_plan


@dataclass(frozen=True)
class Noise:
    """A row with random vectors; those of damaged clips are NaN."""

    damaged: tuple[int, ...] = ()
    name: str = "noise"
    num_networks: int = 2

    def identity(self, task: Task) -> str:
        return self.name

    def front_end_of(self, task: Task) -> FrontEndConfig | None:
        return None

    def cost(self, task: Task) -> None:
        return None

    def vectors(self, task: Task, protocol: ProtocolConfig, cache: EmbeddingCache) -> Iterator[np.ndarray]:
        for seed in range(self.num_networks):
            vectors_ND = np.random.default_rng(seed).standard_normal((len(task.splits), 4)).astype(np.float32)
            vectors_ND[list(self.damaged)] = np.nan
            yield vectors_ND


@pytest.fixture
def uri(tmp_path: Path) -> str:
    return write_task(tmp_path / "tones", 24, 8, 12)


@pytest.fixture
def plan(uri: str, tmp_path: Path) -> evaluation_plan.EvaluationPlan:
    (tmp_path / "protocol.toml").write_text(PROTOCOL)
    config = EvaluateConfig(tasks=(uri,), protocol=str(tmp_path / "protocol.toml"), processes=1)
    return evaluation_plan.check(config.replace({"cache": str(tmp_path / "cache"), "output": str(tmp_path / "out")}))


def test_damaged_clips_are_wrong_named_and_asked_again(
    uri: str, plan: evaluation_plan.EvaluationPlan, tmp_path: Path
) -> None:
    tasks, notes = validation_tasks([uri])
    assert tasks[0].splits.tolist() == ["train"] * 24 + ["valid"] * 8 and notes == []
    damaged = Noise(damaged=(3, 25))
    asked = evaluation_plan.EvaluationPlan(plan.config, plan.protocol, tuple(tasks), (damaged,))
    output = str(tmp_path / "scores")
    found = validated(asked, tasks, output)
    scores = found["noise", "tones"]
    assert {measure: values.shape for measure, values in scores.scores.items()} == {
        "headline": (2, 8), "neighbours": (2, 8), "few-shot": (2, 8),
    }  # fmt: skip
    assert scores.damaged == 2 and not scores.scores["headline"][:, 1].any()
    table = validation_table(plan.protocol, tasks, asked.systems, found)
    assert "Damaged clips, which count as wrong in validation: noise on tones (2)." in table.to_markdown()

    whole = evaluation_plan.EvaluationPlan(plan.config, plan.protocol, tuple(tasks), (Noise(),))
    found = validated(whole, tasks, output)
    assert found["noise", "tones"].scores["headline"].shape == (2, 8)
    assert "amaged" not in validation_table(plan.protocol, tasks, whole.systems, found).to_markdown()


@pytest.mark.parametrize(
    ("split", "rows", "message"),
    [
        ("valid", range(24, 32), "all 8 valid clips are damaged, and a probe needs some"),
        ("train", range(24), "all 24 train clips are damaged, and a probe needs some"),
    ],
)
def test_a_task_whose_clips_are_all_damaged_is_named(
    split: str, rows: range, message: str, uri: str, plan: evaluation_plan.EvaluationPlan, tmp_path: Path
) -> None:
    replace_columns(Path(uri), audio=[b"no FLAC" if clip in rows else b for clip, b in enumerate(audio_of(uri))])
    tasks, _ = validation_tasks([uri])
    (row,) = (system for system in plan.systems if system.name == "log-mel statistics")
    asked = evaluation_plan.EvaluationPlan(plan.config, plan.protocol, tuple(tasks), (row,))
    remedy = "copy the source again, prepare it again, or leave this task out"
    with pytest.raises(ValueError, match=rf"log-mel statistics on {uri}: {message}.*{remedy}"):
        validated(asked, tasks, str(tmp_path / "scores"))


def test_seeds_of_a_row_are_joined_and_drawn() -> None:
    scores: list[dict[Measure, np.ndarray]] = [
        {measure: np.full((1, 4), share) for measure in QUICK_MEASURES} for share in (0.25, 0.75)
    ]
    groups = np.array(["a", "a", "b", ""])
    joined = ValidationScores.joined([ValidationScores(each, groups, number) for number, each in enumerate(scores)])
    assert (joined.scores["few-shot"].shape, joined.damaged) == ((2, 4), 1)
    accuracy, draws_R = joined.draws(BootstrapConfig(replicates=100, seed=0), "tones", "few-shot")
    assert accuracy == 0.5 and draws_R.std() > 0


def test_tasks_without_validation_clips_are_left_out_and_named(uri: str, tmp_path: Path) -> None:
    without = [write_folds(tmp_path / "birds", (6, 6, 6)), write_task(tmp_path / "bats", 16, 0, 8)]
    tasks, notes = validation_tasks([without[0], uri, without[1]])
    assert [task.name for task in tasks] == ["tones"]
    assert notes == ["Left out, having no split valid: birds, bats"]
