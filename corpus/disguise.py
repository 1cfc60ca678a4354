"""Hides the speaker and the recording line of a clip, for classes that few people recorded, on one machine each.

Without this, voice pitch, hum, hiss, bandwidth, pauses and loudness alone would give such a class away.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soxr

from corpus.audio import MIN_SECONDS, SAMPLE_RATE, fade, load, set_level, trim, trim_speech
from corpus.hashing import hash_between, hash_fraction, hash_int


def speech_piece(audio: Path | np.ndarray, key: str, seconds: float, octaves: float = 0.35) -> np.ndarray:
    """Return a window of speech as if by another speaker over another line, all chosen by the hash of a key.

    Pauses at the ends are cut, the speech is played up to ``octaves`` faster or slower (pitch and formants move along),
    and a window of at most ``seconds`` goes through :func:`colour`.
    """
    wave = trim_speech(trim(load(audio) if isinstance(audio, Path) else audio))
    if len(wave) < MIN_SECONDS * SAMPLE_RATE:
        return wave
    speed = 2 ** hash_between(key + "/speed", -octaves, octaves)
    wave = soxr.resample(wave, SAMPLE_RATE, SAMPLE_RATE * speed, quality="HQ")
    length = int(seconds * SAMPLE_RATE)
    if len(wave) > length:
        start = int(hash_fraction(key + "/window") * (len(wave) - length))
        wave = fade(wave[start : start + length], at_start=True)
    return colour(wave, key)


def colour(
    wave: np.ndarray,
    key: str,
    noise_db: tuple[float, float] = (15.0, 30.0),
    tilt_db: float = 6.0,
    band: tuple[float, float] = (100.0, 3800.0),
) -> np.ndarray:
    """Return a clip as if over a line of its own, at the common loudness.

    Args:
        wave: the clip.
        key: decides tilt, peaks and noise.
        noise_db: limits of the noise's level below the clip; the noise is between pink and white.
        tilt_db: largest spectral tilt, and height of two broad peaks or dips.
        band: edges of the line's band, in Hz.
    """
    hertz = np.fft.rfftfreq(len(wave), 1 / SAMPLE_RATE) + 1e-3
    octave = np.log2(hertz / 1000.0)
    gain_db = hash_between(key + "/tilt", -1, 1) * tilt_db / 3.0 * np.clip(octave, -3.3, 2.0)
    for peak in range(2):
        centre = hash_between(f"{key}/c{peak}", np.log2(0.2), np.log2(3.5))
        gain_db += hash_between(f"{key}/g{peak}", -1, 1) * tilt_db * np.exp(-0.5 * ((octave - centre) / 0.5) ** 2)
    edges = np.sqrt(1 / (1 + (band[0] / hertz) ** 6) / (1 + (hertz / band[1]) ** 16))
    coloured = np.fft.irfft(np.fft.rfft(wave) * 10 ** (gain_db / 20) * edges, len(wave))
    generator = np.random.Generator(np.random.Philox(key=hash_int(key + "/noise")))  # keyed by the clip, without state
    white = np.fft.rfft(generator.standard_normal(len(wave)))
    noise = np.fft.irfft(white * hertz ** (-0.5 * hash_fraction(key + "/pink")) * edges, len(wave))
    distance = hash_between(key + "/snr", *noise_db)
    noise *= np.sqrt((coloured**2).mean() / ((noise**2).mean() + 1e-12)) * 10 ** (-distance / 20)
    return set_level((coloured + noise).astype(np.float32))
