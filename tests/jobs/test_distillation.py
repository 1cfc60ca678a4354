"""Whole distillations in this process: labels of the chosen clips, exact resume, the exported student, refusals."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from rich.console import Console
from support.runs import assert_equal_runs, assignments, history, initial_weights, tiny, tiny_student, train, weights
from support.sources import tone, write_source

from unfused_ray.audio.log_mel import LogMel
from unfused_ray.clustering.assignment import Assignment, read_assignment
from unfused_ray.clustering.pseudo_labels import cluster
from unfused_ray.config import CropConfig, DistillConfig, EncoderConfig, FrontEndConfig
from unfused_ray.data.shards.index import ClipIndex
from unfused_ray.embedding import shards
from unfused_ray.embedding.clips import embed_clips
from unfused_ray.embedding.random_network import random_encoder
from unfused_ray.models.encoder import AudioNTT2020
from unfused_ray.models.export import load_encoder, load_student, save_encoder
from unfused_ray.models.frozen import FrozenEncoder
from unfused_ray.runs import run
from unfused_ray.training.driver.launch import check, describe
from unfused_ray.training.worker.learner import Learner

STEPS = 3  # in an epoch: 100 clips, 32 a global batch
NUM_CLIPS = 100  # in the splits for training; a third shard follows, of validation clips
LENGTHS = (4_000, 9_000, 20_000)
MORE: dict[str, Any] = {
    "ema_decay": 0.9,
    "labels__num_clusters": (4, 3),
    "method__num_views": 2,
    "method__detach_teacher": False,
    # Not Adam: gradients of biases before batch norm are rounding errors, and Adam would make whole steps of them.
    "optimizer__name": "sgd",
    "optimizer__lr": 0.05,
}
SETTINGS: dict[str, dict[str, Any]] = {"plain": {"ema_decay": 0.0}, "average, heads, views": MORE}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("source")
    write_source(folder, [[40, 30], [30], [20]], LENGTHS, splits=["train", "", "valid"])
    return folder


def save_teacher(folder: Path, seed: int = 0, sample_rate: int = 16_000) -> Path:
    """Export an encoder with random weights; return the folder."""
    torch.manual_seed(seed)
    encoder = AudioNTT2020(EncoderConfig(channels=6, width=24), num_mels=64)
    front_end = FrontEndConfig(sample_rate=sample_rate)
    save_encoder(str(folder / "encoder"), encoder, front_end, CropConfig(seconds=0.5), -7.0, 4.0, {"epochs": 1})
    return folder


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_teacher(tmp_path_factory.mktemp("teacher"))


@pytest.fixture
def config(source: Path, teacher: Path, tmp_path: Path) -> Callable[..., DistillConfig]:
    """Return a function: configuration of a distillation into the folder ``name``, with changed fields, not tracked."""
    return lambda name, **fields: tiny_student(
        source, tmp_path / name, "off", **{"teacher": str(teacher), **SETTINGS["plain"], **fields}
    )


@pytest.fixture(scope="module")
def undisturbed(source: Path, teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return a function: folder of an uninterrupted distillation, by name of its settings."""
    folder = tmp_path_factory.mktemp("undisturbed")

    def run_of(settings: str) -> Path:
        output = folder / settings
        if not output.exists():
            job = tiny_student(source, output, "off", teacher=str(teacher), **SETTINGS[settings])
            assert train(job).state == "finished"
        return output

    return run_of


def labels_of(run_folder: Path | str) -> Assignment:
    return read_assignment(f"{run_folder}/pseudo-labels")


def labels_only(monkeypatch: pytest.MonkeyPatch, job: DistillConfig) -> Assignment:
    """Return a run's pseudo-labels; the run ends before its first step."""
    initial_weights(monkeypatch, job)
    return labels_of(job.output)


@pytest.mark.parametrize(("settings", "steps"), [(s, n) for s in SETTINGS for n in (1, 2, STEPS, STEPS + 1)])
def test_a_distillation_that_was_stopped_anywhere_ends_as_if_it_had_not_been(
    settings: str,
    steps: int,
    config: Callable[..., DistillConfig],
    undisturbed: Callable[[str], Path],
    stop_after: Callable[[int], None],
) -> None:
    job = config("run", **SETTINGS[settings])
    stop_after(steps)
    status = train(job)
    assert (status.state, STEPS * status.epoch + status.step) == ("stopped", steps)
    stop_after(-1)
    assert train(job).state == "finished"
    assert_equal_runs(Path(job.output), undisturbed(settings))


def test_labels_are_made_once(
    config: Callable[..., DistillConfig], stop_after: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    passes, embed = [], shards.embed_clips

    def counted(encoder: FrozenEncoder, index: ClipIndex, clip_ids: np.ndarray) -> object:
        passes.append(len(clip_ids))
        return embed(encoder, index, clip_ids)

    monkeypatch.setattr(shards, "embed_clips", counted)
    for steps in (1, STEPS + 1, -1):
        stop_after(steps)
        train(config("run"))
    assert passes == [NUM_CLIPS]
    health = [{key: entry[key] for key in ("inertia", "nmi_labels")} for entry in history(Path(config("run").output))]
    assert health[0] == health[1]


@pytest.mark.parametrize("readout", ["last", "both"])
def test_labels_are_the_clusters_of_whole_clips_as_the_teacher_hears_them(
    readout: str, config: Callable[..., DistillConfig], teacher: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = config("run", labels__readout=readout, crop__short_clips="tile")
    frozen, rows = load_encoder(str(teacher)), []
    for clip in range(NUM_CLIPS):
        wave = tone(clip, LENGTHS[clip % 3])
        if len(wave) < 4960:  # the student's crop (0.31 s) and rule, not the teacher's
            wave = np.resize(wave, 4960)
        log_mel = (LogMel(FrontEndConfig())(torch.from_numpy(wave[None])) + 7) / 4
        with torch.no_grad():
            layers = frozen.encoder.layers(log_mel)
        chosen = ["fc2"] if readout == "last" else ["block1", "block2", "block3", "fc2"]
        rows.append(np.concatenate([layers[layer][0].numpy() for layer in chosen]))
    expected = cluster(np.stack(rows), job.labels, job.seed, threads=1)
    found = labels_only(monkeypatch, job)
    np.testing.assert_array_equal(found.labels, expected.labels)
    np.testing.assert_allclose(found.prototypes, expected.prototypes, atol=1e-3)


def test_the_teacher_never_sees_clips_of_other_splits(
    config: Callable[..., DistillConfig], source: Path, undisturbed: Callable[[str], Path], tmp_path: Path
) -> None:
    shutil.copytree(source, tmp_path / "source")
    (tmp_path / "source" / "00002.parquet").unlink()
    job = config("run", data=(str(tmp_path / "source"),))
    assert train(job).state == "finished"
    assert_equal_runs(Path(job.output), undisturbed("plain"))
    assert len(labels_of(job.output).labels[0]) == NUM_CLIPS


def test_several_sources_are_distilled_jointly(
    config: Callable[..., DistillConfig], source: Path, tmp_path: Path
) -> None:
    write_source(tmp_path / "other", [[50]], lengths=(7_000,))
    job = config("run", data=(str(source), str(tmp_path / "other")))
    assert train(job).state == "finished"
    (labels,) = labels_of(job.output).labels
    assert len(labels) == NUM_CLIPS + 50
    assert set(labels[:NUM_CLIPS]) & set(labels[NUM_CLIPS:])


def test_a_damaged_clip_has_no_label_and_does_not_count(config: Callable[..., DistillConfig], tmp_path: Path) -> None:
    write_source(
        tmp_path / "damaged", [[64]], LENGTHS, damaged=(5, 40)
    )  # two full global batches, so every epoch has every clip
    job = config("run", data=(str(tmp_path / "damaged"),))
    assert train(job).state == "finished"
    assert np.flatnonzero(labels_of(job.output).labels[0] == -1).tolist() == [5, 40]
    entries = history(Path(job.output))
    assert [entry["damaged_clips"] for entry in entries] == [2, 2]
    assert np.isfinite([entry["loss"] for entry in entries]).all()


def test_shuffled_labels_are_the_teachers_dealt_out_anew(
    config: Callable[..., DistillConfig], undisturbed: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    (teachers,) = labels_of(undisturbed("plain")).labels
    (dealt,) = labels_only(monkeypatch, config("run", labels__origin="shuffled")).labels
    assert sorted(dealt) == sorted(teachers)
    assert not np.array_equal(dealt, teachers)


def test_labels_of_a_random_network_are_of_the_one_that_a_teacher_with_this_seed_began_with(
    config: Callable[..., DistillConfig], source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = config("run", labels__origin="random", teacher="")
    index = ClipIndex.load((str(source),), job.splits)
    statistics = index.statistics(job.front_end)
    assert statistics is not None
    labels = {}
    for seed in (job.seed, job.seed + 1):
        network = random_encoder(job.encoder, job.front_end, job.crop, index, statistics, seed)
        vectors = embed_clips(network, index, np.arange(NUM_CLIPS))["fc2"]
        labels[seed] = cluster(vectors, job.labels, job.seed, threads=1).labels
    found = labels_only(monkeypatch, job).labels
    np.testing.assert_array_equal(found, labels[job.seed])
    assert not np.array_equal(found, labels[job.seed + 1])


def test_a_student_begins_with_other_weights_than_a_teacher_with_its_seed(
    config: Callable[..., DistillConfig], source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "encoder.conv.0.0.weight"
    teacher = initial_weights(monkeypatch, tiny(source, tmp_path / "begun", "off", seed=3))[name]
    student, again, other = (
        initial_weights(monkeypatch, config(run, seed=seed))[name]
        for run, seed in (("student", 3), ("again", 3), ("other", 4))
    )
    assert student.shape == teacher.shape
    assert torch.equal(student, again)
    assert not torch.equal(student, teacher)
    assert not torch.equal(student, other)


def test_true_labels_are_learnt(config: Callable[..., DistillConfig]) -> None:
    job = config("run", labels__origin="true", teacher="", epochs=8, optimizer__lr=1e-2)
    assert train(job).state == "finished"
    assignment = labels_of(job.output)
    np.testing.assert_array_equal(assignment.labels, [np.arange(NUM_CLIPS) % 8])
    entries = history(Path(job.output))
    assert entries[0]["nmi_labels"] == pytest.approx(1)
    assert entries[-1]["ce"] < 0.8 * entries[0]["ce"]
    assert entries[-1]["ce_branches"] < 0.8 * entries[0]["ce_branches"]
    assert entries[-1]["agreement"] > entries[0]["agreement"] + 0.2


GOLDEN = [
    {"loss": 4.5939, "ce": 1.4563, "ce_branches": 4.2969, "kl": 0.36895, "mse": 6.3593},
    {"loss": 4.5217, "ce": 1.4407, "ce_branches": 4.2244, "kl": 0.35083, "mse": 6.2103},
]


def test_the_curve_of_the_tiny_recipe_is_the_one_that_was_measured(undisturbed: Callable[[str], Path]) -> None:
    """Fails if loss, order of clips, augmentation or schedule change; rounding does not matter."""
    found = [{name: entry[name] for name in GOLDEN[0]} for entry in history(undisturbed("plain"))]
    assert found == [pytest.approx(entry, rel=0.01) for entry in GOLDEN]


@pytest.mark.parametrize("cut", ["block2", "fc1"])
def test_the_export_is_the_beginning_of_the_network_and_nothing_else(
    cut: str, config: Callable[..., DistillConfig]
) -> None:
    job = config("run", epochs=1, method__cut=cut, ema_decay=0.0)
    train(job)
    student = load_student(job.output)
    trained = {
        name.removeprefix("model/encoder."): value
        for name, value in weights(Path(job.output)).items()
        if name.startswith("model/encoder.")
    }
    state = student.encoder.state_dict()
    kept = ("conv.0", "conv.1") if cut == "block2" else ("conv", "fc1")
    assert state.keys() == {name for name in trained if name.startswith(kept)}
    assert all(np.array_equal(value.numpy(), trained[name]) for name, value in state.items())
    assert student.encoder.config == job.encoder.replace(cut=cut)
    whole = AudioNTT2020(job.encoder, 64)
    whole.load_state_dict({name: torch.from_numpy(value) for name, value in trained.items()})
    wave = tone(3, 9_000)
    expected = FrozenEncoder(whole, student.log_mel, job.crop).layers(wave, 16_000)[cut]
    torch.testing.assert_close(student.embed(wave, 16_000), expected)


def test_with_an_average_the_export_is_that_of_all_steps(
    config: Callable[..., DistillConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    job = config("run", ema_decay=0.3)
    step, trajectory = Learner.step, []

    def recorded(self: Learner, *arguments: Any) -> None:
        step(self, *arguments)
        trajectory.append({name: value.double().clone() for name, value in self.method.encoder.state_dict().items()})

    monkeypatch.setattr(Learner, "step", recorded)
    train(job)
    assert len(trajectory) == 2 * STEPS
    average = trajectory[0]
    for n, state in enumerate(trajectory[1:], start=1):
        decay = min(0.3, (1 + n) / (10 + n))
        average = {name: decay * average[name] + (1 - decay) * value for name, value in state.items()}
    exported = safetensors.torch.load_file(Path(job.output, "student", "encoder.safetensors"))
    for name, value in exported.items():
        torch.testing.assert_close(value, average[name].float())
        assert not torch.equal(value, trajectory[-1][name].float())


def test_a_run_is_not_resumed_with_another_teacher_but_with_the_same_in_another_place(
    config: Callable[..., DistillConfig],
    teacher: Path,
    tmp_path: Path,
    stop_after: Callable[[int], None],
    undisturbed: Callable[[str], Path],
) -> None:
    stop_after(1)
    train(config("run"))
    stop_after(-1)
    with pytest.raises(run.ConfigurationChangedError, match="teacher_sha256"):
        train(config("run", teacher=str(save_teacher(tmp_path / "other", seed=1))))
    moved = shutil.copytree(teacher / "encoder", tmp_path / "moved")
    assert train(config("run", teacher=str(moved))).state == "finished"
    assert_equal_runs(Path(config("run").output), undisturbed("plain"))


def test_a_run_whose_labels_are_made_goes_on_without_its_teacher(
    config: Callable[..., DistillConfig],
    teacher: Path,
    tmp_path: Path,
    stop_after: Callable[[int], None],
    undisturbed: Callable[[str], Path],
) -> None:
    moved = shutil.copytree(teacher, tmp_path / "moved")
    stop_after(1)
    train(config("run", teacher=str(moved)))
    stop_after(-1)
    shutil.rmtree(moved)
    assert train(config("run", teacher=str(moved))).state == "finished"
    assert_equal_runs(Path(config("run").output), undisturbed("plain"))


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"labels__num_clusters": (5,)}, r"labels\.num_clusters"),
        ({"labels__origin": "shuffled"}, r"labels\.origin"),
        ({"method__alpha": 0.5}, r"method\.alpha"),
        ({"ema_decay": 0.5}, "ema_decay"),
    ],
)
def test_a_run_is_not_resumed_with_other_settings(
    fields: dict[str, Any], name: str, config: Callable[..., DistillConfig], stop_after: Callable[[int], None]
) -> None:
    stop_after(1)
    train(config("run"))
    with pytest.raises(run.ConfigurationChangedError, match=f"  {name}: "):
        train(config("run", **fields))


def test_a_run_without_checkpoint_makes_its_labels_anew_for_other_settings(
    config: Callable[..., DistillConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert len(labels_only(monkeypatch, config("run")).prototypes[0]) == 4
    assert len(labels_only(monkeypatch, config("run", labels__num_clusters=(6,))).prototypes[0]) == 6


@pytest.mark.parametrize("other", [{}, {"labels__num_clusters": (6, 5)}], ids=["same labels", "other labels"])
def test_a_warm_start_from_a_distillation_takes_the_encoder_alone(
    other: dict[str, Any],
    config: Callable[..., DistillConfig],
    undisturbed: Callable[[str], Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    origin = undisturbed("plain")
    warm = initial_weights(monkeypatch, config("warm", init_from=str(origin), **other))
    fresh = initial_weights(monkeypatch, config("fresh", **other))
    trained = weights(origin)
    for name, value in warm.items():
        expected = trained[f"model/{name}"] if name.startswith("encoder.") else fresh[name].numpy()
        assert np.array_equal(value.numpy(), expected), name


def test_a_distillation_and_a_pre_training_start_from_each_others_encoder(
    config: Callable[..., DistillConfig],
    undisturbed: Callable[[str], Path],
    source: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    origin = undisturbed("plain")
    pretraining = tiny(source, tmp_path / "pretrained", "off", init_from=str(origin), epochs=1)
    beginning, trained = initial_weights(monkeypatch, pretraining), weights(origin)
    names = [name for name in beginning if name.startswith("encoder.")]
    assert all(np.array_equal(beginning[name].numpy(), trained[f"model/{name}"]) for name in names)
    assert train(pretraining).state == "finished"
    student = config("student", init_from=pretraining.output, teacher=pretraining.output)
    beginning, trained = initial_weights(monkeypatch, student), weights(tmp_path / "pretrained")
    assert all(np.array_equal(beginning[name].numpy(), trained[f"model/{name}"]) for name in names)
    assert train(student).state == "finished"


def test_a_fork_goes_on_with_other_weights_of_the_loss(
    config: Callable[..., DistillConfig], stop_after: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    trunk = config("trunk")
    stop_after(STEPS + 1)
    train(trunk)
    stop_after(-1)
    branch = config("branch", fork=trunk.output, method__alpha=0.1, method__beta=2.0)
    model = safetensors.torch.load_file(Path(trunk.output, "checkpoints/e0001-s000001/model.safetensors"))
    beginning = initial_weights(monkeypatch, branch)
    assert all(torch.equal(beginning[name], model[name]) for name in model)
    assert train(branch).state == "finished"
    assert assignments(Path(branch.output)) == assignments(Path(trunk.output))
    assert history(Path(branch.output))[0] == history(Path(trunk.output))[0]


@pytest.mark.parametrize(
    ("fields", "setting"),
    [
        ({"labels__num_clusters": (5,)}, r"labels\.num_clusters"),
        ({"labels__readout": "blocks"}, r"labels\.readout"),
        ({"seed": 1}, "seed"),
        ({"ema_decay": 0.5}, "ema_decay"),
    ],
)
def test_a_fork_into_other_labels_or_shapes_is_refused(
    fields: dict[str, Any], setting: str, config: Callable[..., DistillConfig], undisturbed: Callable[[str], Path]
) -> None:
    with pytest.raises(ValueError, match=setting):
        check(config("branch", fork=str(undisturbed("plain")), epochs=3, **fields))


def test_a_fork_with_another_teacher_is_refused(
    config: Callable[..., DistillConfig], undisturbed: Callable[[str], Path], tmp_path: Path
) -> None:
    other = save_teacher(tmp_path / "other", seed=1)
    with pytest.raises(ValueError, match=r"was trained on other labels:\n  teacher_sha256"):
        check(config("branch", fork=str(undisturbed("plain")), epochs=3, teacher=str(other)))


def test_a_fork_of_another_stage_is_refused(undisturbed: Callable[[str], Path], source: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is a run of stage distill, this one is of pretrain"):
        check(tiny(source, tmp_path / "branch", "off", fork=str(undisturbed("plain")), epochs=3))


def test_a_pre_training_does_not_take_up_a_distillation(
    config: Callable[..., DistillConfig], source: Path, stop_after: Callable[[int], None]
) -> None:
    stop_after(1)
    train(config("run"))
    with pytest.raises(run.ConfigurationChangedError, match="stage: distill → pretrain"):
        train(tiny(source, Path(config("run").output), "off"))


@pytest.mark.parametrize(
    ("fields", "error", "message"),
    [
        ({"teacher": ""}, ValueError, "teacher= is empty"),
        ({"teacher": "nowhere"}, FileNotFoundError, "nowhere holds no encoder.json"),
        ({"labels__num_clusters": (4, 101)}, ValueError, r"labels\.num_clusters=101 must not exceed .* 100 in"),
        (
            {"encoder__channels": 64, "encoder__width": 2048, "method__cut": "fc2"},
            ValueError,
            r"method\.cut=fc2: the network up to fc2 has 5,321,856 parameters, a student at most 3,193,113",
        ),
    ],
    ids=["no teacher", "no export", "too many clusters", "too large"],
)
def test_what_cannot_be_distilled_is_refused_before_anything_is_written(
    fields: dict[str, Any], error: type[Exception], message: str, config: Callable[..., DistillConfig]
) -> None:
    job = config("run", **fields)
    with pytest.raises(error, match=message):
        train(job)
    assert not Path(job.output).exists()


def test_a_student_that_is_no_part_of_the_network_is_refused_at_once(config: Callable[..., DistillConfig]) -> None:
    with pytest.raises(ValueError, match=r"method\.cut=fc1 must not come after encoder\.cut=block3"):
        config("run", encoder__cut="block3")


def test_a_teacher_of_another_sample_rate_is_refused(config: Callable[..., DistillConfig], tmp_path: Path) -> None:
    other = save_teacher(tmp_path / "teacher", sample_rate=32_000)
    with pytest.raises(ValueError, match=r"teacher=.* needs 32000 Hz, front_end\.sample_rate=16000"):
        check(config("run", teacher=str(other)))


def test_true_labels_need_labelled_clips(config: Callable[..., DistillConfig], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ClipIndex, "column", lambda self, name: [[]] * self.num_clips)
    with pytest.raises(ValueError, match=r"labels\.origin=true needs labelled clips"):
        check(config("run", labels__origin="true", teacher=""))


def test_true_labels_are_one_a_clip_and_clips_without_are_counted(
    config: Callable[..., DistillConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    columns = {"labels": [["dog"], [], ["cat", "pet"]], "key": ["a", "b", "c"]}
    monkeypatch.setattr(ClipIndex, "column", lambda self, name: columns[name])
    with pytest.raises(ValueError, match=r"one label a clip: 1 of the 3 clips of .* have several, such as c: cat, pet"):
        check(config("run", labels__origin="true", teacher=""))
    columns["labels"][2].remove("pet")
    console = Console(file=StringIO(), width=200)
    console.print(describe(check(config("run", labels__origin="true", teacher=""))))
    assert "the true classes; 1 of 3 clips have none" in console.file.getvalue()


def test_a_dry_run_says_what_is_distilled(config: Callable[..., DistillConfig]) -> None:
    console = Console(file=StringIO(), width=200)
    console.print(describe(check(config("run", labels__num_clusters=(4, 3)))))
    output = console.file.getvalue()
    assert "teacher, 4 + 3 clusters" in output
    assert "up to fc1, 3,376 of 4,432 parameters" in output


@pytest.mark.usefixtures("ray_session")
@pytest.mark.slow  # as in tests/jobs/test_jobs.py, with other labels
def test_two_workers_give_the_labels_and_nearly_the_weights_of_one_process(
    config: Callable[..., DistillConfig], undisturbed: Callable[[str], Path]
) -> None:
    job = config("workers", runtime__kind="workers", runtime__num_workers=2, **MORE)
    status = train(job)
    assert (status.state, status.epoch, status.step) == ("finished", 2, 0)
    found, expected = Path(job.output), undisturbed("average, heads, views")
    assert assignments(found) == assignments(expected)
    theirs = weights(expected)
    for name, value in weights(found).items():
        np.testing.assert_allclose(value, theirs[name], rtol=1e-3, atol=1e-4, err_msg=name)
    for entry, wanted in zip(history(found), history(expected), strict=True):
        assert entry == pytest.approx(wanted, rel=1e-3)


def test_labels_of_another_distillation_are_taken_over_and_nothing_is_labelled(
    config: Callable[..., DistillConfig], undisturbed: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    other = undisturbed("plain")
    with monkeypatch.context() as patch:
        patch.delattr("unfused_ray.training.stages.distillation.Distillation._assign")
        assert train(config("taken", labels_of=str(other))).state == "finished"
    assert_equal_runs(Path(config("taken").output), other)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"labels__num_clusters": (3,)},
            r"labels_of=.*plain has other pseudo-labels:\n  labels\.num_clusters: \[4\] → \[3\]",
        ),
        ({"seed": 5}, r"seed: 0 → 5"),
        ({"crop__short_clips": "centre"}, r"crop\.short_clips: "),
    ],
)
def test_labels_of_other_settings_are_not_taken_over(
    config: Callable[..., DistillConfig], undisturbed: Callable[[str], Path], fields: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        check(config("other", labels_of=str(undisturbed("plain")), **fields))


def test_a_folder_without_labels_is_no_source_of_them(config: Callable[..., DistillConfig], tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"labels_of=.* holds no pseudo-labels: give the folder"):
        check(config("other", labels_of=str(tmp_path)))


def test_settings_of_a_clustering_are_named_where_nothing_is_clustered(
    config: Callable[..., DistillConfig], caplog: pytest.LogCaptureFixture
) -> None:
    check(config("run", labels__origin="true", teacher="", labels__num_clusters=(3,), labels__starts=2))
    assert "ignored, because labels.origin=true clusters nothing: labels.num_clusters=(3,)" in caplog.text
    assert "labels.starts=2" in caplog.text
