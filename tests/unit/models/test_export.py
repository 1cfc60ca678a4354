"""An exported encoder is the trained one, checks its own files, and takes any mono audio."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from support.paths import ROOT

from unfused_ray.audio.log_mel import LogMel
from unfused_ray.config import CropConfig, EncoderConfig, FrontEndConfig
from unfused_ray.models.cost import num_parameters
from unfused_ray.models.encoder import LAYERS, AudioNTT2020
from unfused_ray.models.export import (
    DESCRIPTION,
    WEIGHTS,
    find_export,
    load_encoder,
    load_student,
    read_description,
    run_of,
    save_encoder,
)
from unfused_ray.models.frozen import FrozenEncoder
from unfused_ray.models.kernels import max_mean

CONFIG = EncoderConfig(channels=4, width=12)
FRONT_END = FrontEndConfig(num_mels=16)
MEAN, STD = -7.0, 4.0


@pytest.fixture
def trained() -> AudioNTT2020:
    torch.manual_seed(0)
    encoder = AudioNTT2020(CONFIG, 16)
    for block in encoder.conv:
        torch.nn.init.normal_(block[1].running_mean)
        torch.nn.init.uniform_(block[1].running_var, 0.5, 2)
    return encoder


@pytest.fixture
def exported(trained: AudioNTT2020, tmp_path: Path) -> Path:
    folder = tmp_path / "run" / "encoder"
    save_encoder(str(folder), trained, FRONT_END, CropConfig(), MEAN, STD, {"method": "test"})
    return folder


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).uniform(-0.5, 0.5, shape).astype(np.float32)


def test_the_loaded_encoder_is_the_trained_one(trained, exported):
    encoder = load_encoder(str(exported))
    assert encoder.details == {"method": "test"}
    for name, value in trained.state_dict().items():
        assert torch.equal(encoder.encoder.state_dict()[name], value), name
    wave = noise(3, 20_000)
    log_mel = (LogMel(FRONT_END)(torch.from_numpy(wave)) - MEAN) / STD
    expected = trained.eval()(log_mel)
    vectors = encoder.embed(wave, 16_000)
    assert vectors.shape == (3, 12)
    assert vectors.dtype == torch.float32
    assert not vectors.requires_grad
    torch.testing.assert_close(vectors, expected, rtol=1e-5, atol=1e-5)


def test_frames_are_what_the_embedding_pools(exported):
    encoder = load_encoder(str(exported))
    wave = noise(2, 32_000)
    frames = encoder.frames(wave, 16_000)
    assert frames.vectors.shape == (2, FRONT_END.num_frames(32_000) // 8, 12)
    torch.testing.assert_close(max_mean(frames.vectors), encoder.embed(wave, 16_000))


def test_types_and_containers_are_alike(exported):
    encoder = load_encoder(str(exported))
    pcm = (noise(20_000) * 32768).astype(np.int16)
    expected = encoder.embed(pcm[None], 16_000)
    for wave in (
        pcm,
        pcm / 32768,
        (pcm / 32768).astype(np.float32),
        torch.from_numpy(pcm),
        torch.from_numpy(pcm)[None],
    ):
        torch.testing.assert_close(encoder.embed(wave, 16_000), expected)


def test_other_sample_rates_are_resampled(exported):
    encoder = load_encoder(str(exported))

    def chirp(sample_rate: int) -> np.ndarray:
        t = np.arange(2 * sample_rate) / sample_rate
        return 0.5 * np.sin(2 * np.pi * (200 + 500 * t) * t)

    at_16k, at_44k = (encoder.spectrogram(chirp(rate), rate) for rate in (16_000, 44_100))
    loud = at_16k > at_16k.amax() - 2  # 2 × STD in log power: within a factor of 3000
    torch.testing.assert_close(at_44k[loud], at_16k[loud], atol=0.05, rtol=0)


@pytest.mark.parametrize("rule", ["centre", "tile"])
def test_short_clips_are_completed_as_in_training(trained, rule):
    encoder = FrozenEncoder(trained, LogMel(FRONT_END, MEAN, STD), CropConfig(short_clips=rule))
    wave = noise(2, 5000)
    whole = np.tile(wave, 4)[:, :15200] if rule == "tile" else np.pad(wave, [(0, 0), (5100, 5100)])
    torch.testing.assert_close(encoder.embed(wave, 16_000), encoder.embed(whole, 16_000))


@pytest.mark.parametrize("call", ["embed", "frames", "layers"])
def test_waves_and_rates_that_cannot_be_read_are_refused(exported, call):
    vectors = getattr(load_encoder(str(exported)), call)
    stereo = np.stack([noise(48_000)] * 2, axis=1)
    with pytest.raises(ValueError, match=r"shape \(48000, 2\).*wave\.mean\(axis=1\)"):
        vectors(stereo, 48_000)
    with pytest.raises(ValueError, match="sample_rate='16000' must be a number of Hz"):
        vectors(noise(20_000), "16000")
    with pytest.raises(ValueError, match="so few samples at 48000 Hz that none is left at 16000 Hz"):
        vectors(noise(1), 48_000)
    torch.testing.assert_close(vectors(stereo.mean(axis=1), 48_000), vectors(stereo[:, 0], 48_000))


def test_every_layer_of_a_wave_is_that_of_its_spectrogram(exported):
    encoder = load_encoder(str(exported))
    wave = noise(2, 20_000)
    layers = encoder.layers(wave, 16_000)
    assert tuple(layers) == LAYERS
    torch.testing.assert_close(layers, encoder.encoder.layers(encoder.spectrogram(wave, 16_000)))
    torch.testing.assert_close(layers["fc2"], encoder.embed(wave, 16_000))


@pytest.mark.parametrize("name", ["encoder", "student"])
def test_an_export_is_found_by_its_folder_and_by_that_of_its_run(trained, tmp_path, name):
    run = tmp_path / "run"
    assert find_export(str(run)) is None
    save_encoder(str(run / name), trained, FRONT_END, CropConfig(), MEAN, STD, {})
    for uri in (run, run / name):
        assert find_export(str(uri)) == str(run / name)
        assert run_of(str(uri)) == str(run)
        assert read_description(str(uri))["folder"] == str(run / name)
        state = load_encoder(str(uri)).encoder.state_dict()
        assert all(torch.equal(state[key], value) for key, value in trained.state_dict().items())


def test_a_truncated_encoder_comes_back_truncated(trained, tmp_path):
    student = trained.truncated("block2")
    save_encoder(str(tmp_path), student, FRONT_END, CropConfig(), MEAN, STD, {})
    loaded = load_encoder(str(tmp_path))
    assert loaded.encoder.config == CONFIG.replace(cut="block2")
    assert read_description(str(tmp_path))["num_parameters"] == num_parameters(student) == 204
    wave = noise(2, 20_000)
    torch.testing.assert_close(
        loaded.embed(wave, 16_000), FrozenEncoder(trained, loaded.log_mel, CropConfig()).layers(wave, 16_000)["block2"]
    )
    torch.testing.assert_close(max_mean(loaded.frames(wave, 16_000).vectors), loaded.embed(wave, 16_000))


def test_a_student_is_taken_and_the_whole_encoder_is_not(tmp_path):
    """A student must save 40 % of the reference's parameters; the whole encoder has the reference's size."""
    whole = AudioNTT2020(EncoderConfig(), num_mels=64)
    for name, encoder in (("encoder", whole), ("student", whole.truncated("fc1"))):
        save_encoder(str(tmp_path / name), encoder, FrontEndConfig(), CropConfig(), MEAN, STD, {})
    assert num_parameters(load_student(str(tmp_path / "student")).encoder) == 1_125_504
    with pytest.raises(ValueError, match=r"fc2 has 5,321,856 parameters, a student at most 3,193,113"):
        load_student(str(tmp_path / "encoder"))


def test_damaged_weights_are_refused(exported):
    data = bytearray((exported / WEIGHTS).read_bytes())
    data[-1] ^= 1
    (exported / WEIGHTS).write_bytes(data)
    with pytest.raises(ValueError, match="is not the file that"):
        load_encoder(str(exported))


def test_an_export_is_loaded_by_a_path_object(exported):
    assert load_encoder(exported.parent).details == load_encoder(exported).details == {"method": "test"}


@pytest.mark.parametrize("load", [load_encoder, load_student])
@pytest.mark.parametrize("folder", [5, None, "", ["run"], b"run"])
def test_what_names_no_folder_is_refused(load, folder):
    with pytest.raises(ValueError, match="names no encoder: give the folder of a run"):
        load(folder)


def test_an_export_without_description_is_not_whole(exported):
    (exported / DESCRIPTION).unlink()
    with pytest.raises(FileNotFoundError, match="not an exported encoder"):
        load_encoder(str(exported))


def test_exports_of_other_versions_are_refused(exported):
    description = json.loads((exported / DESCRIPTION).read_bytes())
    (exported / DESCRIPTION).write_text(json.dumps({**description, "format_version": 99}))
    with pytest.raises(ValueError, match="format_version 99"):
        load_encoder(str(exported))


def test_weights_of_another_shape_are_refused(exported):
    description = json.loads((exported / DESCRIPTION).read_bytes())
    description["encoder"]["width"] = 24
    (exported / DESCRIPTION).write_text(json.dumps(description))
    with pytest.raises(ValueError, match="size mismatch"):
        load_encoder(str(exported))


@pytest.mark.parametrize(("group", "field", "value"), [("front_end", "num_mels", 66), ("encoder", "widht", 12)])
def test_a_description_that_cannot_be_is_refused_with_its_place(exported, group, field, value):
    description = json.loads((exported / DESCRIPTION).read_bytes())
    description[group][field] = value
    (exported / DESCRIPTION).write_text(json.dumps(description))
    with pytest.raises(ValueError, match=rf"(?s){exported}: .* are no encoder .*{field}"):
        load_encoder(str(exported))


def test_loading_leaves_torchs_random_state_alone(exported):
    before = torch.get_rng_state()
    load_encoder(str(exported))
    assert torch.equal(torch.get_rng_state(), before)


def test_a_student_of_the_code_needs_three_lines_and_no_ray(exported):
    """Triton must not be imported either, as torch's counter of operations does: it crashes beside TensorFlow."""
    code = (
        "import sys, numpy as np\n"
        "from unfused_ray.models.export import load_encoder\n"
        f"encoder = load_encoder({str(exported)!r})\n"
        "vectors = encoder.embed(np.zeros(16_000, np.int16), 16_000)\n"
        "assert vectors.shape == (1, 12)\n"
        "assert not {'ray', 'mlflow', 'librosa', 'triton', 'torch.utils.flop_counter'} & set(sys.modules)\n"
    )
    root = ROOT
    subprocess.run([sys.executable, "-c", code], check=True, cwd=root, timeout=120)
