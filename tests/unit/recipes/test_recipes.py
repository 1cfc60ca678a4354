"""Every recipe is valid as it stands, survives JSON, and takes or refuses changes of any of its fields."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unfused_ray.config import Config
from unfused_ray.recipes import RECIPES, recipe

ALL = {f"{job}/{name}": config for job, table in RECIPES.items() for name, (_, config) in table.items()}
CONFIGS = st.sampled_from(list(ALL.values()))


@pytest.mark.parametrize("name", ALL)
def test_a_recipe_is_valid_and_comes_back_from_its_json(name: str) -> None:
    config = ALL[name]
    assert type(config).model_validate_json(config.model_dump_json()) == config
    assert recipe(name) == config


@given(config=CONFIGS, data=st.data())
def test_replacing_values_by_themselves_changes_nothing(config: Config, data: st.DataObject) -> None:
    names = data.draw(st.lists(st.sampled_from(list(config.flat())), unique=True))
    assert config.replace({name: config.get(name) for name in names}) == config
    assert config.replace(config.flat()) == config


@given(config=CONFIGS, value=st.integers(0, 9) | st.floats(0, 2) | st.sampled_from(["sgd", "fc1", "a"]), data=st.data())
def test_a_change_is_in_the_flat_values_alone_or_is_refused_by_name(
    config: Config, value: float | str, data: st.DataObject
) -> None:
    before = config.flat()
    name = data.draw(st.sampled_from(list(before)))
    try:
        changed = config.replace({name: value})
    except ValueError as refusal:
        assert name.rpartition(".")[2] in str(refusal)
    else:
        several = isinstance(before[name], tuple)  # a single path may be given without a tuple
        assert changed.flat() == {**before, name: (value,) if several else value}
        assert changed.replace({name: before[name]}) == config


def test_a_recipe_is_found_by_its_name_or_with_its_job_and_takes_changes() -> None:
    assert recipe("corpus") == recipe("pretrain/corpus")
    assert recipe("pretrain/tiny", {"optimizer.lr": 0.1}, epochs=3).flat()["optimizer.lr"] == 0.1
    with pytest.raises(ValueError, match="epochs=0"):
        recipe("corpus", epochs=0)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("demo", "demo is a recipe of several jobs: name one of pretrain/demo, sweep/demo"),
        ("distil/unfused", r"distil/unfused is no recipe: did you mean distill/unfused, .*\? Or name one of "),
        ("copus", r"copus is no recipe: did you mean pretrain/corpus, .*\? Or name one of prepare/default, "),
        ("pretrain/unfused", "no recipe: did you mean distill/unfused, "),
        ("?", r"\? is no recipe: name one of prepare/default, .*, embed/windows"),
    ],
)
def test_a_name_that_is_unknown_or_ambiguous_is_refused_with_candidates(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        recipe(name)
