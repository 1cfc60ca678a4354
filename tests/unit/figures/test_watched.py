"""Watched accuracies are found in the run of a model, whether the model is named by its run or by its export."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.tasks import write_encoder

from unfused_ray.config import PretrainConfig
from unfused_ray.evaluation.systems import TrainedModel
from unfused_ray.figures.watched import of_models
from unfused_ray.runs.run import Run


@pytest.mark.parametrize("name", ["birds", "student"])
def test_a_run_is_found_by_itself_and_by_its_export_even_where_it_is_called_as_an_export_is(
    tmp_path: Path, name: str
) -> None:
    folder = tmp_path / name
    run = Run(str(folder))
    run.open(PretrainConfig(), {})
    run.write_history([{"epoch": 0.0, "watch/tones/headline": 0.75, "watch/tones/headline/random": 0.5}])
    write_encoder(folder / "encoder", "fc2")
    for path in (folder, folder / "encoder"):
        (curve,) = of_models([TrainedModel("model", str(path))], ["tones", "noises"])["model"]
        assert (curve.task, curve.accuracies, curve.random) == ("tones", [0.75], 0.5)
    assert not of_models([TrainedModel("model", str(tmp_path / "nothing"))], ["tones"])
