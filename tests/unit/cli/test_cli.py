"""The command line: help, configurations, dry runs, and errors of the user: one line and exit code 2."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import soundfile
from support.paths import ROOT
from support.terminal import Ended

from unfused_ray import api, cluster
from unfused_ray.cli import COMMANDS
from unfused_ray.config import Config, PrepareConfig, PretrainConfig, TrainingConfig
from unfused_ray.doctor import examine
from unfused_ray.recipes import DISTILL, PREPARE, PRETRAIN

CommandLine = Callable[..., Ended]
SLOW = ("torch", "ray", "mlflow", "matplotlib", "sklearn", "scipy", "optuna", "pyarrow", "pandas")
"""Slow packages that --help must not import."""


@pytest.fixture
def source(tmp_path: Path) -> str:
    for split in ("train", "test"):
        wave = np.random.default_rng(len(split)).normal(0, 0.1, 4_000)
        soundfile.write(tmp_path / f"{split}.wav", wave, 16_000)
        (tmp_path / f"{split}.csv").write_text(f"wav_path,label\n{split}.wav,noise\n")
    return str(tmp_path)


def test_help_of_no_command_imports_what_is_slow() -> None:
    code = f"""
import contextlib, io, json, sys
from unfused_ray.cli.main import main
shown = {{}}
for command in ["", {", ".join(map(repr, COMMANDS))}]:
    sys.argv = ["unfused-ray", *[command] * bool(command), "--help"]
    text = io.StringIO()
    with contextlib.suppress(SystemExit), contextlib.redirect_stdout(text):
        main()
    shown[command] = text.getvalue()
print(json.dumps([shown, [name for name in {SLOW} if name in sys.modules]]))
"""
    environment = {**os.environ, "COLUMNS": "80"}
    ended = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, env=environment)
    shown, slow = json.loads(ended.stdout)
    assert slow == []
    overview = " ".join(shown[""].split())
    assert all(f" {name} {text}" in overview for name, text in COMMANDS.items())
    assert max(map(len, shown[""].splitlines())) <= 80
    for name, text in COMMANDS.items():
        assert text in " ".join(shown[name].split())
        assert "examples:\n" in shown[name]


WRONG = {
    "prepare": "source='' names nothing: give a path or a URI, --source …",
    "pretrain tiny --data /nowhere": "/nowhere holds no manifest.json",
    "evaluate": "tasks=() names nothing: give at least one folder written by unfused-ray prepare, --tasks …",
    "compare tiny": "data_root='' names nothing: give the folder of the prepared sources, --data-root …",
    "sweep tiny": "tasks=() names nothing: give at least one folder written by unfused-ray prepare, --tasks …",
    "embed --encoder e": "source='' names nothing: give a path or a URI, --source …",
    "index --vectors v": "output='' names nothing: give a path or a URI, --output …",
    "report /nowhere": "/nowhere: there is no such folder; give folders of runs",
    "runs /nowhere": "/nowhere: there is no such folder; give the folder that holds those of the runs",
}


def test_an_error_of_the_user_waits_for_nothing_that_is_slow(tmp_path: Path) -> None:
    code = f"""
import contextlib, sys
from unfused_ray.cli.main import main
for command in {[*WRONG, f"runs {tmp_path}"]}:
    sys.argv = ["unfused-ray", *command.split()]
    with contextlib.suppress(SystemExit):
        main()
print([name for name in {SLOW} if name in sys.modules and name != "pyarrow"])
"""
    ended = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    told = ended.stderr.splitlines()
    assert len(told) == len(WRONG)
    assert all(line.startswith(f"error: {message}") for line, message in zip(told, WRONG.values(), strict=True))
    assert ended.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_two_examples_and_their_settings_work(command_line: CommandLine, command: str) -> None:
    examples = import_module(f"unfused_ray.cli.{command}").EXAMPLES
    assert len(examples) == 2
    for example in examples:
        arguments = shlex.split(example)
        if command in ("report", "runs", "doctor", "tasks"):  # commands without settings to print
            ended = command_line(command, *arguments, "--help")
        else:
            ended = command_line(command, *arguments, "--print-config")
        assert ended.code == 0, ended.err


@pytest.mark.parametrize("arguments", [["--help"], ["audioset-10-percent", "-h"]])
def test_help_names_recipes_and_every_field(command_line: CommandLine, arguments: list[str]) -> None:
    ended = command_line("prepare", *arguments)
    assert ended.code == 0
    assert all(recipe in ended.out for recipe in PREPARE)
    fields = [field for field in PrepareConfig.model_fields if field != "front_end"]
    assert all(f"--{field.replace('_', '-')}" in ended.out for field in fields)
    assert "--front-end.hop" in ended.out and "--dry-run" in ended.out


@pytest.mark.parametrize(
    "command", ["prepare", "pretrain", "distill", "evaluate", "compare", "embed", "index", "sweep"]
)
def test_the_scripts_for_submitted_jobs_are_the_commands(command: str) -> None:
    script = ROOT / "tuning" / "sweep.py" if command == "sweep" else ROOT / "jobs" / f"{command}.py"
    run = subprocess.run([sys.executable, str(script), "--help"], check=True, capture_output=True, text=True)
    assert run.stdout.startswith(f"usage: unfused-ray {command} ")


def test_without_a_command_they_are_listed_and_another_is_refused(command_line: CommandLine) -> None:
    assert command_line().out == command_line("--help").out
    assert command_line("--version").out.startswith("unfused-ray 0.")
    ended = command_line("x")
    assert (ended.code, ended.out) == (2, "")
    assert ended.err == f"error: x is no command: start with one of {', '.join(COMMANDS)}\n"
    assert "pretrian is no command: did you mean pretrain? Or start with" in command_line("pretrian").err


@pytest.mark.parametrize("recipe", PRETRAIN)
def test_the_printed_configuration_is_the_recipe_with_what_was_changed(command_line: CommandLine, recipe: str) -> None:
    ended = command_line("pretrain", recipe, "--print-config")
    assert ended.code == 0
    assert PretrainConfig.model_validate_json(ended.out) == PRETRAIN[recipe][1]
    larger = {f"method.{name}": value + 1 for name, value in PRETRAIN[recipe][1].method if type(value) is int}
    changes = [part for name, value in larger.items() for part in (f"--{name.replace('_', '-')}", str(value))]
    changes += ["--augment.virtual-crop", "1", "2", "--crop.short-clips", "centre", "--splits", "", "a b"]
    ended = command_line("pretrain", recipe, *changes, "--print-config")
    assert ended.code == 0
    expected = PRETRAIN[recipe][1].replace(
        {
            **larger,
            "augment.virtual_crop": (1.0, 2.0),
            "crop.short_clips": "centre",
            "splits": ("", "a b"),
        }
    )
    assert PretrainConfig.model_validate_json(ended.out) == expected


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--output", "{source}/out"], "source='' names nothing"),
        (["--source", "{source}/[nowhere]", "--output", "{source}/out"], "{source}/[nowhere]: there is no such file"),
        (["--source", "{source}", "--output", "{source}/train.wav/out"], "cannot read {source}/train.wav/out"),
        (["--fraction", "2"], "fraction=2.0: Input should be less than or equal to 1"),
        (["--front-end.hop", "5000"], "front_end: hop=5000 must not exceed n_fft=1024"),
    ],
)
@pytest.mark.usefixtures("ray_session")
def test_what_cannot_work_is_one_line_and_code_2(
    command_line: CommandLine, source: str, arguments: list[str], message: str
) -> None:
    ended = command_line("prepare", *(argument.format(source=source) for argument in arguments))
    assert (ended.code, ended.out) == (2, "")
    assert message.format(source=source) in ended.err
    assert ended.err.startswith("error: ") and ended.err.count("\n") == 1


@pytest.mark.parametrize(("flag", "value"), [("--fractoin", "1"), ("--fraction", "half"), ("--long-clips", "drop")])
def test_unknown_fields_and_values_of_another_type_are_refused(
    command_line: CommandLine, flag: str, value: str
) -> None:
    ended = command_line("prepare", flag, value)
    assert ended.code == 2
    assert flag in ended.err


@pytest.mark.parametrize("again", [["--max-seconds", "3"], ["--max-seconds=3"], ["--max_seconds", "3"]])
def test_an_option_that_is_given_twice_is_refused(command_line: CommandLine, again: list[str]) -> None:
    ended = command_line("prepare", "--max-seconds", "2", "--output", "x", *again)
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.startswith("error: --max-seconds is given more than once")


@pytest.mark.parametrize(
    "arguments",
    [
        ["idx", "q.wav"],
        ["idx", "--query", "q.wav"],
        ["idx", "--query=q.wav"],
        ["--query", "q.wav", "idx"],
        ["--index=idx", "q.wav"],
        ["--index", "idx", "--count=7", "q.wav"],
        ["--index=idx", "--query=q.wav"],
    ],
)
def test_a_field_without_a_flag_may_have_it(command_line: CommandLine, arguments: list[str], tmp_path: Path) -> None:
    ended = command_line("search", *arguments, "--print-config")
    assert ended.code == 0, ended.err
    config = json.loads(ended.out)
    assert [Path(config[name]).name for name in ("index", "query")] == ["idx", "q.wav"]
    ended = command_line("duplicates", f"--sources={tmp_path}", "--precision=0.9", "--print-config")
    assert json.loads(ended.out)["sources"] == [str(tmp_path)]


def test_an_option_and_its_opposite_are_refused(command_line: CommandLine) -> None:
    ended = command_line("prepare", "--no-preview", "--preview")
    assert (ended.code, ended.out, ended.err.count("contradict each other")) == (2, "", 1)


def test_all_errors_of_a_configuration_are_told_at_once(command_line: CommandLine) -> None:
    ended = command_line("prepare", "--fraction", "2", "--max-seconds", "-1")
    assert ended.code == 2
    assert "fraction=2.0" in ended.err and "max_seconds=-1.0" in ended.err


def test_a_recipe_must_be_named_where_none_is_the_default(command_line: CommandLine) -> None:
    message = f"start with one of {', '.join(PRETRAIN)} (--help says more)\n"
    ended = command_line("pretrain", "--data", "x", "tiny")
    assert ended == Ended(2, "", f"error: the recipe comes first, before --data: {message}")
    assert command_line("pretrain").err == f"error: no recipe is named: {message}"
    assert "no plan is named: start with one of corpus, " in command_line("compare").err


@pytest.mark.parametrize("command", ["pretrain", "doctor", "distill", "prepare"])
def test_a_recipe_that_is_none_is_told_with_close_names_and_then_all(command_line: CommandLine, command: str) -> None:
    known = {"distill": DISTILL, "prepare": PREPARE, "doctor": {**DISTILL, **PRETRAIN}}.get(command, PRETRAIN)
    name = list(known)[-1]
    ended = command_line(command, name[:-1] + "z")
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.startswith(f"error: {name[:-1]}z is no recipe: did you mean {name}")
    assert ended.err.endswith(f"? Or name one of {', '.join(known)}\n")


@pytest.mark.parametrize("job", ["pretrain", "distill"])
def test_doctor_takes_a_printed_configuration_of_either_job(
    command_line: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, job: str
) -> None:
    asked: list[TrainingConfig] = []
    monkeypatch.setattr(cluster, "session", nullcontext)
    monkeypatch.setattr(examine, "examine", lambda config: asked.append(config) or [])
    printed = tmp_path / "mine.json"
    printed.write_text(command_line(job, "tiny", "--print-config").out)
    assert command_line("doctor", str(printed)).code == 0
    assert [config.stage for config in asked] == [job]


@pytest.mark.parametrize(
    "arguments",
    [
        "prepare --source s --output o",
        "pretrain tiny --data d",
        "distill tiny --data d",
        "evaluate --tasks t",
        "compare tiny --data-root d",
        "sweep tiny --tasks t",
        "embed --encoder e --source s --output o",
        "index --vectors v --output o",
    ],
)
def test_a_command_runs_its_function_of_the_api(
    command_line: CommandLine, arguments: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    command, *others = arguments.split()

    def refuse(config: Config, **_: object) -> None:
        raise ValueError(f"{type(config).__name__} came here")

    monkeypatch.setattr(api, command, refuse)
    assert command_line(command, *others).err == f"error: {command.capitalize()}Config came here\n"


def test_compare_has_plans(command_line: CommandLine) -> None:
    ended = command_line("compare", "--help")
    assert "plans (one must be named; a TOML file is one, too):" in ended.out and "recipes (" not in ended.out
    assert "tinny is no plan: did you mean tiny? Or name one of corpus, " in command_line("compare", "tinny").err


@pytest.mark.usefixtures("ray_session")
def test_prepare_dry_then_for_good_then_nothing_to_do(command_line: CommandLine, source: str, tmp_path: Path) -> None:
    arguments = ["prepare", "--source", source, "--output", str(tmp_path / "out")]
    ended = command_line(*arguments, "--dry-run")
    assert ended.code == 0 and "would prepare" in ended.out and not (tmp_path / "out").exists()
    first = command_line(*arguments)
    assert first.code == 0 and "prepared" in first.out and "clips of split train" in first.out
    assert command_line(*arguments).out == first.out
    assert "nothing to do" in command_line(*arguments, "--dry-run").out
