"""Exports as folders, for the Hugging Face hub with a model card and for torch alone, and refusals of the job."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors
import torch
from support.exports import Exportable, write_student
from support.paths import ROOT
from support.tasks import PROTOCOL
from support.terminal import text_of

from unfused_ray import api, storage
from unfused_ray.config import EvaluateConfig, ExportConfig, TrackingConfig
from unfused_ray.evaluation import cells
from unfused_ray.evaluation.systems import encoders_of
from unfused_ray.evaluation.table import FORMAT_VERSION, RECORD, EvaluationTable
from unfused_ray.evaluation_job import plan as evaluation_plan
from unfused_ray.exports import card, forms, job
from unfused_ray.exports.agreement import compare
from unfused_ray.models.export import load_encoder
from unfused_ray.models.portable import PortableEncoder


@pytest.fixture(scope="module")
def evaluation(student: Exportable, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Folder of an evaluation of the student and of a random network of its shape."""
    folder = tmp_path_factory.mktemp("evaluation")
    (folder / "protocol.toml").write_text(PROTOCOL)
    config = EvaluateConfig(
        models=(f"the student={student.run}",),
        tasks=(student.task,),
        output=str(folder / "table"),
        cache=str(folder / "embeddings"),
        protocol=str(folder / "protocol.toml"),
        random_seeds=1,
        tracking=TrackingConfig(uri="off"),
    )
    plan = evaluation_plan.check(config)  # with the files of its run, without pictures
    found = {
        (system.name, task.name): cells.compute(task, system, plan.protocol, plan.cache, 0)[0]
        for task in plan.tasks
        for system in plan.systems
    }
    EvaluationTable.of(plan.protocol, plan.tasks, plan.systems, found, plan.reference).save(config.output)
    record = {"config": config.model_dump(mode="json"), "encoders": encoders_of(plan.systems, plan.tasks)}
    storage.write_json(f"{config.output}/{RECORD}", record, FORMAT_VERSION)
    return config.output


def test_a_hub_folder_has_weights_configuration_code_and_card(student, evaluation, tmp_path):
    folder = tmp_path / "birds"
    result = api.export(encoder=student.run, to="hub", output=str(folder), licence="cc-by-4.0", evaluation=evaluation)
    code = {"configuration_unfused.py", "modeling_unfused.py", "unfused_encoder.py", "portable.py"}
    assert set(result.files) == code | {"README.md", "config.json", "model.safetensors"}
    with safetensors.safe_open(folder / "model.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt"}
        assert "encoder.fc1.weight" in file.keys()  # noqa: SIM118 - the file is no dictionary
    config = json.loads((folder / "config.json").read_text())
    assert config["auto_map"]["AutoModel"] == "modeling_unfused.UnfusedModel"
    assert config["encoder"]["shortest"] == 3_200
    card = (folder / "README.md").read_text()
    assert card.startswith("---\nlicense: cc-by-4.0\nlibrary_name: transformers\n")
    assert "# pitches-student" in card and "| method | UnFuSeD |" in card
    assert "| data | pitches, 80 clips, 0.01 hours |" in card
    assert "| licence of the recordings | not stated |" in card
    assert "| compute | 1.5 minutes, without its teacher; a machine of 2 CPUs |" in card
    assert "| precision | float32 on 2 threads of a CPU |" in card
    assert f"| begun | {time.strftime('%Y-%m-%d', time.gmtime())} |" in card
    assert "| teacher | gone, which is not there any more |" in card
    assert "| labels | clusters of its teacher's vectors |" in card and "without their labels" in card
    assert "| pitches | **the student** | " in card and "| pitches | random fc1 (4 × 16) | " in card
    assert "What these numbers do not show" in card and "Groups of test clips: 24 on pitches" in card
    assert "\n\n\n" not in card and str(tmp_path) not in card and str(Path(student.run).parent) not in card


def test_a_card_without_results_says_so(student, tmp_path):
    api.export(encoder=student.run, to="hub", output=str(tmp_path))
    card = (tmp_path / "README.md").read_text()
    assert card.startswith("---\nlibrary_name") and "it does not say how good the vectors are" in card
    assert "| licence of the weights | not stated: ask whoever publishes them |" in card


def test_a_card_says_whose_labels_were_learnt_and_by_whose_the_network_was_chosen(tmp_path):
    source = write_student(tmp_path / "source")
    seen = {"measure": "few-shot", "accuracy": 0.625, "random": 0.5, "tasks": ["pitches"], "clips": 400}
    student = write_student(
        tmp_path,
        changes={"labels.origin": "true", "teacher": "", "init_from": source.run},
        details={"epochs": 1, "run_epochs": 2, "watched": seen},
    )
    api.export(encoder=student.run, to="hub", output=str(tmp_path / "hub"))
    card = (tmp_path / "hub" / "README.md").read_text()
    assert "| labels | the classes of the clips |" in card and "Trained with the labels of its clips" in card
    assert "without their labels" not in card and "self-supervised" not in card and "| teacher |" not in card
    assert "| began with | pitches-student, UnFuSeD, on pitches, 80 clips, 0.01 hours |" in card
    assert "| compute | 1.5 minutes, without the run it began with; " in card
    assert (
        "| chosen | after 1 of 2 epochs, by few-shot on labelled validation clips of pitches (62.5%; random networks "
        "50.0%) |" in card
    )


def test_a_card_does_not_hide_what_makes_its_numbers_too_good(evaluation):
    table = EvaluationTable.load(evaluation)
    found = "pitches, test: 3 of 24 test clips have a near-copy among the 80 training clips of the student"
    limits = card.CardResults(replace(table, near_copies=(found,)), "the student", table.tasks).limits()
    assert f"{found}." in limits


def test_a_torch_folder_gives_the_vectors(student, tmp_path):
    result = api.export(encoder=student.run, to="torch", output=str(tmp_path))
    assert set(result.checks) == {"model.safetensors"}
    wave = torch.from_numpy(np.random.default_rng(0).uniform(-0.5, 0.5, (3, 5_000)).astype(np.float32))
    expected = load_encoder(student.run)(wave)
    network = PortableEncoder(**json.loads((tmp_path / "config.json").read_text()))
    network.load_state_dict(safetensors.torch.load_file(tmp_path / "model.safetensors"))
    torch.testing.assert_close(network(wave)[0], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_a_program_gives_the_vectors_of_any_batch_of_any_length(student, tmp_path):
    result = api.export(encoder=student.run, to="torch", program=True, output=str(tmp_path))
    assert result.checks["model.pt2"].max_difference < 1e-4
    wave = torch.from_numpy(np.random.default_rng(0).uniform(-0.5, 0.5, (3, 5_000)).astype(np.float32))
    assert str(ROOT).encode() not in (tmp_path / "model.pt2").read_bytes()
    program = torch.export.load(tmp_path / "model.pt2").module()
    for each in (wave, wave[:1, :7]):
        torch.testing.assert_close(program(each)[0], load_encoder(student.run)(each), rtol=1e-4, atol=1e-4)


def test_an_export_that_differs_is_not_signed(student, tmp_path, monkeypatch):
    monkeypatch.setattr(forms, "TOLERANCE", 1e-9)
    with pytest.raises(ValueError, match=r"differs from the encoder by .* on 112 clips, more than 1e-09"):
        api.export(encoder=student.run, to="torch", output=str(tmp_path))
    assert not (tmp_path / "export.json").exists()


@pytest.mark.parametrize("broken", [0, 1])
def test_an_export_whose_numbers_are_not_finite_differs(student, broken):
    encoder, waves = load_encoder(student.run), [np.zeros(3_200, np.float32), np.ones(3_200, np.float32) / 2]

    def exported(wave_BT):
        both = encoder(wave_BT).numpy(), encoder.frames(wave_BT, 16_000).vectors.numpy()
        both[broken].flat[0] = np.nan
        return both

    assert np.isnan(compare(encoder, exported, waves).max_difference)


def test_an_export_in_the_same_folder_is_replaced_whole_or_left_as_it_was(student, tmp_path, monkeypatch, caplog):
    folder = tmp_path / "out"
    hub = {"encoder": student.run, "to": "hub", "output": str(folder)}
    torch_ = {"encoder": write_student(tmp_path / "other", seed=1).run, "to": "torch", "output": str(folder)}
    api.export(**hub)
    (folder / "evaluation").mkdir()
    (folder / "evaluation" / "table.md").write_text("scores of the old network")
    (folder / "mine.txt").write_text("x")
    record = json.loads((folder / "export.json").read_text())
    assert "evaluation" not in job.check(ExportConfig(**torch_)).before  # only 8-bit exports have scores
    record["files"] |= {"../precious": 1, "..": 1, "": 1, "model-int8.onnx": 1}
    (folder / "export.json").write_text(json.dumps(record))
    (tmp_path / "precious").write_text("x")
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    with monkeypatch.context() as patch:
        patch.setattr(forms, "TOLERANCE", 1e-9)
        with pytest.raises(ValueError, match="it is not written"):
            api.export(**torch_)
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()} == before
    planned = text_of(job.describe(job.check(ExportConfig(**torch_))))
    assert "README.md" in planned and "evaluation" in planned and "mine.txt" not in planned
    with caplog.at_level("INFO"):
        result = api.export(**torch_)
    assert {path.name for path in folder.iterdir()} == {*result.files, "export.json", "mine.txt"}
    assert "README.md" in caplog.text and "evaluation removed" in caplog.text
    assert (tmp_path / "precious").exists()
    (folder / "export.json").write_text("{")
    with pytest.raises(ValueError, match=r"export\.json is no JSON"):
        job.check(ExportConfig(**hub))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"encoder": ""}, "encoder='' names nothing: give the folder of a run or of its export"),
        ({"encoder": "/nowhere"}, r"/nowhere holds no encoder\.json"),
        ({"to": "hub", "int8": True}, "int8=True has no effect with to=hub: give --to onnx"),
        ({"program": True}, "program=True has no effect with to=onnx: give --to torch"),
        ({"licence": "mit"}, "licence=mit has no effect with to=onnx: give --to hub"),
        ({"to": "hub", "licence": "Apache 2.0"}, "licence=Apache 2.0 is not a name that the hub accepts"),
        ({"tasks": ("a",)}, r"tasks=\('a',\) are only used to score the 8-bit file: give --int8 too"),
        ({"data": ("/nowhere",)}, r"/nowhere holds no manifest\.json.* Or check the export on other clips: --data"),
    ],
)
def test_what_cannot_be_exported_is_refused(student, changes, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        api.export(**{"encoder": student.run, **changes})


@pytest.mark.parametrize(
    ("file", "changes", "other"),
    [
        ("model.onnx", {"to": "onnx"}, {"to": "torch"}),
        ("model-int8.onnx", {"to": "onnx", "int8": True}, {"to": "onnx"}),
        ("evaluation", {"to": "onnx", "int8": True}, {"to": "onnx"}),
        ("config.json", {"to": "torch"}, {"to": "onnx"}),
        ("model.pt2", {"to": "torch", "program": True}, {"to": "torch"}),
        ("README.md", {"to": "hub"}, {"to": "torch"}),
    ],
)
def test_a_file_that_no_export_has_written_is_not_replaced(student, tmp_path, file, changes, other):
    (tmp_path / file / "mine").mkdir(parents=True) if file == "evaluation" else (tmp_path / file).write_text("mine")
    with pytest.raises(ValueError, match=rf"{tmp_path} holds a .*{file} that belongs to no export.*replaced: move it"):
        job.check(ExportConfig(encoder=student.run, output=str(tmp_path), **changes))
    assert not job.check(ExportConfig(encoder=student.run, output=str(tmp_path), **other)).before


def test_an_export_is_repeated_and_an_interrupted_one_is_replaced(student, tmp_path, monkeypatch):
    folder, write = tmp_path / "out", storage.write_bytes
    hub = {"encoder": student.run, "to": "hub", "output": str(folder)}
    other = {"encoder": write_student(tmp_path / "other", seed=1).run, "to": "torch", "output": str(folder)}

    def ends(uri: str, data: bytes) -> None:
        if uri.endswith("config.json"):
            raise KeyboardInterrupt
        write(uri, data)

    for _ in range(2):
        assert set(api.export(**hub).files) == set(forms.file_names(ExportConfig(**hub)))
    for config in (other, hub):
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(storage, "write_bytes", ends)
            api.export(**config)
        assert not (folder / "export.json").exists()
    result = api.export(**other)
    assert {path.name for path in folder.iterdir()} == {*result.files, "export.json"}


def test_a_card_that_was_edited_is_not_replaced(student, tmp_path):
    api.export(encoder=student.run, to="hub", output=str(tmp_path))
    readme = tmp_path / "README.md"
    record, text = json.loads((tmp_path / "export.json").read_text()), readme.read_text()
    for edited, written in (
        (text.replace("a", "b", 1), record),
        (f"{text} Mine.", {name: value for name, value in record.items() if name != "sha256"}),
    ):
        readme.write_text(edited)
        (tmp_path / "export.json").write_text(json.dumps(written))
        for form in ("hub", "torch"):
            with pytest.raises(ValueError, match=r"README\.md that was edited after its export, and would be replaced"):
                job.check(ExportConfig(encoder=student.run, to=form, output=str(tmp_path)))
    readme.unlink()
    api.export(encoder=student.run, to="hub", output=str(tmp_path))


def test_an_evaluation_of_other_weights_is_refused(evaluation, tmp_path):
    other = write_student(tmp_path, seed=1)
    with pytest.raises(ValueError, match=r"has no row for the present weights of .* rows are .*the student"):
        job.check(ExportConfig(encoder=other.run, to="hub", evaluation=evaluation))
    # The same weights in another place count as the same.
    moved = write_student(tmp_path / "moved")
    plan = job.check(ExportConfig(encoder=moved.run, to="hub", evaluation=evaluation))
    assert (plan.results.row, plan.results.tasks) == ("the student", ("pitches",))


def test_the_margin_of_several_networks_is_not_said_of_one(evaluation):
    table = EvaluationTable.load(evaluation)
    own = " ".join(card.CardResults(table, "the student", table.tasks).limits())
    assert "Over the test clips of all tasks together, the student" in own
    more = replace(table, tasks=("pitches", "another"))
    one = " ".join(card.CardResults(more, "the student", ("pitches",)).limits())
    assert "Over the test clips" not in one and "the student on pitches, another together, with a network for" in one


def test_a_dry_run_writes_nothing(student, tmp_path, command_line, monkeypatch):
    monkeypatch.setenv("UNFUSED_RAY_HOME", str(tmp_path / "home"))
    ended = command_line("export", student.run, "--to", "hub", "--dry-run")
    assert ended.code == 0, ended.err
    assert f"would export to {tmp_path}/home/exports/student-hub, as hub" in ended.out
    assert "888 parameters" in ended.out and not (tmp_path / "home").exists()
