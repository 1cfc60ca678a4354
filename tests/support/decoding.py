"""Print a table of how many seconds libsndfile, FFmpeg and this project decode of audio files of many kinds.

cd tests && python -m support.decoding
"""

from __future__ import annotations

import io
import sys
from typing import NamedTuple

import av
import soundfile

from support.audio_files import AudioFile, audio_files
from unfused_ray.audio.decode import AudioError, decode

RATE = 16_000


class Decoded(NamedTuple):
    """Result of decoding a file."""

    seconds: float
    warnings: tuple[str, ...]
    error: str


def ours(data: bytes) -> Decoded:
    warnings: list[str] = []
    samples, error = 0, ""
    try:
        for pcm in decode(io.BytesIO(data), RATE, RATE, warn=lambda reason, detail: warnings.append(reason)):
            samples += len(pcm)
    except AudioError as problem:
        error = str(problem)
    return Decoded(samples / RATE, tuple(dict.fromkeys(warnings)), error)


def by_ffmpeg(data: bytes) -> float | None:
    """Return the seconds that FFmpeg decodes if it detects the format itself; None if it decodes nothing."""
    seconds = 0.0
    try:
        with av.open(io.BytesIO(data), metadata_errors="replace") as container:
            for packet in container.demux(audio=0):
                try:
                    seconds += sum(frame.samples / frame.sample_rate for frame in packet.decode())
                except av.FFmpegError:
                    continue
    except av.FFmpegError:
        pass
    return seconds or None


def by_libsndfile(data: bytes) -> float | None:
    """Return the seconds that libsndfile reads; None if it refuses the file."""
    try:
        wave, rate = soundfile.read(io.BytesIO(data), always_2d=True)
    except (soundfile.LibsndfileError, ValueError, MemoryError):
        return None
    return len(wave) / rate


def row(file: AudioFile) -> str:
    def shown(seconds: float | None) -> str:
        return "" if seconds is None else f"{seconds:.2f}"

    found = ours(file.data)
    outcome = found.error or ", ".join(found.warnings)
    lengths = (file.seconds, by_libsndfile(file.data), by_ffmpeg(file.data), found.seconds)
    return f"| {file.name} | {' | '.join(map(shown, lengths))} | {outcome} |"


def main() -> None:
    sys.stdout.write("| file | holds, s | libsndfile | FFmpeg | unfused-ray | warning |\n|---|--:|--:|--:|--:|---|\n")
    for file in audio_files():
        sys.stdout.write(row(file) + "\n")


if __name__ == "__main__":
    main()
