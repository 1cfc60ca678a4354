"""Decodes audio of any kind to mono 16-bit samples at one rate, and writes and reads the FLAC of the shards."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from typing import IO, Literal

import numpy as np
import soundfile
import soxr

Reason = Literal["missing", "unreadable", "wrong format", "empty", "too short", "too long", "silent", "not finite"]

_MAX_HOURS = 24  # of audio in a clip: a megabyte of FLAC can hold weeks of silence
_BLOCK_SECONDS = 10
_BLOCK_VALUES = 1 << 22  # float32 of all channels: 16 MB, whatever a header claims
_RATES = (1_000, 1_000_000)  # below, one second of audio would become minutes of samples; above, no audio is sampled
_UNRECOGNISED = 1  # libsndfile's SF_ERR_UNRECOGNISED_FORMAT
_FULL_SCALE = 32768
# Of float samples, full scale being 1: sums of larger ones overflow where channels or rates are changed.
_LARGEST = 2.0**32


class AudioError(ValueError):
    """A clip cannot be used. ``reason`` is one of a few words to count by, ``detail`` what was found."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}"


def decode(
    source: IO[bytes], sample_rate: int, max_samples: int, start: float = 0.0, seconds: float | None = None
) -> Iterator[np.ndarray]:
    """Decode WAV, FLAC, OGG Vorbis or Opus, or MP3, piece by piece.

    Memory is bounded by a piece, whatever the length of the audio: a caller that stops early decodes no more. Time is
    bounded too, because a small file may decode to weeks: audio of more than a day ends with an error.

    Args:
        source: seekable encoded audio of any sample rate, number of channels and bit depth; channels are averaged.
        sample_rate: sample rate of the result, in Hz.
        max_samples: most samples of a piece.
        start: first second to decode.
        seconds: seconds to decode; None is to the end.

    Yields:
        int16 arrays of ``max_samples`` samples; the last may be shorter, none is empty.

    Raises:
        AudioError: unreadable, wrong format, empty, too long or not finite; it may come after good pieces.
    """
    pending = np.empty(0, np.int16)
    decoded = False
    for block in _resampled(source, sample_rate, start, seconds):
        pending = np.concatenate([pending, block])
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
        sample_rate: in Hz.
        min_seconds: shorter clips are refused.
        silence_peak: clips whose largest magnitude is less are refused; full scale is 1.

    Raises:
        AudioError: too short or silent.
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
    """Decode a crop of a shard's FLAC, and little more than the crop.

    Args:
        data: mono 16-bit FLAC, as ``encode_flac`` gives it.
        start: first sample of the crop.
        num_samples: samples of the crop.

    Returns:
        (num_samples,) int16.

    Raises:
        AudioError: the bytes are damaged, or hold less than the crop.
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

    After a read of a seekable file, soundfile seeks to the place it has reached, for which libFLAC decodes a frame: an
    eighth of the time of a crop (benchmarks/speed/stream.py).
    """

    def seekable(self) -> bool:
        """False, so that soundfile does not seek by itself; ``seek`` works all the same."""
        return False


def _resampled(source: IO[bytes], sample_rate: int, start: float, seconds: float | None) -> Iterator[np.ndarray]:
    """Yield a part of the audio as int16 blocks at ``sample_rate``."""
    reader = _Reader(source)
    try:
        with _open(reader) as file:
            if start:
                file.seek(min(round(start * file.samplerate), file.frames))
            frames = sys.maxsize if seconds is None else round(seconds * file.samplerate)
            if file.samplerate == sample_rate:
                for mono in _mono_blocks(file, reader, frames):
                    yield _to_int16(mono)
                return
            resampler = soxr.ResampleStream(file.samplerate, sample_rate, 1, dtype="float32")
            for mono in _mono_blocks(file, reader, frames):
                yield _to_int16(resampler.resample_chunk(mono))
            yield _to_int16(resampler.resample_chunk(np.empty(0, np.float32), last=True))
    except soundfile.LibsndfileError as error:
        reader.refuse_failed()
        if error.code == _UNRECOGNISED and not reader.seek(0, io.SEEK_END):
            raise AudioError("empty", "it holds no bytes") from error
        reason: Reason = "wrong format" if error.code == _UNRECOGNISED else "unreadable"
        raise AudioError(reason, error.error_string) from error


class _Reader:
    """Reads encoded audio for libsndfile, which takes a failed read for the end of the audio; keeps the exception."""

    def __init__(self, source: IO[bytes]) -> None:
        self._source = source
        self._error: OSError | None = None

    def readinto(self, buffer: memoryview) -> int:
        """Fill ``buffer`` as far as possible; return the number of bytes."""
        try:
            return self._source.readinto(buffer)  # type: ignore[attr-defined]
        except OSError as error:
            self._error = error
            return 0

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a place and return it."""
        try:
            return self._source.seek(offset, whence)
        except OSError as error:
            self._error = error
            return -1

    def tell(self) -> int:
        """Return the place of the next byte."""
        return self._source.tell()

    def refuse_failed(self) -> None:
        """Raise an ``AudioError`` if a read has failed."""
        if self._error:
            raise AudioError("unreadable", str(self._error)) from self._error


def _open(source: _Reader) -> soundfile.SoundFile:
    file = soundfile.SoundFile(source)
    low, high = _RATES
    if not low <= file.samplerate <= high:
        raise AudioError("wrong format", f"{file.samplerate} Hz is not between {low} and {high} Hz")
    if file.frames > 2**62:
        raise AudioError("unreadable", f"the {file.format} header gives no length: it was written to a pipe")
    return file


def _mono_blocks(file: soundfile.SoundFile, reader: _Reader, frames: int) -> Iterator[np.ndarray]:
    """Yield the mean of the channels of at most ``frames`` frames, as float32 blocks of bounded size."""
    longest = max(1, min(_BLOCK_SECONDS * file.samplerate, _BLOCK_VALUES // file.channels))
    allowed = _MAX_HOURS * 3600 * file.samplerate
    while frames:
        block = file.read(min(longest, frames), dtype="float32", always_2d=True)
        reader.refuse_failed()
        if not len(block):
            return
        frames -= len(block)
        allowed -= len(block)
        if allowed < 0:
            raise AudioError("too long", f"it goes on after {_MAX_HOURS} hours")
        if not (block.min() >= -_LARGEST and block.max() <= _LARGEST):  # nor is NaN
            raise AudioError("not finite", f"NaN, infinite, or larger than {_LARGEST:g} times full scale")
        yield block[:, 0] if file.channels == 1 else block.mean(axis=1)


def _to_int16(wave: np.ndarray) -> np.ndarray:
    return np.minimum(np.rint(np.clip(wave, -1, 1) * _FULL_SCALE), _FULL_SCALE - 1).astype(np.int16)
