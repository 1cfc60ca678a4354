"""The health picture of a run shows its metrics with the weights and bounds of its settings."""

from __future__ import annotations

import numpy as np
from support.finished_runs import Example

from unfused_ray.figures.curves import draw_curves, draw_health
from unfused_ray.figures.metrics import view_of
from unfused_ray.runs.reader import RunReader


def _panels(uri: str) -> dict[str, tuple[str, list[list[float]]]]:
    """Return the note and the curve of each panel of a run's health, by heading."""
    run = RunReader(uri)
    axes = draw_health("run", run.history(), view_of(run).metrics).axes
    return {
        axis.get_title(loc="left").strip(): (
            axis.texts[0].get_text(),
            [point for line in axis.lines for point in line.get_xydata().tolist()],
        )
        for axis in axes
    }


def test_a_single_epoch_is_marked_in_whole_numbers() -> None:
    (axis,) = draw_curves({"": ([2], [0.16])}).axes
    low, high = axis.get_xlim()
    assert [tick for tick in axis.get_xticks() if low <= tick <= high] == [2]


def test_health_of_a_pretraining_draws_its_loss_and_its_clusters(example: Example) -> None:
    panels = _panels(example.uri)
    assert panels["loss"] == (f"cross entropy; a blind guess is {np.log(5):.2f}", [[1, 1.6], [2, 1.2]])
    assert panels["stability"][1] == [[2, 0.75]]
    assert panels["effective rank"] == ("directions used, of 8; near 1 is collapse", [[1, 7.5], [2, 6.5]])


def test_health_of_a_distillation_draws_its_four_terms_with_their_weights(example: Example) -> None:
    panels = _panels(example.student)
    curves_by_heading = {heading: [value for _, value in curve] for heading, (_, curve) in panels.items()}
    assert curves_by_heading == {
        "loss": [9.5, 2.5],
        "cross entropy of the teacher": [3.25, 0.75],
        "cross entropy of the branches": [8, 2],
        "KL, teacher ‖ branches": [1.5, 1],
        "MSE, teacher and branches": [4, 3],
        "agreement of the teacher": [0.125, 0.75],
        "learning rate": [],
        "speed": [50, 60],
    }
    assert f"blind guess is {np.log(5):.2f}" in panels["cross entropy of the teacher"][0]
    assert "α = 0.6 " in panels["cross entropy of the branches"][0]
    assert "1 - α = 0.4 " in panels["KL, teacher ‖ branches"][0]
    assert "of logits, summed; × β = 0.25 " in panels["MSE, teacher and branches"][0]
