"""A dry run's estimate for a GPU card that is not there, for either stage and for a worker's share of a step."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import pytest
from support.runs import tiny_student
from support.terminal import Ended

from unfused_ray.config import PretrainConfig, RuntimeConfig
from unfused_ray.models.roofline import CARDS
from unfused_ray.training.driver import estimate
from unfused_ray.training.driver.launch import check

SENTENCE = r"{}: about [\d,]+ clips/s a GPU in bfloat16, bound by the (host|GPU) \(ms a step of {} clips"


def test_every_card_of_the_setting_is_known() -> None:
    assert set(get_args(RuntimeConfig.model_fields["estimate_for"].annotation)) == {"", *CARDS}


@pytest.mark.parametrize(("workers", "clips"), [(1, 32), (2, 16)])
def test_a_workers_share_of_a_step_is_estimated_where_there_is_no_cluster(
    workers: int, clips: int, config: Callable[..., PretrainConfig]
) -> None:
    job = config("run", runtime__kind="workers", runtime__num_workers=workers, runtime__estimate_for="H100")
    text = estimate.describe(job, check(job).index)
    assert re.match(SENTENCE.format("H100", clips), text)
    assert text.endswith("nothing has run on such a card")


def test_a_distillation_is_estimated_too(source: Path, tmp_path: Path) -> None:
    job = tiny_student(source, tmp_path / "run", "off", labels__origin="random", runtime__estimate_for="L4")
    assert re.match(SENTENCE.format("L4", 32), estimate.describe(job, check(job).index))


@pytest.mark.usefixtures("ray_session")
def test_the_command_prints_it_beside_what_it_measures(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command_line: Callable[..., Ended]
) -> None:
    from unfused_ray.training.driver import dry_run

    for name in ("DECODE_SECONDS", "STEP_SECONDS", "OTHER_SECONDS"):
        monkeypatch.setattr(dry_run, name, 0.0)
    monkeypatch.setenv("UNFUSED_RAY_HOME", str(tmp_path / "home"))
    arguments = ["--data", str(source), "--output", str(tmp_path / "run"), "--runtime.threads", "1", "--dry-run"]
    ended = command_line("pretrain", "tiny", *arguments, "--runtime.estimate-for", "A10G")
    assert ended.code == 0, ended.err
    assert re.search("estimate for " + SENTENCE.format("A10G", 32), ended.out)
    assert "limited by" in ended.out
