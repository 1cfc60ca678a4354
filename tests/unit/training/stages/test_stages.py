"""Stages refuse settings that their data cannot fulfil, and a student's first weights are its own."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from unfused_ray import recipes
from unfused_ray.config import DistillConfig, PretrainConfig
from unfused_ray.training.driver.launch import check
from unfused_ray.training.stages import stage_of


@pytest.mark.parametrize("num_clusters", [(101,), (4, 101)])
def test_more_clusters_than_clips_are_refused(
    config: Callable[..., PretrainConfig], num_clusters: tuple[int, ...]
) -> None:
    with pytest.raises(ValueError, match=r"method\.num_clusters=101 must not exceed the number of clips, 100"):
        check(config("run", method__num_clusters=num_clusters))


def test_a_student_begins_with_other_weights_than_a_teacher_with_its_seed() -> None:
    def first_weights(recipe: PretrainConfig | DistillConfig, seed: int) -> torch.Tensor:
        stage = stage_of(recipe.replace(seed=seed))
        torch.manual_seed(stage.seed_of_weights)
        return stage.build_method([4]).encoder.conv[0][0].weight

    teacher, student = recipes.find(recipes.PRETRAIN, "tiny"), recipes.find(recipes.DISTILL, "tiny")
    weights = [first_weights(recipe, seed) for recipe in (teacher, student) for seed in (0, 1)]
    assert len({tuple(weight.flatten().tolist()) for weight in weights}) == len(weights)
    assert {weight.shape for weight in weights} == {weights[0].shape}
    assert torch.equal(first_weights(student, 1), weights[3])
