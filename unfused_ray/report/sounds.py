"""Prepares clips of shards for a page: Opus to listen to, and a spectrogram to look at."""

from __future__ import annotations

import io
from collections.abc import Mapping

import numpy as np
import soundfile
import soxr
import torch

from unfused_ray.audio.log_mel import LogMel
from unfused_ray.config import FrontEndConfig
from unfused_ray.data.shards.index import ClipIndex
from unfused_ray.embedding.clips import read_clips
from unfused_ray.figures import spectrograms
from unfused_ray.report.page import Sound, data_uri

_PAGE_BYTES = 3_000_000
"""Largest size of a page's sounds and spectrograms in bytes, so that the page stays under 5 MB."""
_BYTES_PER_SECOND = 14_000
"""Bytes per second of Opus (4 kB) and a spectrogram (4 kB) in base64, with a margin (measured on 20 clips of speech and
notes)."""
_MAX_SECONDS = 8.0
_OPUS_RATES = (8_000, 12_000, 16_000, 24_000, 48_000)


def seconds_of_each(num_clips: int) -> float:
    """Return the seconds of each clip for which a page of ``num_clips`` clips has room."""
    return min(_MAX_SECONDS, _PAGE_BYTES / num_clips / _BYTES_PER_SECOND)


def read_sounds(index: ClipIndex, front_end: FrontEndConfig, clip_ids: np.ndarray, seconds: float) -> dict[int, Sound]:
    """Read some clips, without damaged ones; return their sounds by clip_id, spectrograms on one colour scale.

    Args:
        index: the clips.
        front_end: front end of the spectrograms.
        clip_ids: ids of the clips, (N,) int64.
        seconds: seconds to which they are cut.

    Raises:
        OSError: a shard is missing or its storage does not answer.
    """
    waves = {int(clip_ids[place]): wave for clips in read_clips(index, clip_ids) for place, wave in clips}
    return sounds_of(waves, front_end, seconds)


def sounds_of(waves: Mapping[int, np.ndarray], front_end: FrontEndConfig, seconds: float) -> dict[int, Sound]:
    """Make the sounds of some waves, by number, with spectrograms on one colour scale.

    Args:
        waves: (samples,) int16, by number.
        front_end: front end of the spectrograms, at the waves' rate.
        seconds: seconds to which they are cut.
    """
    rate, log_mel = front_end.sample_rate, LogMel(front_end)
    shown = {clip_id: wave[: int(seconds * rate)] for clip_id, wave in waves.items()}
    images = {clip_id: log_mel(torch.from_numpy(wave)[None])[0].numpy() for clip_id, wave in shown.items()}
    if not images:
        return {}
    low, high = spectrograms.colour_range(images.values())
    return {
        clip_id: Sound(
            audio=data_uri("audio/ogg", encode_opus(wave, rate)),
            spectrogram=data_uri("image/png", spectrograms.to_png(images[clip_id], low, high)),
            seconds=len(wave) / rate,
            facts=f"{len(waves[clip_id]) / rate:.2f} s{' (cut)' if len(wave) < len(waves[clip_id]) else ''}",
        )
        for clip_id, wave in shown.items()
    }


def encode_opus(pcm: np.ndarray, sample_rate: int) -> bytes:
    """Encode (samples,) int16 as mono Ogg Opus: 4 kB a second of 16 kHz, a quarter of FLAC (measured).

    Browsers play it from Chromium 33, Firefox 15 and Safari 18.4 on.
    """
    if sample_rate not in _OPUS_RATES:
        pcm, sample_rate = soxr.resample(pcm, sample_rate, _OPUS_RATES[-1]), _OPUS_RATES[-1]
    buffer = io.BytesIO()
    soundfile.write(buffer, pcm, sample_rate, format="OGG", subtype="OPUS")
    return buffer.getvalue()
