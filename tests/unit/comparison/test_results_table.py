"""The results table: one command from a plan to rows with intervals; it resumes, and refuses mixed plans."""

from __future__ import annotations

import json
import logging
import shutil
import sys
import tomllib
from collections.abc import Callable
from copy import copy
from pathlib import Path
from threading import Event, Thread
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.paths import ROOT
from support.processes import wait_for
from support.runs import train
from support.tasks import PROTOCOL, write_folds, write_task

from unfused_ray import recipes, storage
from unfused_ray.comparison import job, page, processes, results
from unfused_ray.comparison import plan as comparison_plan
from unfused_ray.comparison.budget import clip_operations, epochs_of, within_budget
from unfused_ray.comparison.plan import ComparisonPlan
from unfused_ray.comparison.table_plan import PlannedSystem, load_plan
from unfused_ray.comparison.validation import ValidationTable
from unfused_ray.config import CompareConfig, EncoderConfig, EvaluateConfig, FrontEndConfig, PretrainConfig
from unfused_ray.data.shards.index import ClipIndex
from unfused_ray.evaluation.cells import MEASURES, Cell
from unfused_ray.evaluation_job import job as evaluation_job
from unfused_ray.evaluation_job import plan as evaluation_plan
from unfused_ray.models.cost import cost_of
from unfused_ray.runs.run import CONFIGS, Run
from unfused_ray.runs.status import Status

COMPARISON = ROOT / "unfused_ray" / "comparison"
PLANS = sorted((COMPARISON / "plans").glob("*.toml"))
TRAININGS = ["decar-v2-seed-0", "unfused-seed-0-drums", "unfused-seed-0-languages"]
EVALUATIONS = 2 * ["tiny-drums", "tiny-languages"]  # first trained encoders, then random networks


class InProcess(processes.JobProcesses):
    """Runs jobs in this process, without tracking and pictures: these take tens of seconds and have other tests."""

    begun: ClassVar[list[str]]
    """Names of the jobs in the newest run of a plan."""

    def __init__(self, logs: Path, threads: int) -> None:
        InProcess.begun = []

    def run(self, job: str, settings: str, name: str) -> None:
        InProcess.begun.append(name)
        text = Path(settings).read_bytes()
        if job == "evaluate":
            evaluation_job.run(evaluation_plan.check(EvaluateConfig.model_validate_json(text)))
            return
        config = CONFIGS[job].model_validate_json(text)
        status = train(config, in_sweep=True)
        if status.state != "finished":
            raise ChildProcessError(f"{name} {status.state}")

    def stop(self) -> None:
        """Do nothing: no process is left."""


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    """Path of the tiny plan with an encoder of others, and a protocol that takes a second.

    That encoder takes the part of random networks, which would be above it on tones. The anchor, log-mel statistics, is
    above it on the validation clips of languages, not on the few groups of drums.
    """
    (tmp_path / "protocol.toml").write_text(PROTOCOL)
    text = (COMPARISON / "plans" / "tiny.toml").read_text()
    anchors = 'anchors = ["log-mel statistics"]\nprotocol = "protocol.toml"\n'
    text = text.replace("[tflop]", f"{anchors}[tflop]").replace("random fc2 (8 × 32)", "bands")
    (tmp_path / "plan.toml").write_text(f'{text}\n[[peers]]\nname = "bands"\nembedder = "support.embedders:Bands"\n')
    return tmp_path / "plan.toml"


def changed(plan: Path, old: str, new: str) -> Path:
    """Write a copy of a plan with ``old`` replaced by ``new``; return its path."""
    text = plan.read_text()
    assert old in text
    copy = plan.with_name("changed.toml")
    copy.write_text(text.replace(old, new))
    return copy


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The two tasks of the tiny plan, also its pre-training data; groups of drums have two clips."""
    folder = tmp_path_factory.mktemp("shards")
    for name, clips in (("drums", 2), ("languages", 1)):
        write_task(folder / name, 34, 8, 12, group=[f"{name} {clip // clips}" for clip in range(54)])
    return folder


Call = Callable[..., Any]


@pytest.fixture
def command(shards: Path, plan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Call:
    """Return a function that checks a configuration for the tiny plan; its jobs run in this process."""
    monkeypatch.setenv("UNFUSED_RAY_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(job, "JobProcesses", InProcess)

    def make(output: Path, of: Path = plan, **fields: Any) -> ComparisonPlan:
        return comparison_plan.check(CompareConfig(plan=str(of), data_root=str(shards), output=str(output), **fields))

    return make


def test_one_command_trains_reads_and_compares_and_given_again_finds_everything_done(
    command: Call,
    plan: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    output = tmp_path / "table"
    with pytest.raises(ValueError, match="no row has all of its networks trained"):
        job.run(command(output, stages=("validate",)))
    training = command(output, stages=("train", "validate"))
    validated = job.run(training)
    assert (validated.num_failed, validated.table, InProcess.begun) == (0, None, TRAININGS)
    assert not (output / "frozen.json").exists()
    first = command(output)
    assert job.run(first).num_failed == 0
    assert InProcess.begun == EVALUATIONS
    table = json.loads((output / "table.json").read_text())
    rows = {line["row"]["name"]: line for line in table["rows"]}
    assert next(iter(rows)) == "log-mel statistics"
    assert {"DECAR-v2", "UnFuSeD", "bands"} < rows.keys()
    assert (rows["bands"]["cost"], rows["bands"]["seeds"], rows["bands"]["row"]["parameters"]) == (None, [], 64)
    compared, with_random = table["comparisons"]
    assert with_random["single"] == ["UnFuSeD", with_random["second"]]  # it has one random network
    assert (compared["first"], compared["second"]) == ("UnFuSeD", "DECAR-v2")
    by_task = rows["UnFuSeD"]["row"]["difference"]["headline"]
    assert compared["difference"] == {heading: by_task[heading] for heading in compared["difference"]}
    assert list(compared["difference"]) == table["counting"] == ["languages"]
    p_values = {each["second"]: each["p_value"] for each in (compared, with_random)}
    assert {each["second"]: each["p_holm"] for each in (compared, with_random)} == pytest.approx(naive_holm(p_values))
    assert compared["single"] == ["UnFuSeD", "DECAR-v2"]
    cells = [json.loads(file.read_text()) for file in (output / "evaluations").glob("*/*/UnFuSeD*.json")]
    assert len(cells) == 2
    seeds = [seed for cell in cells for seed in cell["seeds"]]
    validation = np.mean([np.mean(seed["validation"]["scores"]["headline"]) for seed in seeds])
    assert rows["UnFuSeD"]["validation_accuracy"] == pytest.approx(validation)
    anchors = [each for each in table["anchors"] if each["measure"] == "headline"]
    assert [(each["task"], each["anchor"]) for each in anchors] == [
        (task, "log-mel statistics") for task in ("drums", "languages")
    ]
    assert table["counting"] == [each["task"] for each in anchors if each["difference"]["low"] > 0]
    for line in rows.values():
        for measure, accuracy in line["row"]["accuracy"].items():
            of_tasks = [accuracy[task]["value"] for task in ("drums", "languages")]
            assert accuracy["mean"]["value"] == pytest.approx(np.mean(of_tasks)), measure
        assert line["counting"] == line["row"]["accuracy"]["headline"]["languages"]
    gaps = {name: line["counting"]["value"] - rows["bands"]["counting"]["value"] for name, line in rows.items()}
    for name, line in rows.items():
        closed = line["gap_closed"]
        assert closed["value"] == pytest.approx(min(gaps[name] / gaps["log-mel statistics"], 1))
        assert closed["low"] is None or closed["low"] <= closed["high"] <= 1
    teacher, student = rows["DECAR-v2"]["cost"], rows["UnFuSeD"]["cost"]
    assert student["sources_tflop"] == teacher["sources_tflop"] > 0 == teacher["tasks_tflop"]
    assert student["tasks_tflop"] > 0
    frozen = json.loads((output / "frozen.json").read_text())
    markdown = (output / "table.md").read_text()
    assert frozen["protocol"] == table["protocol_sha256"] == storage.sha256((output / "protocol.toml").read_bytes())
    assert frozen["protocol"] in markdown and frozen["plan"] in markdown
    assert "| UnFuSeD¹ – DECAR-v2¹ |" in markdown and "for the 2 differences that the plan tests" in markdown
    assert "The headline is the mean over the tasks that count: languages." in markdown
    assert "| languages | **log-mel statistics +" in markdown and "| drums | log-mel statistics +" in markdown
    assert "Trained elsewhere, on other data and for longer than the budgets: bands." in markdown
    _, _, near_copies = markdown.partition("Near-copies of test clips in training:\n\n- ")
    assert "The training clips of bands are not known" in near_copies.partition("\n\n")[0]
    for name in ("accuracy_by_parameters.png", "accuracy_by_tflop.png"):
        assert (output / name).read_bytes().startswith(b"\x89PNG")
    refuse_other_validation(output, validated.validation, rows)
    kept = {file: file.stat().st_mtime_ns for file in (output / "validation").glob("*/*.json")}
    assert len(kept) == 2 * len(rows)
    assert job.run(command(output, stages=("validate",))).validation == validated.validation
    assert kept == {file: file.stat().st_mtime_ns for file in kept}

    # A copied table without its networks can be used on a machine that does not keep the vectors.
    small = tmp_path / "small"
    shutil.copytree(output, small, ignore=shutil.ignore_patterns("*.safetensors", "checkpoints"))
    monkeypatch.setenv("UNFUSED_RAY_HOME", str(tmp_path / "another home"))
    again = command(small, against="unfused")
    compared_again = job.run(again)
    assert compared_again.num_failed == 0 and compared_again.against is not None
    assert InProcess.begun == EVALUATIONS
    assert (small / "table.md").read_text() == markdown
    written = json.loads((small / "against.json").read_text())
    assert (written["reference"], written["comparisons"]) == ("UnFuSeD", table["comparisons"])
    _, _, against = page.differences(compared_again.against).partition("Difference from UnFuSeD")
    assert capsys.readouterr().out == ""
    (line,) = (line for line in against.splitlines() if line.startswith("| DECAR-v2 "))
    assert [float(cell.split()[0]) for cell in line.split("|")[2:-1]] == pytest.approx(
        [-100 * compared["difference"][column]["value"] for column in compared["difference"]],
        abs=0.06,
    )

    without = with_anchors(again)
    assert without.counting == ("drums", "languages")
    assert "The headline is the mean over all tasks: no anchor" in page.to_markdown(without)
    (found,) = (line for line in without.rows if line.row.name == "UnFuSeD")
    assert (found.counting, found.gap_closed) == (found.row.accuracy["headline"]["mean"], None)
    assert without.comparisons[0].difference == found.row.difference["headline"]

    none = with_anchors(again, "bands", random="log-mel statistics")
    assert none.counting == none.comparisons == ()
    assert {(line.counting, line.gap_closed) for line in none.rows} == {(None, None)}
    text = page.to_markdown(none)
    assert "over the tasks that count: none." in text and "Planned, but not there yet" not in text
    page.write(none, str(tmp_path / "none"))

    with pytest.raises(ValueError, match="the plan changed since test clips were first read"):
        command(output, of=changed(plan, "random_seeds = 1", "random_seeds = 2"))
    plan.with_name("protocol.toml").write_text(PROTOCOL.replace("folds = 2", "folds = 3"))
    with pytest.raises(ValueError, match="the protocol changed since test clips were first read"):
        command(output)

    taken = command(tmp_path / "other", use=(f"decar-v2={output}/runs/decar-v2/seed-{{seed}}",), stages=("train",))
    assert job.run(taken).num_failed == 0
    assert InProcess.begun == TRAININGS[1:]


def refuse_other_validation(output: Path, found: ValidationTable | None, tested: dict[str, Any]) -> None:
    """Fail unless the validation table agrees with the validation scores in the table of test clips."""
    assert found is not None
    rows = {row.name: row for row in found.rows}
    assert rows.keys() == tested.keys() and (found.tasks, found.notes) == (("drums", "languages"), ())
    assert [name for name, row in rows.items() if row.above_random] == ["DECAR-v2", "UnFuSeD"]
    for name, row in rows.items():
        assert row.accuracy["headline"]["mean"].value == pytest.approx(tested[name]["validation_accuracy"]), name
        for task in found.tasks:
            of_task = {measure: row.accuracy[measure][task].value for measure in ("headline", "neighbours", "few-shot")}
            assert of_task["headline"] == pytest.approx((of_task["neighbours"] + of_task["few-shot"]) / 2), name
    above, mean = rows["UnFuSeD"].above_random, rows["UnFuSeD"].accuracy["headline"]["mean"]
    assert above is not None and above.low <= above.value <= above.high  # two tiny networks may answer every clip alike
    random = rows["random fc1 (8 × 32)"].accuracy["headline"]["mean"]
    assert above.value == pytest.approx(mean.value - random.value)
    markdown = (output / "validation.md").read_text()
    assert markdown == found.to_markdown() and "No score here is of a test clip." in markdown
    assert mean.text() in markdown and above.text("+") in markdown


def with_anchors(of: ComparisonPlan, *anchors: str, random: str = "random fc2 (8 × 32)") -> results.ResultsTable:
    """Return the table of the same cells with other anchors."""
    trainings, finished = copy(of.trainings), of.finished()
    trainings.plan = of.table.replace(anchors=anchors, random=random)
    config = of.evaluation(finished, of.table.random_seeds, *of.table.tasks)
    return results.results(trainings, finished, config, of.evaluations_folder, of.table.reference)


def test_a_training_that_stopped_goes_on_and_leaves_out_what_builds_on_it_until_then(
    command: Call, plan: Path, tmp_path: Path, stop_after: Callable[[int], None], caplog: pytest.LogCaptureFixture
) -> None:
    stop_after(1)
    stopped = command(tmp_path, stages=("train",))
    assert job.run(stopped).num_failed == len(TRAININGS)
    assert InProcess.begun == TRAININGS[:1]
    nothing = job.run(command(tmp_path))  # a failed training is no error of the user, though no row can be scored
    assert (nothing.num_failed, nothing.table) == (len(TRAININGS), None)
    assert "failed: decar-v2-seed-0 stopped" in caplog.text
    assert "Traceback" not in caplog.text
    half = Run(str(tmp_path / "runs" / "decar-v2" / "seed-0"))
    status = half.status()
    assert status is not None and status.state == "stopped"
    begun = half.record()["id"]
    (training,) = command(tmp_path, only=("decar-v2",)).chosen()
    assert training.state == "begun"
    stop_after(-1)
    assert job.run(command(tmp_path, only=("decar-v2",), stages=("train",))).num_failed == 0
    status = half.status()
    assert status is not None and status.state == "finished"
    assert half.record()["id"] == begun
    with pytest.raises(ValueError, match=r"was trained for \d+ epochs"):
        command(tmp_path, only=("decar-v2",), of=changed(plan, "sources = 0.0", "sources = 9.0")).chosen()
    assert not (tmp_path / "frozen.json").exists()  # no test clip was read, so the plan may still change


def test_a_system_has_the_budget_and_the_seeds_that_it_says(command: Call, plan: Path, tmp_path: Path) -> None:
    text = plan.read_text().replace("seeds = [0]", "seeds = [0, 1]")
    more = plan.with_name("budgets.toml")
    more.write_text(f'{text}\n[[systems]]\nname = "long"\nrecipe = "tiny"\ntflop = 0.0032\nseeds = [1]\n')
    of = command(tmp_path, of=more)
    trainings = {(each.system.name, each.seed): each for each in of.chosen() if each.task in ("", "drums")}
    assert list(trainings) == [
        ("DECAR-v2", 0), ("UnFuSeD", 0), ("DECAR-v2", 1), ("UnFuSeD", 1), ("long", 1),
    ]  # fmt: skip
    assert trainings["long", 1].tflop == pytest.approx(4 * trainings["DECAR-v2", 1].tflop, rel=0.3)
    assert trainings["long", 1].tflop == pytest.approx(0.0032, rel=0.1)


@pytest.mark.parametrize("path", PLANS, ids=lambda path: path.stem)
def test_every_system_of_a_plan_has_a_configuration(path: Path) -> None:
    plan = load_plan(path)
    for system in plan.systems:
        config = system.config({"seed": 1})
        assert config.stage == system.job
        assert config.seed == 1


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('teacher = "DECAR-v2"', 'teacher = "BYOL"', "'BYOL' is not an earlier system"),
        ('name = "UnFuSeD"', 'name = "decar v2"', "another system has this name"),
        (
            'anchors = ["log-mel statistics"]',
            'anchors = ["BEATs"]',
            "anchors: 'BEATs' is not a row of the plan; these are DECAR-v2",
        ),
        ('random = "bands"', 'random = "random fc9"', "random: 'random fc9' is not a row of the plan"),
        ('anchors = ["log-mel statistics"]', 'synthetic = ["drums"]', "synthetic=.*Extra inputs are not permitted"),
        ("each_task = 0.0", "all_tasks = 0.0", "tflop.each_task is missing: UnFuSeD"),
        ('["UnFuSeD", "DECAR-v2"]', '["UnFuSeD", "BYOL"]', "compare: 'BYOL' is not a row"),
        (
            '"random fc1 (8 × 32)"',
            '"random fc3"',
            "'random fc3' is not a row of the plan.* random fc1, random fc2",
        ),
        ('"support.embedders:Bands"', '"bands.py"', "bands: 'bands.py' is not a module:callable"),
        ('"bands"', '"UnFuSeD"', "systems: 'UnFuSeD' is the name of another row too"),
        (
            'teacher = "DECAR-v2"',
            'teacher = "DECAR-v2"\nseeds = [1]',
            "UnFuSeD: 'DECAR-v2' is not trained with seed 1",
        ),
        ('recipe = "tiny"\n\n', 'recipe = "tiny"\nseeds = [3]\n', "DECAR-v2: seed 3 is not in the plan"),
        ("seeds = [0]", "seeds = [0, 0]", "seeds: 0 is given more than once"),
        ('recipe = "tiny"\n\n', 'recipe = "tiny"\nseeds = [0, 0]\n\n', "DECAR-v2: seeds: 0 is given more than once"),
        ('tasks = ["drums"', 'tasks = ["drums", "drums"', "tasks: 'drums' is given more than once"),
        (
            'tasks = ["drums"',
            'tasks = ["more/drums"',
            "tasks: 'more/drums' must be the name of a folder directly",
        ),
        ('name = "tiny"', 'name = "tables/tiny"', "name='tables/tiny': a plan's name is that of a folder"),
        ('["UnFuSeD", "DECAR-v2"]', '["UnFuSeD", "UnFuSeD"]', "compare: 'UnFuSeD' cannot be compared with itself"),
        ('name = "UnFuSeD"', 'name = "β = 0"', "'β = 0': a system's name .* neither a slash nor a ="),
        ('name = "UnFuSeD"', 'name = "学生"', "'学生': a system's name has a letter from a to z or a digit"),
        ('"UnFuSeD"', '"random fc1"', "systems: 'random fc1' is the name of another row too"),
        (
            'on = "each task"',
            'on = "each task"\nsettings = { splits = ["train", "test"] }',
            "UnFuSeD: settings.splits=.*: a network of each task trains on their training clips",
        ),
        (
            'recipe = "tiny"\n\n',
            'recipe = "tiny"\nsettings = { splits = ["train", "test-far"] }\n\n',
            "DECAR-v2: settings.splits has 'test-far', and the source drums is a task, too",
        ),
        ("seeds = [0]", "seeds = [-1]", "seeds.0=-1: Input should be greater than or equal to 0"),
        ("seeds = [0]", "seeds = [0", "not a TOML"),
    ],
)
def test_an_impossible_plan_is_refused_with_what_is_wrong(plan: Path, old: str, new: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_plan(changed(plan, old, new))


def test_an_unknown_recipe_setting_system_or_seed_is_named(command: Call, tmp_path: Path) -> None:
    system = PlannedSystem
    with pytest.raises(ValueError, match=r"a cannot be trained:\npretrain/nothing is no recipe"):
        system(name="a", recipe="nothing").config({})
    with pytest.raises(ValueError, match=r"(?s)a cannot be trained.*method\.alpha is no field"):
        system(name="a", recipe="tiny", settings={"method.alpha": 1}).config({})
    with pytest.raises(ValueError, match="a cannot be trained"):
        system(name="a", recipe="tiny", settings={"batch.block": 1}).config({})
    with pytest.raises(ValueError, match="'cola' is not a row of the plan; these are DECAR-v2, UnFuSeD, bands"):
        command(tmp_path, only=("cola",))
    with pytest.raises(ValueError, match="'random' is not a row of the plan"):
        command(tmp_path, against="random")
    with pytest.raises(ValueError, match="are not in the plan"):
        command(tmp_path, seeds=(7,))
    with pytest.raises(ValueError, match="SYSTEM=FOLDER"):
        command(tmp_path, use=("decar-v2",))
    with pytest.raises(ValueError, match="each system given once"):
        command(tmp_path, use=("decar-v2=/a", "DECAR-v2=/b"))
    with pytest.raises(ValueError, match=r"a: settings\.epochs=3 would be ignored: give tflop"):
        system(name="a", recipe="tiny", settings={"epochs": 3})
    for field in ("fork", "labels_of"):
        with pytest.raises(ValueError, match=rf"a: settings\.{field}=3 would be ignored"):
            system(name="a", recipe="tiny", settings={field: 3})
    for field in ("stop_after", "watch.patience"):
        with pytest.raises(ValueError, match=rf"a: settings\.{field}=3 would end the training before its TFLOP"):
            system(name="a", recipe="tiny", settings={field: 3})
    with pytest.raises(ValueError, match=r"whole group, and its other fields .* in quotes, \"encoder\.cut\""):
        system(name="a", recipe="tiny", settings={"encoder": {"cut": "fc1"}})
    with pytest.raises(ValueError, match=r"a: teacher=b would be ignored: labels\.origin=random uses no teacher"):
        system(name="a", job="distill", recipe="tiny", teacher="b", settings={"labels.origin": "random"})
    with pytest.raises(FileNotFoundError, match="nowhere is not the folder of a run"):
        job.run(command(tmp_path, use=(f"decar-v2={tmp_path}/nowhere",), stages=("train",)))
    with pytest.raises(FileNotFoundError, match=r"seed-\{seed\} is not a run's folder for any seed of 0"):
        command(tmp_path, use=(f"decar-v2={tmp_path}/elsewhere/seed-{{seed}}",))
    Run(str(tmp_path / "seed-0")).open(PretrainConfig(seed=7), {})
    for folder in ("seed-0", "seed-{seed}"):
        with pytest.raises(ValueError, match="seed-0 was trained with seed 7, not with 0"):
            command(tmp_path, use=(f"decar-v2={tmp_path}/{folder}",)).chosen()
    early = Run(str(tmp_path / "early"))
    early.open(PretrainConfig(seed=0, epochs=20), {})
    early.write_status(Status("finished", 12, 0))
    with pytest.raises(ValueError, match="early ended early, after 12 of 20 epochs"):
        command(tmp_path, use=(f"decar-v2={tmp_path}/early",)).chosen()
    Run(str(tmp_path / "begun")).open(PretrainConfig(seed=0), {})
    with pytest.raises(ValueError, match="begun is not finished; finish it by its own command"):
        command(tmp_path, use=(f"decar-v2={tmp_path}/begun",)).chosen()


@given(budget=st.floats(0.01, 1000), epoch=st.floats(0.01, 100))
def test_no_number_of_epochs_comes_nearer_to_the_budget(budget: float, epoch: float) -> None:
    epochs = epochs_of(budget, epoch)
    assert epochs >= 1
    for other in (epochs - 1, epochs + 1):
        if other >= 1:
            assert abs(epochs * epoch - budget) <= abs(other * epoch - budget) * (1 + 1e-9)
    assert within_budget(epochs, budget, epoch)
    assert not within_budget(2 * epochs + 2, budget, epoch)


def test_a_training_step_costs_three_forward_passes_and_more_views_cost_more(shards: Path) -> None:
    data = (str(shards / "drums"),)
    index = ClipIndex.load(data, ("train",))
    found = {}
    for name in ("tiny", "cola-tiny", "byol-a-tiny"):
        config = recipes.PRETRAIN[name][1].replace(data=data)
        found[name] = clip_operations(config, index)
    student = recipes.DISTILL["tiny"][1].replace(data=data)
    found["student"] = clip_operations(student, index)
    full_pass = recipes.PRETRAIN["tiny"][1].replace({"data": data, "method.labels_from": "full_pass"})
    seconds = student.crop.seconds
    forward = 2 * seconds * cost_of(EncoderConfig(channels=8, width=32), FrontEndConfig())[1]
    assert 2.3 * forward < found["student"] < 4 * forward  # no gradient of the input, but heads
    assert found["student"] < 0.6 * found["tiny"]
    assert found["tiny"] < clip_operations(full_pass, index) < found["tiny"] + 1.5 * forward
    assert found["cola-tiny"] < found["byol-a-tiny"]  # BYOL-A's target network computes both views too


def naive_holm(p_values: dict[str, float]) -> dict[str, float]:
    """Return adjusted p values: the smallest level at which the step-down test rejects each."""
    levels = sorted({min(1.0, k * p) for p in p_values.values() for k in range(1, len(p_values) + 1)} | {1.0})
    found = {}
    for level in levels:
        left = dict(p_values)
        while left:
            name = min(left, key=lambda name: left[name])
            if min(1.0, len(left) * left[name]) > level:
                break
            found.setdefault(name, level)
            del left[name]
    return found


@given(st.lists(st.floats(1e-4, 1), min_size=1, max_size=7))
def test_holm_agrees_with_stepping_down_level_by_level(p_values: list[float]) -> None:
    named = {str(place): p for place, p in enumerate(p_values)}
    assert results.holm(named) == pytest.approx(naive_holm(named))


def test_an_unknown_p_value_counts_as_a_comparison_and_stays_unknown() -> None:
    found = results.holm({"a": 0.01, "b": float("nan")})
    assert found["a"] == pytest.approx(0.02)
    assert np.isnan(found["b"])


def test_what_waits_for_another_training_holds_no_place(
    command: Call, plan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[str] = []
    last_begins = Event()

    class Waiting(InProcess):
        def run(self, job: str, settings: str, name: str) -> None:
            begun.append(name)
            if name.startswith("cola"):
                last_begins.set()
            assert last_begins.wait(10)

    monkeypatch.setattr(job, "JobProcesses", Waiting)
    more = plan.with_name("more.toml")
    more.write_text(plan.read_text() + '\n[[systems]]\nname = "COLA"\nrecipe = "cola-tiny"\n')
    assert job.run(command(tmp_path / "table", processes=2, stages=("train",), of=more)).num_failed == 0
    assert set(begun[:2]) == {"decar-v2-seed-0", "cola-seed-0"}
    assert set(begun[2:]) == {"unfused-seed-0-drums", "unfused-seed-0-languages"}


def test_a_system_of_all_tasks_is_refused_if_every_task_has_folds(plan: Path, tmp_path: Path) -> None:
    for name in ("drums", "languages"):
        write_folds(tmp_path / "folds" / name, (12, 12, 12))
    config = CompareConfig(plan=str(plan), data_root=str(tmp_path / "folds"), output=str(tmp_path / "table"))
    of = comparison_plan.check(config)
    system = PlannedSystem(name="a", recipe="tiny", on="all tasks")
    with pytest.raises(ValueError, match="a: on='all tasks' has no clips: every task has folds"):
        of.trainings.of(system, 0)


def test_a_choice_of_what_to_train_is_refused_where_nothing_is_trained(command: Call, tmp_path: Path) -> None:
    for choice in ({"only": ("unfused",)}, {"seeds": (0,)}):
        with pytest.raises(ValueError, match=r"has no effect with stages=\('evaluate',\), none of which trains"):
            command(tmp_path, stages=("evaluate",), **choice)
        command(tmp_path, stages=("evaluate",), list=True, **choice)
    with pytest.raises(ValueError, match=r"has no effect on UnFuSeD with only=\('decar-v2',\)"):
        command(tmp_path, stages=("train",), only=("decar-v2",), use=(f"unfused={tmp_path}/nowhere",))


def test_what_is_for_gpus_is_not_squeezed_beside_others_onto_this_machine(
    command: Call, plan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    large = changed(plan, 'recipe = "tiny"\n\n', 'recipe = "tiny"\nsettings = { "runtime.gpus_per_worker" = 1 }\n\n')
    for begin in (job.run, comparison_plan.describe):
        with pytest.raises(ValueError, match="processes=2 without RAY_ADDRESS would train decar-v2-seed-0"):
            begin(command(tmp_path / "table", processes=2, stages=("train",), of=large))
    assert not (tmp_path / "table").exists()


def test_what_an_evaluation_would_end_with_is_refused_before_anything_is_trained_and_by_a_dry_run(
    command: Call, plan: Path, tmp_path: Path
) -> None:
    absent = changed(plan, "support.embedders:Bands", "support.embedders:Absent")
    for begin in (job.run, comparison_plan.describe):
        with pytest.raises(ValueError, match=r"support\.embedders:Absent cannot be made"):
            begin(command(tmp_path / "table", of=absent))
        with pytest.raises(ValueError, match="no row has all of its networks trained"):
            begin(command(tmp_path / "table", stages=("evaluate",)))
    assert not (tmp_path / "table").exists()


def test_seeds_of_a_row_are_one_cell_whose_accuracy_is_their_mean() -> None:
    rng = np.random.default_rng(0)
    groups = np.array(["a", "b", ""])
    seeds = [
        Cell(
            {measure: share * rng.random((1, 20)) for measure in MEASURES},
            {measure: np.full((1, 3), share) for measure in MEASURES},
            np.arange(3),
            groups,
            np.ones(20),
            [{"seed": share}],
            int(10 * share),
        )
        for share in (0.2, 0.9)
    ]
    cell = Cell.joined(seeds)
    assert cell.num_networks == 2
    for measure in MEASURES:
        assert (cell.scores[measure].shape, cell.validation[measure].shape) == ((2, 20), (2, 3))
        assert cell.accuracy(measure) == pytest.approx(np.mean([seed.accuracy(measure) for seed in seeds]))
        assert cell.validation_accuracy(measure) == pytest.approx(0.55)
    assert cell.validation_groups.tolist() == groups.tolist()
    assert cell.results == [{"seed": 0.2}, {"seed": 0.9}]
    assert cell.damaged == 9


def test_seeds_are_joined_by_the_validation_clips_that_none_of_them_found_damaged() -> None:
    """numpy could not concatenate them; folds of other clips come in another order."""
    groups = np.array(list("abcde"))
    clips = [np.array([4, 0, 3, 1]), np.array([0, 1, 2, 3, 4]), np.array([1, 3, 4])]
    seeds = [
        Cell(
            {measure: np.zeros((1, 2)) for measure in MEASURES},
            dict.fromkeys(MEASURES, (each + 10.0 * number)[None]),
            each,
            groups[each],
            np.ones(2),
            [],
            5 - len(each),
        )
        for number, each in enumerate(clips)
    ]
    cell = Cell.joined(seeds)
    assert cell.validation_groups.tolist() == ["e", "d", "b"]
    for measure in MEASURES:
        assert cell.validation[measure].tolist() == [[4, 3, 1], [14, 13, 11], [24, 23, 21]]
    assert Cell.joined([cell, seeds[2]]).validation_clips.tolist() == [4, 3, 1]


def test_the_papers_numbers_are_all_printed_under_a_heading_of_their_own() -> None:
    printed = tomllib.loads((COMPARISON / "as_printed.toml").read_text())
    assert all(len(row) == len(printed["tasks"]) == 11 for row in printed["accuracy"].values())
    text = page.as_printed()
    assert text.startswith("As printed:")
    for name, row in printed["accuracy"].items():
        assert f"| {name} | {' | '.join(map(str, row))} |" in text


def test_a_fault_of_the_project_is_no_failed_training(
    command: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(error: Exception) -> Callable[..., None]:
        def run(self: InProcess, job: str, settings: str, name: str) -> None:
            raise error

        return run

    with caplog.at_level(logging.DEBUG):
        monkeypatch.setattr(InProcess, "run", fail(ChildProcessError("it ended with code 4")))
        assert job.run(command(tmp_path, stages=("train",))).num_failed == len(TRAININGS)
        assert "failed: it ended with code 4" in caplog.text
        assert "Traceback" in caplog.text  # the log file has it
    monkeypatch.setattr(InProcess, "run", fail(KeyError("name")))
    with pytest.raises(KeyError, match="name"):
        job.run(command(tmp_path, stages=("train",)))


def test_a_failed_process_is_reported_with_the_end_of_its_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = processes
    monkeypatch.setattr(module, "command", lambda job, settings: [sys.executable, "-c", settings])
    jobs = module.JobProcesses(tmp_path, threads=3)
    jobs.run("pretrain", "import os; print('threads', os.environ['OMP_NUM_THREADS'])", "good")
    assert (tmp_path / "good.log").read_text() == "threads 3\n"
    with pytest.raises(ChildProcessError, match=r"bad ended with code 4, see .*bad\.log\n  no such shard"):
        jobs.run("pretrain", "print('no such shard'); raise SystemExit(4)", "bad")


def test_stopping_ends_what_runs_and_begins_nothing_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = processes
    monkeypatch.setattr(module, "command", lambda job, settings: ["sh", "-c", "echo begun; exec tail -f /dev/null"])
    jobs = module.JobProcesses(tmp_path)
    errors: list[str] = []

    def work() -> None:
        try:
            jobs.run("pretrain", "", "waiting")
        except ChildProcessError as error:
            errors.append(str(error))

    thread = Thread(target=work)
    thread.start()
    wait_for(lambda: (tmp_path / "waiting.log").exists() and (tmp_path / "waiting.log").read_text())
    jobs.stop()
    thread.join()
    assert "waiting ended with code -15" in errors[0]
    with pytest.raises(ChildProcessError, match="was not started"):
        jobs.run("pretrain", "", "more")


def test_tasks_with_the_same_near_copies_share_a_line() -> None:
    found = ("kws: none", "spk: 2 of 9", "lid: none", "What a heard is not known: it says nothing")
    made = SimpleNamespace(plan=SimpleNamespace(tasks=["kws", "spk", "lid"]), table=SimpleNamespace(near_copies=found))
    lines = page.near_copies(made).splitlines()[2:]  # type: ignore[arg-type]
    assert lines == ["- kws, lid: none", "- spk: 2 of 9", "- What a heard is not known: it says nothing"]
