"""Fingerprints of clips: how each band of a log-mel changes over time, whatever its level, spectral colour and start.

Copies at another level, through a codec, an equaliser or another rate, in noise, or with their edges cut off have
similar fingerprints. Nothing is trained, so no encoder is needed.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import safetensors.numpy
import torch
from safetensors import SafetensorError

from unfused_ray import storage
from unfused_ray.audio.decode import AudioError, read_flac
from unfused_ray.audio.log_mel import LogMel
from unfused_ray.config import FrontEndConfig
from unfused_ray.data.parts.executor import Executor
from unfused_ray.data.shards.format import Manifest, Shard
from unfused_ray.data.shards.index import ClipIndex, Unit, read_unit, units_of
from unfused_ray.machine.threads import one_thread
from unfused_ray.progress import Progress
from unfused_ray.retrieval.space import unit

BANDS, RATES = 32, 64
DIM = BANDS * RATES
"""Numbers of a fingerprint (4 kB): the strength of 64 rates of change, up to a quarter of the frame rate, in each
band."""
_FOLDER = "fingerprints-1"
"""Folder within a prepared source. Its number must change when the fingerprint of a clip does."""
_FLOOR = 9.2
"""Distance in nepers below the loudest value at which silence begins."""
_STILL = 1e-3
"""Changes in nepers that are smaller than this are rounding errors."""
_SHORTEST_FFT = 1024


def fingerprint(pcm: np.ndarray, log_mel: LogMel) -> np.ndarray:
    """Return the fingerprint of a clip: (DIM,) float32 of length 1; zeros if nothing in it changes.

    Args:
        pcm: (samples,) int16.
        log_mel: transform without normalisation.
    """
    image_FT = log_mel(torch.from_numpy(np.ascontiguousarray(pcm))[None])
    image_FT = torch.clamp(image_FT, min=image_FT.max() - _FLOOR)
    num_frames = image_FT.shape[2]
    bands_FT = torch.nn.functional.adaptive_avg_pool2d(image_FT, (BANDS, num_frames))[0].numpy()
    changes_FT = bands_FT - bands_FT.mean(axis=1, keepdims=True)
    if np.abs(changes_FT).max() < _STILL:
        return np.zeros(DIM, np.float32)
    size = max(_SHORTEST_FFT, 1 << (num_frames - 1).bit_length())
    spectrum_FR = np.abs(np.fft.rfft(changes_FT, size, axis=1))
    rates_FR = np.sqrt(spectrum_FR[:, : size // 4].reshape(BANDS, RATES, -1).mean(axis=2))
    return unit((rates_FR - rates_FR.mean(axis=1, keepdims=True)).ravel()).astype(np.float32)


def load_fingerprints(index: ClipIndex, executor: Executor) -> np.ndarray:
    """Return the fingerprints of all clips: (N, DIM) float16 by clip_id; zeros for a damaged clip.

    Fingerprints of a shard are computed once, with its source's own front end, and stored in the source.

    Args:
        index: the clips.
        executor: computes the fingerprints of a shard.

    Raises:
        OSError: a shard is missing, or its storage does not answer.
    """
    found_ND = np.empty((index.num_clips, DIM), np.float16)  # 4 GB for a million clips, held once
    lacking: list[tuple[slice, Manifest, Shard]] = []
    first = 0
    for manifest in index.manifests:
        for shard in manifest.shards:
            rows = slice(first, first := first + shard.num_clips)
            if (kept := _kept(manifest, shard)) is None:
                lacking.append((rows, manifest, shard))
            else:
                found_ND[rows] = kept
    tasks = ((units_of(manifest, shard), manifest.front_end) for _, manifest, shard in lacking)
    done = 0
    if lacking:
        with (
            executor.open(),
            Progress("fingerprints", sum(shard.num_clips for *_, shard in lacking), "clips") as bar,
            executor.run(fingerprint_units, tasks) as results,
        ):
            for number, of_shard in results:
                rows, manifest, shard = lacking[number]
                found_ND[rows] = of_shard
                storage.write_bytes(_uri(manifest, shard), safetensors.numpy.save({"fingerprints": of_shard}))
                done += shard.num_clips
                bar.update(done)
    return found_ND


def has_fingerprints(index: ClipIndex) -> bool:
    """Return True if the fingerprints of all shards are stored."""
    return all(storage.exists(_uri(manifest, shard)) for manifest in index.manifests for shard in manifest.shards)


def fingerprint_units(units: list[Unit], front_end: FrontEndConfig) -> np.ndarray:
    """Fingerprint the clips of some row groups: (N, DIM) float16; zeros for a damaged clip."""
    log_mel = LogMel(front_end)
    with one_thread():
        return np.stack([fingerprint(pcm, log_mel) if len(pcm) else np.zeros(DIM) for pcm in _waves(units)]).astype(
            np.float16
        )


def _waves(units: list[Unit]) -> Iterator[np.ndarray]:
    for each in units:
        try:
            rows = read_unit(each, ["audio", "num_samples"]).to_pylist()
        except pa.ArrowException:
            rows = [{"audio": b"", "num_samples": 0}] * each.num_clips
        for row in rows:
            try:
                yield read_flac(row["audio"], 0, row["num_samples"])
            except AudioError:
                yield np.zeros(0, np.int16)


def _uri(manifest: Manifest, shard: Shard) -> str:
    return storage.join(manifest.uri, _FOLDER, f"{shard.sha256[:32]}.safetensors")


def _kept(manifest: Manifest, shard: Shard) -> np.ndarray | None:
    """Return a shard's fingerprints as stored in its source; None if there are none, or they are damaged."""
    uri = _uri(manifest, shard)
    if not storage.exists(uri):
        return None
    try:
        found: np.ndarray = safetensors.numpy.load(storage.read_bytes(uri))["fingerprints"]
    except (SafetensorError, KeyError):
        return None
    return found if found.shape == (shard.num_clips, DIM) and found.dtype == np.float16 else None
