"""The portable network computes the same vectors as the encoder, by other operations."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unfused_ray.audio.log_mel import LogMel
from unfused_ray.config import CropConfig, EncoderConfig, FrontEndConfig
from unfused_ray.exports.convert import portable
from unfused_ray.models.encoder import LAYERS, AudioNTT2020
from unfused_ray.models.frozen import FrozenEncoder
from unfused_ray.models.portable import LAYERS as PORTABLE_LAYERS
from unfused_ray.models.portable import PortableEncoder

RATE = 16_000


def encoder(front_end: FrontEndConfig, cut: str, rule: str) -> FrozenEncoder:
    torch.manual_seed(0)
    network = AudioNTT2020(EncoderConfig(channels=4, width=12, cut=cut), front_end.num_mels)
    for block in network.conv:
        torch.nn.init.normal_(block[1].running_mean)
        torch.nn.init.uniform_(block[1].running_var, 0.5, 2)
    return FrozenEncoder(network, LogMel(front_end, -7.0, 4.0), CropConfig(seconds=0.3, short_clips=rule))


@settings(max_examples=30)
@given(
    n_fft=st.sampled_from([1024, 400, 251, 64]),
    cut=st.sampled_from(LAYERS),
    rule=st.sampled_from(["tile", "centre"]),
    batch=st.integers(1, 3),
    num_samples=st.one_of(st.integers(1, 5_000), st.integers(5_000, 12_000)),
)
def test_vectors_and_frames_are_those_of_the_encoder(n_fft, cut, rule, batch, num_samples):
    model = encoder(FrontEndConfig(n_fft=n_fft, hop=50, num_mels=16, f_min=0.0), cut, rule)
    wave = np.random.default_rng(num_samples).uniform(-0.5, 0.5, (batch, num_samples)).astype(np.float32)
    if batch > 1 and num_samples <= batch:  # the encoder would take it for channels
        wave = wave[:1]
    vectors, frames = portable(model)(torch.from_numpy(wave))
    torch.testing.assert_close(vectors, model(wave), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(frames, model.frames(wave, RATE).vectors, rtol=1e-3, atol=1e-3)


def test_log_mels_are_those_of_the_front_end_to_a_hundred_thousandth():
    model = encoder(FrontEndConfig(), "fc1", "tile")
    wave = np.random.default_rng(0).uniform(-0.5, 0.5, (2, 20_000)).astype(np.float32)
    log_mel = portable(model).log_mel(torch.from_numpy(wave))
    torch.testing.assert_close(log_mel, model.spectrogram(wave, RATE), rtol=0, atol=1e-5)


def test_it_knows_the_layers_of_the_encoder():
    assert PORTABLE_LAYERS == LAYERS


def test_a_crop_that_is_mirrored_more_than_once_is_refused():
    model = encoder(FrontEndConfig(n_fft=16_384, num_mels=16), "fc1", "tile")
    with pytest.raises(ValueError, match="shortest=4800 samples must exceed half a window, 8192"):
        portable(model)


@pytest.mark.parametrize(
    ("wave", "found"),
    [
        (torch.zeros(8_000), r"torch\.float32 of shape \(8000,\)"),
        (torch.zeros(1, 2, 8_000), r"torch\.float32 of shape \(1, 2, 8000\)"),
        (torch.zeros(1, 8_000, dtype=torch.int16), r"torch\.int16 of shape \(1, 8000\)"),
        (torch.zeros(1, 8_000, dtype=torch.float64), r"torch\.float64 of shape"),
        (np.zeros((1, 8_000), np.float32), r"float32 of shape \(1, 8000\)"),
        ("a.wav", "str of shape"),
    ],
)
def test_waves_of_another_type_or_shape_are_refused_in_words(wave, found):
    network = portable(encoder(FrontEndConfig(), "fc1", "tile"))
    with pytest.raises(ValueError, match=rf"wave is {found}.*give a tensor of torch\.float32, \(batch, samples\)"):
        network(wave)


def test_its_module_needs_torch_alone():
    names = {name.partition(".")[0] for name in _imports(PortableEncoder.__module__)}
    assert names <= {"__future__", "math", "torch", "typing"}


def _imports(module: str) -> set[str]:
    import ast
    import importlib
    import inspect

    tree = ast.parse(inspect.getsource(importlib.import_module(module)))
    found = {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    return found | {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
