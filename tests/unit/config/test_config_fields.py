"""Every field of every configuration, found by a walk, refuses impossible values with its name, value and rule."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator
from typing import Annotated, Any, Literal, get_args, get_origin

import pytest
from annotated_types import Ge, Gt, Le, Lt, MinLen
from pydantic import ValidationError
from pydantic.fields import FieldInfo
from support.terminal import Ended

from unfused_ray import config
from unfused_ray.config import Config, explain

MODELS = [model for _, model in inspect.getmembers(config, inspect.isclass) if issubclass(model, Config)]
FIELDS = [(model, name) for model in MODELS for name in model.model_fields]


def parts(kind: Any, metadata: list[Any]) -> Iterator[tuple[Any, list[Any], Any]]:
    """Yield the field's type and rules, also those of a tuple's items, each with a function that puts a value there."""
    if get_origin(kind) is Annotated:
        kind, *more = get_args(kind)
        metadata = [*metadata, *(rule for item in more for rule in (getattr(item, "metadata", None) or [item]))]
    yield kind, metadata, lambda value: value
    if get_origin(kind) is tuple:
        first, *others = (item for item in get_args(kind) if item is not Ellipsis)
        for item, rules, _ in parts(first, []):
            yield item, rules, lambda value: (value,) * (1 + len(others))


def impossible(field: FieldInfo) -> Iterator[Any]:
    """Yield values of another type, and values outside the range that the field's type gives."""
    for kind, rules, put in parts(field.annotation, field.metadata):
        yield put({"no": "value"})
        if get_origin(kind) is Literal:
            yield put("none of them")
        if kind in (int, float):
            yield put("many")
            yield put(math.nan)
            yield put(math.inf)
        if kind is int:
            yield put(0.5)
        for rule in rules:
            below = -1 if kind is int else -1e-9
            if isinstance(rule, Ge):
                yield put(rule.ge + below)
            if isinstance(rule, Gt):
                yield put(rule.gt)
            if isinstance(rule, Le):
                yield put(rule.le - below)
            if isinstance(rule, Lt):
                yield put(rule.lt)
            if isinstance(rule, MinLen):
                yield ()


@pytest.mark.parametrize(("model", "name"), FIELDS, ids=lambda value: getattr(value, "__name__", value))
def test_a_field_refuses_what_it_cannot_be(model: type[Config], name: str) -> None:
    values = list(impossible(model.model_fields[name]))
    assert values
    for value in values:
        with pytest.raises(ValidationError) as refusal:
            model(**{name: value})
        told = explain(refusal.value).splitlines()
        assert any(line.startswith(name) and ": " in line for line in told), (value, told)


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_a_configuration_refuses_names_that_it_does_not_know(model: type[Config]) -> None:
    with pytest.raises(ValidationError, match="no_such_field"):
        model(no_such_field=1)


def test_every_number_has_a_bound() -> None:
    unbounded = [
        f"{model.__name__}.{name}"
        for model, name in FIELDS
        for kind, rules, _ in parts(model.model_fields[name].annotation, model.model_fields[name].metadata)
        if kind in (int, float) and not any(isinstance(rule, Ge | Gt) for rule in rules)
    ]
    assert unbounded == []


@pytest.mark.parametrize(
    ("job", "recipe", "flags", "told"),
    [
        ("pretrain", "tiny", ["--epochs", "0"], "epochs=0"),
        ("pretrain", "tiny", ["--optimizer.lr", "nan"], "optimizer.lr=nan"),
        ("pretrain", "tiny", ["--method.num-clusters", "1"], "method.num_clusters.0=1"),
        ("pretrain", "tiny", ["--runtime.kind", "workers", "--runtime.num-workers", "7"], "num_workers=7"),
        ("distill", "tiny", ["--method.alpha", "1.5"], "method.alpha=1.5"),
        ("distill", "tiny", ["--method.cut", "fc2", "--encoder.cut", "block1"], "method.cut=fc2"),
        ("prepare", "default", ["--task", "us8k", "--source", "x"], "contradict each other"),
        ("prepare", "default", ["--max-seconds", "0.05"], "max_seconds=0.05 is less than min_seconds=0.1"),
        ("prepare", "default", ["--max-seconds", "1e-9", "--min-seconds", "1e-9"], "max_seconds=1e-09"),
        ("embed", "default", ["--max-seconds", "1e-9"], "max_seconds=1e-09"),
        ("embed", "default", ["--hop-seconds", "1"], "hop_seconds=1 has no effect"),
        ("evaluate", "default", ["--random-seeds", "-1"], "random_seeds=-1"),
        ("pretrain", "tiny", ["--optimizer.momentum", "0.5"], "optimizer.momentum=0.5 has no effect with name=adamw"),
        (
            "pretrain",
            "tiny",
            ["--runtime.compress-gradients"],
            "compress_gradients=True has no effect with num_workers=1",
        ),
        ("pretrain", "tiny", ["--watch.every", "2"], "watch.every=2 has no effect without watch.data"),
        ("distill", "tiny", ["--fork", "a", "--init-from", "b"], "init_from=b has no effect with fork=a"),
        ("distill", "tiny", ["--labels.origin", "random", "--teacher", "x"], "teacher=x has no effect with labels."),
        ("distill", "tiny", ["--method.beta", "0", "--method.mse-of", "features"], "method.mse_of=features has no"),
        ("distill", "tiny", ["--method.alpha", "1", "--method.temperature", "3"], "method.temperature=3.0 has no"),
        (
            *("distill", "tiny", ["--method.alpha", "1", "--method.beta", "0", "--method.no-detach-teacher"]),
            "method.detach_teacher=False has no effect with alpha=1 and beta=0",
        ),
        ("distill", "tiny", ["--checkpoint.keep-assignments", "2"], "checkpoint.keep_assignments=2 has no effect in a"),
        ("pretrain", "cola-corpus", ["--checkpoint.keep-assignments", "2"], "keep_assignments=2 has no effect with"),
        (
            "pretrain",
            "cola-corpus",
            ["--health.max-cluster-share", "0.3"],
            "health.max_cluster_share=0.3 has no effect",
        ),
        ("distill", "tiny", ["--health.on-collapse", "stop"], "health.on_collapse=stop has no effect in a"),
        ("distill", "tiny", ["--crop.num-crops", "2"], "crop.num_crops=2 has no effect with method.num_views=1"),
        ("compare", "tiny", ["--stages", "train", "--against", "x"], "against=x has no effect with stages=('train',)"),
        ("sweep", "tiny", ["--no-early-stopping", "--grace", "0.5"], "grace=0.5 has no effect without early stopping"),
        ("index", "default", ["--metric", "cosine", "--components", "4"], "components=4 has no effect with metric="),
    ],
)
def test_a_job_that_cannot_work_ends_with_code_2_and_one_message(
    command_line: Callable[..., Ended], job: str, recipe: str, flags: list[str], told: str
) -> None:
    ended = command_line(job, recipe, *flags)
    assert (ended.code, ended.out) == (2, "")
    assert told in ended.err and ended.err.count("error:") == 1 and "Traceback" not in ended.err
