"""Arrays of waveforms: every type gives the same samples, or is refused with a remedy."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import torch

from unfused_ray.audio.arrays import mono_batch, refuse_rate

FINE = np.sin(np.arange(4_000) * 0.1) * 0.9
"""A sine wave in double precision."""


def ints(bits: int, kind: type[np.signedinteger] = np.int64) -> np.ndarray:
    return np.rint(FINE * (2 ** (bits - 1) - 1)).astype(kind)


@pytest.mark.parametrize(
    ("wave", "tolerance"),
    [
        pytest.param(FINE, 1e-7, id="float64"),
        pytest.param(FINE.astype(np.float16), 1e-3, id="float16"),
        pytest.param(FINE.astype(np.longdouble), 1e-7, id="longdouble"),
        pytest.param(FINE.astype(">f4"), 1e-7, id="big-endian float32"),
        pytest.param(ints(16, np.int16), 2**-14, id="int16"),
        pytest.param(ints(16).astype(">i2"), 2**-14, id="big-endian int16"),
        pytest.param(ints(32, np.int32), 1e-7, id="int32"),
        pytest.param(ints(24, np.int32) * 256, 2**-22, id="24 bits in the upper bytes of int32"),
        pytest.param(ints(8, np.int8), 2**-6, id="int8"),
        pytest.param((ints(8) + 128).astype(np.uint8), 2**-6, id="uint8"),
        pytest.param(torch.tensor(FINE).bfloat16(), 4e-3, id="bfloat16"),
        pytest.param(torch.tensor(FINE).half(), 1e-3, id="half"),
        pytest.param(torch.tensor(FINE, requires_grad=True), 1e-7, id="with gradient"),
        pytest.param(torch.tensor(ints(16)).short(), 2**-14, id="int16 tensor"),
        pytest.param(FINE.tolist(), 1e-7, id="list"),
        pytest.param([torch.tensor(FINE)], 1e-7, id="list of tensors"),
        pytest.param([FINE.tolist()], 1e-7, id="list of lists"),
        pytest.param(FINE[::-1][::-1], 1e-7, id="strides"),
    ],
)
def test_every_type_gives_the_same_samples(wave: Any, tolerance: float) -> None:
    batch = mono_batch(wave)
    assert (batch.shape, batch.dtype) == ((1, 4_000), np.float32)
    np.testing.assert_allclose(batch[0], FINE, rtol=0, atol=tolerance)


@pytest.mark.parametrize(
    ("wave", "message"),
    [
        pytest.param(np.zeros(0), r"shape \(0,\)", id="empty"),
        pytest.param(np.zeros((3, 0)), r"shape \(3, 0\)", id="empty clips"),
        pytest.param(0.5, r"shape \(\)", id="a number"),
        pytest.param(np.zeros((2, 2, 900)), r"shape \(2, 2, 900\).*wave\.mean\(axis=1\)", id="batch of stereo"),
        pytest.param(
            np.zeros((48_000, 2), np.float32), r"as soundfile.read gives it.* wave\.mean\(axis=1\)", id="stereo"
        ),
        pytest.param(np.zeros((48_000, 2), np.int16), r"\(wave / 2\*\*15\)\.mean\(axis=1\)", id="int16 stereo"),
        pytest.param(np.zeros((48_000, 1)), r"wave\[:, 0\]", id="mono with an axis of channels"),
        pytest.param(np.zeros((48_000, 128)), r"\(samples, channels\)", id="many channels"),
        pytest.param([[0.1, 0.2], [0.1]], "different lengths", id="ragged"),
        pytest.param([torch.zeros(3), torch.zeros(4)], "different lengths", id="ragged tensors"),
        pytest.param(np.zeros(9, bool), "type bool", id="bool"),
        pytest.param(np.zeros(9, complex), "type complex128", id="complex"),
        pytest.param(np.array([None, 1]), "type object", id="object"),
        pytest.param("clip.wav", r"type str: .*soundfile\.read", id="path"),
        pytest.param({"array": FINE, "sampling_rate": 16_000}, "type dict", id="dictionary"),
        pytest.param(None, "type NoneType", id="None"),
        pytest.param(ints(24, np.int32), r"type int32 .*divide .*24 bits by 2\*\*23", id="24 bits in int32"),
        pytest.param(ints(16, np.int32), r"type int32 .*16 bits by 2\*\*15", id="16 bits in int32"),
        pytest.param(ints(16).tolist(), "type int64", id="list of integers"),
        pytest.param(np.full(9, 32_768, np.uint16), "type uint16", id="uint16"),
        pytest.param(ints(16).astype(np.float32), r"up to 29490.*16 bits by 2\*\*15", id="int16 as floats"),
        pytest.param(ints(16, np.int16)[None].repeat(2, 0).mean(axis=0) / 3, "not in", id="mean of int16"),
        pytest.param(np.array([1.0, -3.0, 2.0]), r"not in \[-1, 1\]", id="a quiet int16 as floats"),
        pytest.param(np.array([0.1, np.nan]), "NaN or infinite", id="NaN"),
        pytest.param(torch.zeros(3, 900).to_sparse(), r"sparse_coo.*give a dense tensor.*to_dense", id="sparse"),
        pytest.param([torch.zeros(900).to_sparse()], r"sparse_coo.*to_dense", id="list of sparse tensors"),
        pytest.param(torch.zeros(900, device="meta"), "meta.*tensor with data", id="meta"),
        pytest.param(np.array([0.1, np.inf], np.float16), "NaN or infinite", id="infinite"),
        pytest.param(torch.tensor([1e38, 0.5]).double() * 1e10, "NaN or infinite|not in", id="beyond float32"),
    ],
)
def test_what_cannot_be_read_is_refused_with_what_to_do(wave: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"^wave h.*{message}"):
        mono_batch(wave)


def test_the_remedies_work() -> None:
    stereo = np.stack([ints(16, np.int16), ints(16, np.int16)], axis=1)
    for mono in ((stereo / 2**15).mean(axis=1), stereo[:, 0], ints(24, np.int32) / 2**23, ints(16) / 2**15):
        np.testing.assert_allclose(mono_batch(mono)[0], FINE, rtol=0, atol=2**-14)


def test_samples_a_little_above_full_scale_and_digital_silence_are_fine() -> None:
    np.testing.assert_array_equal(mono_batch(np.array([1.3, -1.1])), np.float32([[1.3, -1.1]]))
    for silence in (np.zeros(9, np.int32), np.zeros(9, np.float32), np.full(9, 128, np.uint8), [0.0] * 9):
        np.testing.assert_array_equal(mono_batch(silence), np.zeros((1, 9), np.float32))


def test_batches_of_short_clips_are_batches() -> None:
    for shape in ((200, 400), (3, 100), (1, 1), (129, 129)):
        assert mono_batch(np.zeros(shape)).shape == shape


@pytest.mark.parametrize("rate", ["16000", 0, -16_000, 16, 44.1, True, None, float("nan"), np.inf, 16_000j, [16_000]])
def test_what_is_no_rate_is_refused(rate: Any) -> None:
    with pytest.raises(ValueError, match=re.escape(f"sample_rate={rate!r} must be a number of Hz between 1,000 and")):
        refuse_rate(rate)


@pytest.mark.parametrize("rate", [16_000, 44_100.0, np.int64(8_000), np.float32(22_050)])
def test_numbers_of_any_type_are_rates(rate: float) -> None:
    refuse_rate(rate)
