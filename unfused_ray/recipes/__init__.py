"""Named configurations: the one place for numbers that come from a paper or a measurement.

A recipe is a full configuration; some are another recipe with a few fields changed. The command line overrides any
field: ``unfused-ray pretrain decar-v2-audioset --data s3://bucket/audioset --epochs 30``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any, TypeVar

from pydantic import ValidationError

from unfused_ray import storage
from unfused_ray.config import (
    CompareConfig,
    Config,
    DistillConfig,
    EmbedConfig,
    EvaluateConfig,
    ExportConfig,
    IndexConfig,
    PrepareConfig,
    PretrainConfig,
    SweepConfig,
    explain,
)
from unfused_ray.recipes import distillation, jobs, pretraining, toys

T = TypeVar("T", bound=Config)

PREPARE: Mapping[str, tuple[str, PrepareConfig]] = {
    "default": ("Any audio, all of it.", PrepareConfig()),
    "audioset-10-percent": (
        "The paper's share of AudioSet: a reproducible tenth, clips of at most 10 s.",
        jobs.AUDIOSET_10_PERCENT,
    ),
}

PRETRAIN: Mapping[str, tuple[str, PretrainConfig]] = {
    "demo": (
        "A small network, for about a thousand clips: two minutes on two cores, eight to eleven without bfloat16.",
        pretraining.DEMO,
    ),
    "corpus": ("The free corpus (make corpus), about an hour on two cores.", pretraining.CORPUS),
    "decar-v2-audioset": (
        "The paper's setting: 10 % of AudioSet and FSD50K, four GPUs of one node.",
        pretraining.DECAR_V2_AUDIOSET,
    ),
    "cola-audioset": ("COLA at the size of the paper's setting.", pretraining.COLA_AUDIOSET),
    "delores-s-audioset": ("DeLoRes-S at the size of the paper's setting.", pretraining.DELORES_S_AUDIOSET),
    "delores-m-audioset": ("DeLoRes-M at the size of the paper's setting.", pretraining.DELORES_M_AUDIOSET),
    "byol-a-audioset": ("BYOL-A at the size of the paper's setting.", pretraining.BYOL_A_AUDIOSET),
    "slicer-audioset": ("SLICER at the size of the paper's setting.", pretraining.SLICER_AUDIOSET),
    "cola-corpus": ("COLA on the free corpus.", pretraining.COLA_CORPUS),
    "cola-tiny": ("COLA with a toy encoder.", toys.COLA_TINY),
    "delores-s-corpus": ("DeLoRes-S on the free corpus.", pretraining.DELORES_S_CORPUS),
    "delores-s-tiny": ("DeLoRes-S with a toy encoder.", toys.DELORES_S_TINY),
    "delores-m-corpus": ("DeLoRes-M on the free corpus.", pretraining.DELORES_M_CORPUS),
    "delores-m-tiny": ("DeLoRes-M with a toy encoder.", toys.DELORES_M_TINY),
    "byol-a-corpus": ("BYOL-A on the free corpus.", pretraining.BYOL_A_CORPUS),
    "byol-a-tiny": ("BYOL-A with a toy encoder.", toys.BYOL_A_TINY),
    "slicer-corpus": ("SLICER on the free corpus.", pretraining.SLICER_CORPUS),
    "slicer-tiny": ("SLICER with a toy encoder.", toys.SLICER_TINY),
    "tiny": ("A toy encoder, to try an installation out in seconds.", toys.TINY),
}

DISTILL: Mapping[str, tuple[str, DistillConfig]] = {
    "unfused": ("A target task of some thousand clips, in this process.", distillation.UNFUSED),
    "small": ("About a thousand clips, with a small teacher such as demo.", distillation.UNFUSED_SMALL),
    "unfused-cluster": (
        "A target of a hundred thousand clips: a worker group, four GPUs.",
        distillation.UNFUSED_CLUSTER,
    ),
    "demo-drums": ("The embedded recordings of drums, a minute or two on two cores.", distillation.DEMO_DRUMS),
    "demo-languages": (
        "The embedded recordings of languages, a minute or two on two cores.",
        distillation.DEMO_LANGUAGES,
    ),
    "tiny": ("A toy network, to try an installation out in seconds.", toys.UNFUSED_TINY),
}

SWEEP: Mapping[str, tuple[str, SweepConfig]] = {
    "unfused": ("Alpha and beta of UnFuSeD on your tasks.", jobs.SWEEP_UNFUSED),
    "demo": ("The embedded recordings.", jobs.SWEEP_DEMO),
    "tiny": ("A toy network, to try an installation out in seconds.", jobs.SWEEP_TINY),
}

EVALUATE: Mapping[str, tuple[str, EvaluateConfig]] = {
    "default": ("The protocol that comes with the package.", EvaluateConfig()),
}

PLANS: Mapping[str, tuple[str, CompareConfig]] = {
    "corpus": (
        "DECAR-v2, DeLoRes-M, BYOL-A, UnFuSeD on the free corpus (make corpus), ten hours.",
        CompareConfig(plan="corpus"),
    ),
    "ablation": ("UnFuSeD on the free corpus, one part of it changed per row.", CompareConfig(plan="ablation")),
    "leave-out": ("Tasks whose clips were in no pre-training.", CompareConfig(plan="leave-out")),
    "lape": ("Every method on AudioSet and the LAPE tasks: needs GPUs.", CompareConfig(plan="lape")),
    "tiny": ("A toy of every part, on the embedded recordings, two minutes.", CompareConfig(plan="tiny")),
}
"""Plans of ``unfused-ray compare``, which has no recipes: TOML files of the comparison."""

EMBED: Mapping[str, tuple[str, EmbedConfig]] = {
    "default": ("One vector per clip, or per minute of a longer recording.", EmbedConfig()),
    "windows": ("A vector every 0.95 s, the crop that encoders are trained on.", jobs.EMBED_WINDOWS),
}

EXPORT: Mapping[str, tuple[str, ExportConfig]] = {
    "default": ("An ONNX file, checked on clips of the training.", ExportConfig()),
}

INDEX: Mapping[str, tuple[str, IndexConfig]] = {
    "default": (
        "Exact up to 200,000 vectors, inverted lists above, product quantisation above 5 million.",
        IndexConfig(),
    ),
}

RECIPES: Mapping[str, Mapping[str, tuple[str, Config]]] = {
    "prepare": PREPARE,
    "pretrain": PRETRAIN,
    "distill": DISTILL,
    "evaluate": EVALUATE,
    "sweep": SWEEP,
    "embed": EMBED,
    "export": EXPORT,
    "index": INDEX,
}
"""Recipes of every job except ``compare``, which has plans: by name, a line of help and the configuration."""


def find(known: Mapping[str, tuple[str, T]], name: str) -> T:
    """Return the configuration of a job's recipe, by its name or read from a file by :func:`read_recipe`.

    Args:
        known: recipes or plans of the job, as in ``RECIPES``.
        name: name of the recipe or plan, or the path of a JSON file; for a plan, also the path of a TOML file.

    Raises:
        ValueError: there is no such recipe; names similar ones, then all.
        FileNotFoundError: there is no such JSON file.
    """
    kind = type(next(iter(known.values()))[1])
    if name in known:
        return known[name][1]
    if name.endswith(".json"):
        return read_recipe(name, kind)
    if noun(known) == "plan" and name.endswith(".toml"):
        return kind.model_validate({"plan": name})
    raise ValueError(f"{name} is no {noun(known)}: {_candidates(name, known)}")


def noun(known: Mapping[str, tuple[str, Config]]) -> str:
    """Return the word for the entries of ``known``: recipe or plan."""
    return "plan" if isinstance(next(iter(known.values()))[1], CompareConfig) else "recipe"


def recipe(name: str, changes: Mapping[str, Any] | None = None, /, **fields: Any) -> Config:
    """Return a recipe's configuration with some fields changed.

    Args:
        name: name of the recipe, with its job if several jobs have one of that name: ``pretrain/tiny``.
        changes: values by dotted name, as for :meth:`~unfused_ray.config.Config.replace`.
        fields: the same, for names without dots.

    Raises:
        ValueError: there is no such recipe, or several jobs have one, or the changes cannot work.
    """
    if not isinstance(name, str):
        raise ValueError(f"{name!r} is no recipe: give its name")
    known = {f"{job}/{short}": value for job, table in RECIPES.items() for short, value in table.items()}
    found = [full for full in known if name in (full, full.partition("/")[2])]
    if len(found) > 1:
        raise ValueError(f"{name} is a recipe of several jobs: name one of {', '.join(found)}")
    if not found:
        raise ValueError(f"{name} is no recipe: {_candidates(name, known)}")
    return known[found[0]][1].replace(changes, **fields)


def read_recipe(path: str, kind: type[T]) -> T:
    """Read a configuration written by ``--print-config`` or by a sweep.

    Raises:
        FileNotFoundError, ValueError: there is no such file, or its configuration is of another job or version.
    """
    try:
        return kind.model_validate_json(storage.read_bytes(storage.absolute(path)))
    except ValidationError as error:
        raise ValueError(f"{path} is no recipe of this job:\n{explain(error)}") from error


def _candidates(name: str, known: Iterable[str]) -> str:
    """Word the names that resemble one, closest first, then all; the same name in another job counts as similar."""
    shorts = {full: full.rpartition("/")[2] for full in known}
    best = get_close_matches(name.rpartition("/")[2], list(dict.fromkeys(shorts.values())))
    close = [full for each in best for full, short in shorts.items() if short == each]
    meant = f"did you mean {', '.join(close)}? Or " if close else ""
    return f"{meant}name one of {', '.join(known)}"
