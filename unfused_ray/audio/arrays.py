"""Checks waveforms given as arrays and converts them to float32 in [-1, 1]; their scale is never guessed."""

from __future__ import annotations

from numbers import Real
from typing import Any

import numpy as np
from torch import Tensor

from unfused_ray.audio.blocks import MAX_PEAK, RATES

MAX_CHANNELS = 128
"""If a batch has at least as many clips as a clip has samples, and clips have no more samples than this, the array is
refused as (samples, channels)."""
_SCALES = "samples of 16 bits by 2**15, of 24 bits by 2**23, of 32 bits by 2**31"
_FULL_SCALES = {np.dtype(kind): (np.iinfo(kind).bits, zero) for kind, zero in (("u1", 128), ("i1", 0), ("i2", 0))}
"""Bits, and the value of silence, of integer types whose full scale is that of the type; 8-bit WAV is unsigned."""


def mono_batch(wave: Any) -> np.ndarray:
    """Return waveforms as (B, samples) float32 in [-1, 1].

    Args:
        wave: (samples,) or (B, samples), mono: an array, a tensor on any device, or a list. Samples are floating point
            of any width in [-1, 1], or integers with the full scale of their type: int16, int8, int32, and uint8 around
            128.

    Raises:
        ValueError: the wave has another shape or type, is empty or not finite, or its scale cannot be known: float
            samples beyond ``MAX_PEAK`` or in whole numbers, and int32 samples that fit into 24 bits. The message gives
            a remedy.
    """
    array = _as_array(wave)
    if array.dtype.kind not in "fiu":
        raise ValueError(
            f"wave has type {array.dtype if array.ndim else type(wave).__name__}: give its samples as floating point "
            "in [-1, 1] or as int16, such as soundfile.read(path)[0]"
        )
    _refuse_shape(array)
    return np.atleast_2d(_from_floats(array) if array.dtype.kind == "f" else _from_integers(array))


def refuse_rate(sample_rate: Any) -> None:
    """Refuse a value that is not a sample rate.

    Raises:
        ValueError: it is not a number, or not a rate in Hz.
    """
    low, high = RATES
    is_number = isinstance(sample_rate, Real) and not isinstance(sample_rate, bool)
    if not (is_number and low <= sample_rate <= high):
        raise ValueError(
            f"sample_rate={sample_rate!r} must be a number of Hz between {low:,} and {high:,}, such as 16000"
        )


def _as_array(wave: Any) -> np.ndarray:
    if isinstance(wave, Tensor):
        return _from_tensor(wave)
    if isinstance(wave, list | tuple) and any(isinstance(each, Tensor) for each in wave):
        wave = [_as_array(each) for each in wave]
    try:
        return np.asarray(wave)
    except ValueError as error:
        raise ValueError(f"wave has clips of different lengths ({error}): give one clip at a time") from error


def _from_tensor(wave: Tensor) -> np.ndarray:
    try:
        # NumPy has no bfloat16.
        return (wave.float() if wave.is_floating_point() else wave).numpy(force=True)
    except (TypeError, RuntimeError) as error:  # sparse, quantised; nested; without data (NotImplementedError)
        kind = "meta" if wave.is_meta else str(wave.layout).removeprefix("torch.")
        raise ValueError(
            f"wave has samples that NumPy cannot hold, in a tensor of type {wave.dtype}, {kind} ({error}): give a "
            "dense tensor with data, such as wave.to_dense()"
        ) from error


def _refuse_shape(array: np.ndarray) -> None:
    """Refuse an array that is neither a clip nor a batch of clips; the message says how to make it one."""
    mean = "wave" if array.dtype.kind == "f" else f"(wave / 2**{8 * array.dtype.itemsize - 1})"
    if array.ndim not in (1, 2) or array.size == 0:
        channels = f"; of a batch with channels, give their mean, {mean}.mean(axis=1)" if array.ndim == 3 else ""
        raise ValueError(
            f"wave has shape {array.shape}: give (samples,), or (batch, samples) of clips of one length, and at least "
            f"one sample{channels}"
        )
    if array.ndim == 2 and len(array) > 1 and array.shape[1] <= min(len(array), MAX_CHANNELS):
        num_clips, samples = array.shape
        raise ValueError(
            f"wave has shape {array.shape}, which would be {num_clips:,} clips of {samples} samples: if it is "
            f"(samples, channels), as soundfile.read gives it, give the mean of the channels, {mean}.mean(axis=1), or "
            "one of them, wave[:, 0]; give clips this short one at a time"
        )


def _from_floats(array: np.ndarray) -> np.ndarray:
    if not np.isfinite(array).all():
        raise ValueError("wave holds NaN or infinite samples")
    peak = _peak(array)
    if peak > MAX_PEAK or (peak > 1 and np.array_equal(array, np.rint(array))):
        raise ValueError(
            f"wave holds floating point samples up to {peak:g}, which are not in [-1, 1]: divide {_SCALES}"
        )
    return array.astype(np.float32)


def _from_integers(array: np.ndarray) -> np.ndarray:
    if known := _FULL_SCALES.get(array.dtype.newbyteorder("=")):
        bits, zero = known
        return (array.astype(np.float32) - np.float32(zero)) * np.float32(2.0 ** (1 - bits))
    peak = _peak(array)
    if array.dtype.newbyteorder("=") == np.int32 and (peak == 0 or peak > 2**23):
        return array.astype(np.float32) * np.float32(2.0**-31)
    raise ValueError(
        f"wave has type {array.dtype} and samples up to {peak:,.0f}, of unknown full scale: divide {_SCALES}"
    )


def _peak(array: np.ndarray) -> float:
    return max(abs(float(array.min())), abs(float(array.max())))
