"""Reads audio of any container and codec with FFmpeg, which PyAV's wheels include."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.error import FFmpegError

from unfused_ray.audio import mpeg
from unfused_ray.audio.blocks import Block, block_length, is_much, warn_of_length
from unfused_ray.audio.errors import AudioError, Warn
from unfused_ray.audio.window import Window

_PADDING_SECONDS = 0.2  # a codec may add this before and after the samples, and a header may or may not count it
_SCALES = {"u8": 2**7, "s16": 2**15, "s32": 2**31}
_MAX_PLANES = 7  # PyAV 18.1 looks for a frame's planes until a pointer is 0, and none need follow the eighth
_BUFFER_BYTES = 8192  # bytes that FFmpeg reads ahead
_READ_ANYWHERE = ("mov", "avi", "asf", "matroska")  # formats whose end FFmpeg does not read last
_TAG_HEADER = 32  # bytes of an APE tag
_NO_HEADER = (
    "aac",
    "amr",
    "dts",
    "eac3",
    "mpeg",
    "mpegts",
    "ogg",
)  # formats whose length FFmpeg estimates, or finds at the end


def read(window: Window, name: str, warn: Warn) -> Iterator[Block]:
    """Read the audio of a file from beginning to end.

    Packets that cannot be decoded are left out, and counted in a warning.

    Args:
        window: the file.
        name: FFmpeg's name of its format.
        warn: called with each difference between the file and its header.

    Raises:
        AudioError: wrong format or unreadable; may be raised after good blocks.
    """
    try:
        # The format is given, so that no other demuxer is tried, and none that opens further files. Video is not
        # decoded.
        due = _bytes_of_packets(window, name)
        window.seek(0)
        options = {"codec_whitelist": _audio_decoders()}
        with av.open(
            window, format=name, metadata_errors="replace", container_options=options, buffer_size=_BUFFER_BYTES
        ) as container:
            assert isinstance(container, InputContainer)
            stream = _stream(container, name, warn)
            seconds = 0.0
            for block in _blocks(_frames(container, stream, due, warn)):
                seconds += len(block.wave) / block.rate
                yield block
            window.refuse_failed()
            if name not in _READ_ANYWHERE:
                _warn_of_rest(window, warn)
            if (claimed := _claimed_seconds(window, container, stream, name)) is not None:
                warn_of_length(claimed, seconds, _PADDING_SECONDS, warn)
    except FFmpegError as error:
        window.refuse_failed()
        raise AudioError("unreadable", f"FFmpeg, as {name}: {_in_words(error)}") from error


def _stream(container: InputContainer, name: str, warn: Warn) -> AudioStream:
    if not container.streams.audio:
        raise AudioError("wrong format", f"a file of format {name} without audio")
    stream = container.streams.best("audio")
    if not isinstance(stream, AudioStream) or stream.codec_context is None:
        raise AudioError("wrong format", f"FFmpeg has no decoder for the audio in this file of format {name}")
    stream.codec_context.thread_count = 1
    if (count := len(container.streams.audio)) > 1:
        warn("several streams", f"stream {stream.index} of {count} audio streams is used")
    return stream


def _frames(container: InputContainer, stream: AudioStream, due: int, warn: Warn) -> Iterator[AudioFrame]:
    """Decode the packets of a stream; warn of those that fail, and if they have much fewer bytes than ``due``."""
    packets = failed = frames = held = 0
    reason = ""
    try:
        for packet in container.demux(stream):
            packets += packet.size > 0
            held += packet.size
            try:
                for frame in packet.decode():
                    frames += 1
                    yield frame
            except FFmpegError as error:
                failed += 1
                reason = _in_words(error)
    except (FFmpegError, IndexError) as error:  # PyAV's, for a stream that a later packet announces
        if not frames:
            raise AudioError("unreadable", _in_words(error)) from error
        warn("cut short", f"nothing can be read after packet {packets}: {_in_words(error)}")
    if failed and not frames:
        raise AudioError("unreadable", f"none of its {packets} packets can be decoded: {reason}")
    if failed:
        warn("damaged", f"{failed} of {packets} packets cannot be decoded and are left out: {reason}")
    elif is_much(due - held, due):
        warn("cut short", f"{due - held} of its {due} bytes are not part of the audio that FFmpeg finds")


def _bytes_of_packets(window: Window, name: str) -> int:
    """Return the number of bytes that a file's packets should have; 0 if its format does not tell."""
    return window.size - mpeg.after_tags(window) if name == "aac" else 0


def _in_words(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)


def _blocks(frames: Iterator[AudioFrame]) -> Iterator[Block]:
    """Join frames of equal rate and channels into blocks."""
    parts: list[np.ndarray] = []
    rate = length = 0
    for frame in frames:
        wave_CS = _samples(frame)
        is_alike = parts and (frame.sample_rate, len(wave_CS)) == (rate, len(parts[0]))
        if parts and not (is_alike and length < block_length(rate, len(wave_CS))):
            yield Block(np.concatenate(parts, axis=1).T, rate)
            parts, length = [], 0
        rate = frame.sample_rate
        parts.append(wave_CS)
        length += wave_CS.shape[1]
    if parts:
        yield Block(np.concatenate(parts, axis=1).T, rate)


def _samples(frame: AudioFrame) -> np.ndarray:
    """Return the samples of a frame: (channels, samples) float32."""
    channels, kind = frame.layout.nb_channels, frame.format.name.removesuffix("p")
    try:
        if kind not in (*_SCALES, "flt", "dbl") or (frame.format.is_planar and channels > _MAX_PLANES):
            (frame,) = AudioResampler("flt").resample(frame)
            kind = "flt"
        values = frame.to_ndarray()
    except ValueError as error:  # NumPy's, for a frame that is smaller than it claims
        raise AudioError("unreadable", f"a frame of {frame.samples} samples: {error}") from error
    wave_CS = values if frame.format.is_planar else values.reshape(-1, channels).T
    if kind in _SCALES:
        return (wave_CS.astype(np.float32) - (128 if kind == "u8" else 0)) / _SCALES[kind]
    return wave_CS.astype(np.float32, copy=False)


def _warn_of_rest(window: Window, warn: Warn) -> None:
    """Warn of bytes after the end that FFmpeg has found, unless they are a tag: another file may begin there."""
    place = window.tell()
    begin = max(0, place - _BUFFER_BYTES)
    near = window.read_at(begin, 2 * _BUFFER_BYTES)
    if (tag := near.find(b"APETAGEX")) >= 0:
        place = max(place, begin + tag + _TAG_HEADER + int.from_bytes(near[tag + 12 : tag + 16], "little"))
    rest = window.size - place
    if is_much(rest, window.size):
        warn("cut short", f"its last {rest} of {window.size} bytes are not part of the audio that FFmpeg finds")
    elif place > window.size and not near:
        warn("cut short", f"more of it should lie at byte {place}, past its end at {window.size}")


def _claimed_seconds(window: Window, container: InputContainer, stream: AudioStream, name: str) -> float | None:
    """Return the length that the file's header claims; None if it claims none."""
    if name == "mp3":
        return mpeg.claimed_seconds(window)
    if name in _NO_HEADER:
        return None
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    if container.duration and len(container.streams) == 1:
        return container.duration / av.time_base
    return None


@cache
def _audio_decoders() -> str:
    """Return the names of FFmpeg's audio decoders, for its list of allowed codecs."""
    names = []
    for name in av.codecs_available:
        try:
            codec = av.Codec(name, "r")
        except ValueError:  # an encoder only
            continue
        if codec.type == "audio":
            names.append(name)
    return ",".join(sorted(names))
