"""The package from Python: a quick import, public names, paths, and the refusals of the command line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import unfused_ray
from unfused_ray import paths
from unfused_ray.config import (
    DuplicatesConfig,
    EvaluateConfig,
    ExportConfig,
    PrepareConfig,
    PretrainConfig,
    SearchConfig,
    SweepConfig,
)

SUBMITTED = "RAY_JOB_CONFIG_JSON_ENV_VAR"  # set by `ray job submit`


def test_importing_the_package_is_quick_and_changes_nothing() -> None:
    code = """
import os, sys
before = dict(os.environ)
import unfused_ray
assert set(unfused_ray.__all__) <= set(dir(unfused_ray))
from unfused_ray import pretrain, recipe
assert recipe("pretrain/tiny", {"optimizer.lr": 0.5}).optimizer.lr == 0.5
assert dict(os.environ) == before
assert not {"torch", "ray", "mlflow", "matplotlib", "pyarrow"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_public_name_is_there_and_others_are_not() -> None:
    assert all(getattr(unfused_ray, name) for name in unfused_ray.__all__)
    with pytest.raises(AttributeError, match="no attribute 'train'"):
        _ = unfused_ray.train  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("call", "recipe", "changes", "message"),
    [
        ("pretrain", "tinny", {}, r"tinny is no recipe: did you mean tiny\? Or name one of demo, "),
        ("pretrain", 3, {}, "3 is no recipe: give a recipe's name, the path of its JSON file, or a PretrainConfig"),
        ("pretrain", PrepareConfig(), {}, "^PrepareConfig is no recipe: give"),
        ("pretrain", Path("tinny"), {}, "tinny is no recipe: did you mean tiny"),
        ("pretrain", "tiny", {"optimiser": 1}, "optimiser is no field of PretrainConfig"),
        ("pretrain", "tiny", {"optimizer.lr": -1}, r"optimizer\.lr=-1: Input should be greater than 0"),
        ("distill", "tiny", {"teacher": "s3://me:secret@bucket/run"}, r"teacher=s3://…@bucket/run holds credentials"),
        ("prepare", "default", {"output": "x"}, "source='' names nothing"),
        ("embed", "default", {"encoder": "s3://me:secret@bucket/run"}, "encoder=.* holds credentials"),
        ("index", "default", {"vectors": "x"}, "output='' names nothing"),
        ("evaluate", "default", {}, r"tasks=\(\) names nothing"),
        ("compare", "tiny", {}, "data_root='' names nothing"),
        (
            "compare",
            "mine.toml",
            {"data_root": "x"},
            "plan=mine.toml is neither one of ablation, corpus",
        ),
        ("sweep", "tiny", {"space": "beta", "tasks": ("a",)}, "space=beta is not one of alpha-beta"),
    ],
)
def test_what_cannot_work_is_refused_as_on_the_command_line(
    call: str, recipe: Any, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        getattr(unfused_ray, call)(recipe, **changes)


@pytest.mark.parametrize("call", ["prepare", "pretrain", "distill", "evaluate", "compare", "sweep", "embed", "index"])
def test_a_relative_output_is_refused_in_a_submitted_job(call: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SUBMITTED, "{}")
    recipe = "default" if call in ("prepare", "evaluate", "embed", "index") else "tiny"
    with pytest.raises(ValueError, match="output=relative/out is relative, but a submitted job"):
        getattr(unfused_ray, call)(recipe, output="relative/out")


@pytest.mark.parametrize("arguments", [[], ["--dry-run"]])
@pytest.mark.parametrize("value", ["/nowhere", "s3://me:secret@bucket/shards"])
def test_wrong_data_are_told_before_ray_or_torch_is_imported(value: str, arguments: list[str]) -> None:
    code = f"""
import contextlib, sys
from unfused_ray.cli.main import main
sys.argv = {["unfused-ray", "pretrain", "tiny", "--runtime.kind", "workers", "--data", value, *arguments]}
with contextlib.suppress(SystemExit):
    main()
assert not {{"torch", "ray"}} & set(sys.modules)
"""
    ended = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert ended.stderr.startswith(("error: /nowhere", "error: data=s3://…@bucket/shards holds credentials"))


def test_paths_no_longer_depend_on_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/me")
    config = EvaluateConfig(tasks=("a", "s3://bucket/b"), cache="~/cache", protocol="/p.toml")
    resolved = paths.resolve(config)
    assert resolved.tasks == (f"{tmp_path}/a", "s3://bucket/b")
    assert (resolved.cache, resolved.protocol, resolved.output) == ("/home/me/cache", "/p.toml", "")
    assert paths.resolve(resolved) == resolved
    sweep = SweepConfig(tasks=("a",)).replace({"distill.teacher": "runs/t", "distill.init_from": "runs/i"})
    distill = paths.resolve(sweep).distill
    assert (distill.teacher, distill.init_from) == (f"{tmp_path}/runs/t", f"{tmp_path}/runs/i")


def test_what_is_given_beside_a_configuration_is_not_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    from unfused_ray.retrieval import duplicates_job, search

    monkeypatch.setattr(search, "check", lambda config: config)
    monkeypatch.setattr(search, "run", lambda config: config)
    with pytest.raises(ValueError, match="a search asks one question, not query and label"):
        unfused_ray.search(SearchConfig(index="/ix", label="dog"), "/dog.wav")
    asked: Any = unfused_ray.search(SearchConfig(index="/ix", query="/cat.wav", count=3), "/dog.wav")
    assert (asked.index, asked.query, asked.count) == ("/ix", "/dog.wav", 3)
    for other in (unfused_ray.search("/ix", "/dog.wav"), unfused_ray.search("/ix", query="/dog.wav")):
        assert other == SearchConfig(index="/ix", query="/dog.wav")
    assert unfused_ray.search(asked) == asked
    assert unfused_ray.search(asked, index="/other") == asked.replace(index="/other")
    monkeypatch.setattr(duplicates_job, "check", lambda config: config)
    monkeypatch.setattr(duplicates_job, "run", lambda config: config)
    looked: Any = unfused_ray.duplicates(DuplicatesConfig(sources=("/a",), against=("/b",)), ["/c"])
    assert (looked.sources, looked.against) == (("/a",), ("/c",))
    assert unfused_ray.duplicates(looked, ()) == DuplicatesConfig(sources=("/a",))
    assert unfused_ray.duplicates("/a", against="/c") == looked


def test_what_is_no_name_of_a_recipe_is_refused() -> None:
    with pytest.raises(ValueError, match="5 is no recipe: give its name"):
        unfused_ray.recipe(5)  # type: ignore[arg-type]


def test_an_export_takes_its_encoder_first_as_on_the_command_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from unfused_ray.exports import job as exports_job

    monkeypatch.setattr(exports_job, "check", lambda config: config)
    monkeypatch.setattr(exports_job, "run", lambda config: config)
    asked: Any = unfused_ray.export(tmp_path, to="torch")
    assert asked == ExportConfig(encoder=str(tmp_path), to="torch")
    assert unfused_ray.export(encoder=tmp_path, to="torch") == unfused_ray.export(asked) == asked
    with pytest.raises(ValueError, match="encoder='' names nothing"):
        unfused_ray.export()


def test_paths_may_be_path_objects_alone_or_in_lists() -> None:
    assert PrepareConfig(source=Path("a b"), output=Path("c")).source == "a b"  # type: ignore[arg-type]
    assert EvaluateConfig().replace(tasks=[Path("x"), "s3://y"]).tasks == ("x", "s3://y")
    assert PretrainConfig().replace({"data": Path("x"), "watch.data": (Path("z"),)}).watch.data == ("z",)
    assert PretrainConfig().replace(data=Path("x")).data == ("x",)
