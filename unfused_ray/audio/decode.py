"""Decodes audio of any kind to mono 16-bit samples at one rate, and writes and reads the FLAC of the shards."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import IO

import numpy as np
import soundfile
import soxr

from unfused_ray.audio import reader
from unfused_ray.audio.blocks import MAX_PEAK, RATES, Block, counted_down
from unfused_ray.audio.errors import AudioError, Warn
from unfused_ray.audio.window import Window

__all__ = ["AudioError", "decode", "encode_flac", "read_flac", "refuse_unusable"]

_MAX_HOURS = 24  # of audio in a clip: one megabyte of FLAC can hold weeks of silence
_FULL_SCALE = 32768
# Limit of float samples, where full scale is 1: sums of larger ones overflow when channels are mixed or rates changed.
_LARGEST = 2.0**32
# Lossy codecs exceed the full scale of their input by up to 3 dB, so a lower bound would warn of most loud music.
_CLIPPED = 1.5
# Largest share of a block's samples beyond _CLIPPED. A mix that is too loud has a few peaks in a hundred samples. In a
# file of another scale that begins quietly, most samples exceed it before any exceeds MAX_PEAK; clipping would make
# them square waves.
_MOST_CLIPPED = 0.1
_JUDGED_SECONDS = 1.0  # a shorter block, such as the last, can lie within a peak
_CANCELLED = 0.1  # relative to the power of the mean of unrelated channels: two equal channels of correlation -0.9
_QUIETER = 0.25  # relative to the loudest channel's power: 6 dB
_WINDOW_SECONDS = 1.0  # length of the parts in which cancelling channels are looked for
_SHORT = 0.98  # share of the requested length
_SEARCHED = 1 << 16  # samples
# First two words of frames of compressed audio in 16-bit samples, in both byte orders, and what a third is if masked.
# Two words alone may be PCM, such as a square wave of 32766 and -32767: those of DTS are followed by the bits of a full
# frame, in 16 bits a word or 14.
_BURSTS = {
    "DTS": (
        (0xFE7F, 0x0180, 0x00FC, 0x00FC),
        (0x7FFE, 0x8001, 0xFC00, 0xFC00),
        (0xFF1F, 0x00E8, 0xF0FF, 0xF007),
        (0x1FFF, 0xE800, 0xFFF0, 0x07F0),
    ),
    "AC-3, DTS or other bursts of IEC 61937": ((0x72F8, 0x1F4E, 0, 0), (0xF872, 0x4E1F, 0, 0)),
}


def decode(
    source: IO[bytes],
    sample_rate: int,
    max_samples: int,
    start: float = 0.0,
    seconds: float | None = None,
    warn: Warn = lambda reason, detail: None,
) -> Iterator[np.ndarray]:
    """Decode audio of any format, piece by piece.

    All samples of the file are decoded, whatever length its header claims, or an error says why not. Memory is bounded
    by a piece, whatever the length of the audio, and a caller that stops early decodes no more. Time is bounded too: a
    small file may decode to weeks, so audio of more than a day ends with an error.

    Args:
        source: seekable encoded audio of any sample rate, number of channels and bit depth; channels are averaged.
        sample_rate: sample rate of the result, in Hz.
        max_samples: largest number of samples in a piece.
        start: first second to decode.
        seconds: seconds to decode; None decodes to the end.
        warn: called with each fault of audio that is used nevertheless.

    Yields:
        int16 arrays of ``max_samples`` samples; the last may be shorter, none is empty.

    Raises:
        AudioError: unreadable, wrong format, empty, too long, not finite or of a wrong scale; may be raised after good
            pieces.
    """
    pending = np.empty(0, np.int16)
    decoded = False
    blocks = _refuse_bursts(_checked(reader.read(Window(source), start, warn)))
    if seconds is not None:
        blocks = _first(blocks, seconds, warn)
    for pcm in _resampled(_mixed(_in_scale(blocks, warn), warn), sample_rate):
        pending = np.concatenate([pending, pcm])
        while len(pending) >= max_samples:
            yield pending[:max_samples]
            decoded = True
            pending = pending[max_samples:]
    if len(pending):
        yield pending
    elif not decoded:
        raise AudioError("empty", "it holds no samples")


def refuse_unusable(pcm: np.ndarray, sample_rate: int, min_seconds: float, silence_peak: float) -> None:
    """Refuse a clip that is too short or too quiet to learn from.

    Args:
        pcm: (samples,) int16.
        sample_rate: sample rate in Hz.
        min_seconds: shorter clips are refused.
        silence_peak: clips with a smaller largest magnitude are refused; full scale is 1.

    Raises:
        AudioError: the clip is too short or silent.
    """
    seconds = len(pcm) / sample_rate
    if seconds < min_seconds:
        raise AudioError("too short", f"{seconds:.3f} s, at least {min_seconds:g} s are asked for")
    peak = max(int(pcm.max()), -int(pcm.min())) / _FULL_SCALE
    if peak < silence_peak:
        raise AudioError("silent", f"its peak is {peak:.2g} of full scale, at least {silence_peak:g} is asked for")


def encode_flac(pcm: np.ndarray, sample_rate: int) -> bytes:
    """Encode (samples,) int16 as mono 16-bit FLAC, without loss."""
    buffer = io.BytesIO()
    soundfile.write(buffer, pcm, sample_rate, format="FLAC", subtype="PCM_16")
    return buffer.getvalue()


def read_flac(data: bytes, start: int, num_samples: int) -> np.ndarray:
    """Decode a crop of a shard's FLAC, decoding little more than the crop.

    Args:
        data: mono 16-bit FLAC from ``encode_flac``.
        start: first sample of the crop.
        num_samples: samples of the crop.

    Returns:
        (num_samples,) int16.

    Raises:
        AudioError: the bytes are damaged, or hold fewer samples than the crop.
    """
    try:
        with _ReadOnce(io.BytesIO(data)) as file:
            if file.channels != 1:
                raise AudioError("wrong format", f"{file.channels} channels in a shard's clip")
            file.seek(start)
            pcm = file.read(num_samples, dtype="int16")
    except soundfile.LibsndfileError as error:
        raise AudioError("unreadable", error.error_string) from error
    if len(pcm) != num_samples:
        raise AudioError("unreadable", f"{len(pcm)} of {num_samples} samples from sample {start}")
    return pcm


class _ReadOnce(soundfile.SoundFile):
    """An audio file that is read once and closed.

    After reading a seekable file, soundfile seeks to the place it has reached, for which libFLAC decodes a frame. That
    takes an eighth of a crop's time (benchmarks/speed/stream.py).
    """

    def seekable(self) -> bool:
        """Return False, so that soundfile does not seek by itself; ``seek`` works all the same."""
        return False


def _checked(blocks: Iterator[Block]) -> Iterator[Block]:
    """Refuse rates, lengths and values that real audio does not have."""
    low, high = RATES
    seconds = 0.0
    for wave, rate in blocks:
        if not low <= rate <= high:
            raise AudioError("wrong format", f"{rate} Hz is not between {low} and {high} Hz")
        seconds += len(wave) / rate
        if seconds > _MAX_HOURS * 3600:
            raise AudioError("too long", f"it is longer than {_MAX_HOURS} hours")
        if not (wave.min() >= -_LARGEST and wave.max() <= _LARGEST):  # also False for NaN
            raise AudioError("not finite", f"NaN, infinite, or larger than {_LARGEST:g} times full scale")
        yield Block(wave, rate)


def _refuse_bursts(blocks: Iterator[Block]) -> Iterator[Block]:
    """Refuse compressed audio whose header says PCM, as on CDs of DTS: its samples are noise.

    It is told by sync words at equal distances near the beginning.
    """
    for number, (wave, rate) in enumerate(blocks):
        if number == 0:
            samples = np.clip(np.rint(wave[:_SEARCHED] * _FULL_SCALE), -_FULL_SCALE, _FULL_SCALE - 1)
            words = samples.astype(np.int16).view(np.uint16).reshape(-1)
            for name, (first, second, mask, third) in ((name, one) for name, many in _BURSTS.items() for one in many):
                begins = (words[:-2] == first) & (words[1:-1] == second) & (words[2:] & mask == third)
                distances = set(np.diff(np.flatnonzero(begins)).tolist())
                if len(distances) == 1:
                    found = f"its samples are {name}, not PCM: a sync word every {2 * distances.pop()} bytes"
                    raise AudioError("wrong format", f"{found}. Decode it first, as by ffmpeg")
        yield Block(wave, rate)


def _first(blocks: Iterator[Block], seconds: float, warn: Warn) -> Iterator[Block]:
    """Yield the first ``seconds``."""
    missing = 0.0
    for (wave, rate), left in counted_down(blocks, seconds):
        yield Block(wave[:left], rate)
        missing = (left - len(wave)) / rate
        if missing <= 0:
            return
    if missing > (1 - _SHORT) * seconds:
        warn("cut short", f"{missing:.2f} of the {seconds:.2f} s asked for lie past its end")


def _in_scale(blocks: Iterator[Block], warn: Warn) -> Iterator[Block]:
    """Refuse float samples whose full scale cannot be 1; warn once of samples that are clipped."""
    seconds, is_warned = 0.0, False
    for wave, rate in blocks:
        peak = max(float(wave.max()), -float(wave.min())) if wave.size else 0.0
        remedy = "write them in [-1, 1], those of 16 bits divided by 32768"
        if peak > MAX_PEAK:
            found = f"its float samples reach {peak:g} times full scale, at most {MAX_PEAK:g} are used"
            raise AudioError("wrong scale", f"{found}: {remedy}")
        if peak > _CLIPPED and len(wave) >= _JUDGED_SECONDS * rate:
            share = np.count_nonzero(np.abs(wave) > _CLIPPED) / wave.size
            if share > _MOST_CLIPPED:
                found = (
                    f"{share:.0%} of its float samples after {seconds:.0f} s are beyond {_CLIPPED:g} times full "
                    f"scale, at most {_MOST_CLIPPED:.0%} are clipped"
                )
                raise AudioError("wrong scale", f"{found}: {remedy}")
        if peak > _CLIPPED and not is_warned:
            warn("beyond full scale", f"it reaches {peak:.3g} times full scale after {seconds:.0f} s, and is clipped")
            is_warned = True
        seconds += len(wave) / rate
        yield Block(wave, rate)


def _mixed(blocks: Iterator[Block], warn: Warn) -> Iterator[Block]:
    """Average the channels; where they cancel each other, use only the loudest."""
    channel: int | None = None
    for wave, rate in blocks:
        if wave.shape[1] == 1:
            yield Block(wave[:, 0], rate)
            continue
        mono = _mean(wave)
        for first, last in _windows(len(wave), round(_WINDOW_SECONDS * rate)):
            part, mean = wave[first:last], mono[first:last]
            powers = np.array([column @ column for column in part.T])
            if mean @ mean >= _CANCELLED * powers.sum() / len(powers) ** 2:
                continue
            loudest = int(powers.argmax())
            if channel is None:
                detail = (
                    f"its {len(powers)} channels cancel each other: the loudest is used, channel {loudest + 1} first"
                )
                warn("channels cancel", detail)
            # Keep the channel in use unless it is much quieter, because each change of channels makes a click.
            if channel is None or channel >= len(powers) or powers[channel] < _QUIETER * powers[loudest]:
                channel = loudest
            mean[:] = part[:, channel]
        yield Block(mono, rate)


def _mean(wave: np.ndarray) -> np.ndarray:
    """Average the channels, column by column: NumPy's mean over a short last axis takes thirty times as long."""
    total: np.ndarray = wave[:, 0].copy()
    for channel in range(1, wave.shape[1]):
        total += wave[:, channel]
    total /= wave.shape[1]
    return total


def _windows(length: int, window: int) -> Iterator[tuple[int, int]]:
    """Yield first and last place of parts of ``window`` samples; the remainder belongs to the last part."""
    count = max(1, length // window)
    return ((number * window, length if number == count - 1 else (number + 1) * window) for number in range(count))


def _resampled(blocks: Iterator[Block], sample_rate: int) -> Iterator[np.ndarray]:
    """Yield mono audio as int16 at ``sample_rate``."""
    resampler, resampled_rate = None, sample_rate
    for wave, rate in blocks:
        if rate != resampled_rate:
            if resampler is not None:
                yield _to_int16(resampler.resample_chunk(np.empty(0, np.float32), last=True))
            resampler = None if rate == sample_rate else soxr.ResampleStream(rate, sample_rate, 1, dtype="float32")
            resampled_rate = rate
        yield _to_int16(wave if resampler is None else resampler.resample_chunk(wave))
    if resampler is not None:
        yield _to_int16(resampler.resample_chunk(np.empty(0, np.float32), last=True))


def _to_int16(wave: np.ndarray) -> np.ndarray:
    return np.minimum(np.rint(np.clip(wave, -1, 1) * _FULL_SCALE), _FULL_SCALE - 1).astype(np.int16)
