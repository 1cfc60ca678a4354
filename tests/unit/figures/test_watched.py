"""Watched accuracies are found in the run of a model, and drawn in one colour a run."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.tasks import write_encoder

from unfused_ray.config import PretrainConfig
from unfused_ray.evaluation.systems import TrainedModel
from unfused_ray.figures.watched import draw_panel, draw_watched, of_models, panels
from unfused_ray.runs.run import Run
from unfused_ray.runs.watched import WatchedCurve


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


def test_a_run_has_the_colour_of_the_legend_in_panels_that_other_runs_are_not_in() -> None:
    def curve(task: str) -> WatchedCurve:
        return WatchedCurve(task, "headline", [1, 2], [0.5, 0.6], 0.4)

    runs = {"_words": [curve("words")], "both": [curve("birds"), curve("words")]}
    figure = draw_watched("title", panels(runs))
    lines = [line for axis in figure.axes for line in axis.lines]
    (legend,) = figure.legends
    named = {text.get_text(): line for text, line in zip(legend.get_texts(), legend.get_lines(), strict=True)}
    assert named.keys() == {f"{beside}{name}" for name in runs for beside in ("", "random, shape of ")}
    assert len(lines) == 6
    for line in lines:
        assert line.get_color() == named[str(line.get_label())].get_color()
    assert named["_words"].get_color() != named["both"].get_color()


def test_a_panel_names_every_run_even_one_that_begins_with_an_underscore() -> None:
    curve = WatchedCurve("words", "headline", [1, 2], [0.5, 0.6], 0.4)
    (legend,) = draw_panel({"_old": curve, "new": curve}).legends
    assert {"_old", "new"} < {text.get_text() for text in legend.get_texts()}
