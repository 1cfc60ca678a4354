"""The command line: help, configuration, dry runs, and one line and exit code 2 for what cannot work."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from unfused_ray import cli
from unfused_ray.config import PrepareConfig, PretrainConfig
from unfused_ray.recipes import PREPARE, PRETRAIN

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a job with these arguments: exit code, standard output, standard error."""

    def _run(job: Callable[[], int], *arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["jobs/job.py", *arguments])
        monkeypatch.setenv("COLUMNS", "200")
        with pytest.raises(SystemExit) as exit_:
            cli.main(job)
        return (int(exit_.value.code or 0), *capsys.readouterr())

    return _run


@pytest.fixture
def source(tmp_path: Path) -> str:
    for split in ("train", "test"):
        wave = np.random.default_rng(len(split)).normal(0, 0.1, 4_000)
        soundfile.write(tmp_path / f"{split}.wav", wave, 16_000)
        (tmp_path / f"{split}.csv").write_text(f"wav_path,label\n{split}.wav,noise\n")
    return str(tmp_path)


@pytest.mark.parametrize("arguments", [["--help"], ["audioset-10-percent", "-h"]])
def test_help_names_recipes_and_every_field(run: Run, arguments: list[str]):
    code, out, _ = run(cli.prepare_job, *arguments)
    assert code == 0
    assert all(recipe in out for recipe in PREPARE)
    assert all(f"--{field.replace('_', '-')}" in out for field in PrepareConfig.model_fields if field != "front_end")
    assert "--front-end.hop" in out and "--dry-run" in out


METHOD_CHANGES = {"projection_dim": "5", "decorrelation_dim": "6"}
"""Of a method, the first that it has."""


@pytest.mark.parametrize("recipe", PRETRAIN)
def test_the_printed_configuration_is_the_recipe_with_what_was_changed(run: Run, recipe: str):
    assert run(cli.pretrain_job, "--help")[0] == 0
    code, out, _ = run(cli.pretrain_job, recipe, "--print-config")
    assert code == 0
    assert PretrainConfig.model_validate_json(out) == PRETRAIN[recipe][1]
    field = next(name for name in METHOD_CHANGES if hasattr(PRETRAIN[recipe][1].method, name))
    changes = [
        f"--method.{field.replace('_', '-')}",
        METHOD_CHANGES[field],
        "--augment.virtual-crop",
        "1",
        "2",
        "--crop.short-clips",
        "centre",
    ]
    code, out, _ = run(cli.pretrain_job, recipe, "--splits", "", "a b", *changes, "--print-config")
    assert code == 0
    changed = PretrainConfig.model_validate_json(out)
    expected = PRETRAIN[recipe][1].model_dump(mode="json") | {"splits": ["", "a b"]}
    expected["method"][field] = METHOD_CHANGES[field]
    expected["augment"]["virtual_crop"] = [1.0, 2.0]
    expected["crop"]["short_clips"] = "centre"
    assert changed == PretrainConfig.model_validate(expected)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--output", "{source}/out"], "source='' names nothing"),
        (["--source", "{source}/[nowhere]", "--output", "{source}/out"], "{source}/[nowhere]: there is no such file"),
        (["--source", "{source}", "--output", "{source}/train.wav/out"], "cannot write {source}/train.wav/out"),
        (["--fraction", "2"], "fraction=2.0: Input should be less than or equal to 1"),
        (["--front-end.hop", "5000"], "front_end: hop=5000 must not exceed n_fft=1024"),
    ],
)
@pytest.mark.usefixtures("ray_session")
def test_what_cannot_work_is_one_line_and_code_2(run: Run, source: str, arguments: list[str], message: str):
    code, out, err = run(cli.prepare_job, *(argument.format(source=source) for argument in arguments))
    assert (code, out) == (2, "")
    assert message.format(source=source) in err
    assert err.startswith("error: ") and err.count("\n") == 1


@pytest.mark.parametrize(("flag", "value"), [("--fractoin", "1"), ("--fraction", "half"), ("--long-clips", "drop")])
def test_unknown_fields_and_values_of_another_type_are_refused(run: Run, flag: str, value: str):
    code, _, err = run(cli.prepare_job, flag, value)
    assert code == 2
    assert flag in err


def test_all_errors_of_a_configuration_are_told_at_once(run: Run):
    code, _, err = run(cli.prepare_job, "--fraction", "2", "--max-seconds", "-1")
    assert code == 2
    assert "fraction=2.0" in err and "max_seconds=-1.0" in err


def test_a_recipe_must_be_named_where_none_is_the_default(run: Run):
    assert run(cli.pretrain_job, "--epochs", "3") == (
        2,
        "",
        f"error: --epochs is no recipe: start with one of {', '.join(PRETRAIN)} (--help says more)\n",
    )
    assert "no recipe is named" in run(cli.pretrain_job)[2]


@pytest.mark.usefixtures("ray_session")
def test_prepare_dry_then_for_good_then_nothing_to_do(run: Run, source: str, tmp_path: Path):
    arguments = ["--source", source, "--output", str(tmp_path / "out")]
    code, _, err = run(cli.prepare_job, *arguments, "--dry-run")
    assert code == 0 and "would prepare" in err and not (tmp_path / "out").exists()
    code, _, err = run(cli.prepare_job, *arguments)
    assert code == 0 and "prepared" in err and "clips of split train" in err
    code, _, err = run(cli.prepare_job, *arguments)
    assert code == 0 and "nothing to do" in err


@pytest.mark.parametrize("job", [cli.prepare_job, cli.pretrain_job])
def test_a_relative_output_is_refused_in_a_submitted_job(
    run: Run, job: Callable[[], int], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")  # what `ray job submit` sets
    recipe = ["tiny"] if job is cli.pretrain_job else []
    code, _, err = run(job, *recipe, "--output", "relative/out")
    assert code == 2
    assert "output=relative/out is relative, but a submitted job" in err
