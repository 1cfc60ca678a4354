"""Dotted names: get, flat and replace of configurations, and the text of refusals."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from unfused_ray.config import (
    ColaConfig,
    DistillConfig,
    OptimizerConfig,
    PretrainConfig,
    SweepConfig,
    differences,
    explain,
)

PRETRAIN = PretrainConfig()


def test_get_returns_values_and_nested_configurations() -> None:
    assert PRETRAIN.get("optimizer.lr") == PRETRAIN.optimizer.lr
    assert PRETRAIN.get("method") is PRETRAIN.method
    assert SweepConfig().get("distill.method.alpha") == 0.7


def test_flat_names_every_value_once() -> None:
    flat = PRETRAIN.flat()
    assert flat["method.num_clusters"] == (512,)
    assert flat["splits"] == ("", "train")
    assert all(PRETRAIN.get(name) == value for name, value in flat.items())
    assert PRETRAIN.replace(flat) == PRETRAIN


@pytest.mark.parametrize("name", ["method.alhpa", "nothing", "optimizer.lr.x", "data.0", "method.", ""])
def test_names_that_do_not_exist_are_refused(name: str) -> None:
    for refused in (PRETRAIN.get, lambda name: PRETRAIN.replace({name: 1})):
        with pytest.raises(ValueError, match=f"^{name} is no field of PretrainConfig"):
            refused(name)


@pytest.mark.parametrize(
    ("name", "close"), [("method.alhpa", "method.alpha"), ("alpha", "method.alpha"), ("lable.starts", "labels.starts")]
)
def test_the_refusal_of_a_name_names_the_closest_ones(name: str, close: str) -> None:
    with pytest.raises(ValueError, match=f"did you mean .*{close}"):
        DistillConfig().replace({name: 1})


def test_replace_changes_parts_wholes_and_several_fields_at_once() -> None:
    changed = PRETRAIN.replace({"optimizer.lr": 0.1, "batch.block": 8}, epochs=3)
    assert (changed.optimizer.lr, changed.batch.block, changed.epochs) == (0.1, 8, 3)
    assert changed.optimizer.name == PRETRAIN.optimizer.name
    assert PretrainConfig() == PRETRAIN
    whole = PRETRAIN.replace(optimizer={"name": "sgd"})
    assert whole.optimizer == OptimizerConfig(name="sgd")
    assert PRETRAIN.replace(optimizer=OptimizerConfig(name="sgd")) == whole


def test_replace_takes_another_method_and_then_its_fields() -> None:
    changed = PRETRAIN.replace({"method": ColaConfig(), "method.projection_dim": 3})
    assert changed.method == ColaConfig(projection_dim=3)
    given = {"kind": "cola", "projection_dim": 5}
    assert PRETRAIN.replace({"method": given, "method.projection_dim": 3}) == changed
    assert given["projection_dim"] == 5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": 0}, "epochs=0: Input should be greater than or equal to 1"),
        ({"batch.blocks_per_step": 3, "runtime.num_workers": 2}, "batch.blocks_per_step=3 must be a multiple of"),
        ({"epochs": 0, "optimizer.lr": -1.0}, "epochs=0: .*\noptimizer.lr=-1.0: "),
        ({"optimizer": {"rl": 1}}, "optimizer.rl=1: Extra inputs are not permitted"),
        ({"method": {"kind": "none"}}, "^method.kind='none' is not one of 'decar-v2', 'cola'"),
        ({"method": {"alpha": 1}}, "^method={'alpha': 1} has no 'kind': name it too, or change method.FIELD"),
        ({"method.num_clusters": (0,)}, r"^method\.num_clusters\.0=0: Input should be greater than or equal to 2$"),
        ({"method.num_clusters": ()}, r"^method\.num_clusters=\(\): Tuple should have at least 1 item"),
    ],
)
def test_replace_refuses_what_the_constructor_refuses(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as refusal:
        PRETRAIN.replace(changes)
    assert not isinstance(refusal.value, ValidationError)


def test_a_single_path_may_stand_where_several_do() -> None:
    assert PRETRAIN.replace(data="shards/drums") == PRETRAIN.replace(data=("shards/drums",))
    assert SweepConfig(tasks="shards/drums").tasks == ("shards/drums",)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="splits='train': Input should be a valid tuple"):
        PRETRAIN.replace(splits="train")


def test_a_missing_field_is_named_without_its_surroundings() -> None:
    class Needs(PretrainConfig):
        needed: int

    with pytest.raises(ValidationError) as refusal:
        Needs()
    assert explain(refusal.value) == "needed: Field required"


def test_differences_are_worded_by_dotted_name() -> None:
    old, new = PRETRAIN.model_dump(mode="json"), PRETRAIN.replace({"optimizer.lr": 0.1}, seed=2).model_dump(mode="json")
    assert differences(old, old) == {}
    assert differences(old, new) == {"optimizer.lr": "optimizer.lr: 0.0003 → 0.1", "seed": "seed: 0 → 2"}
    assert differences({"facts": {"a": 1}}, {"facts": {"b": None}}) == {"facts.a": "facts.a: 1 → null"}
