"""Audio for the benchmarks: the project's own recordings as shards, at their own length and as clips of ten seconds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from unfused_ray.api import prepare
from unfused_ray.audio.decode import encode_flac, read_flac
from unfused_ray.config import PrepareConfig
from unfused_ray.data.shards.format import Manifest
from unfused_ray.data.shards.index import ClipIndex, read_unit

RECORDINGS = Path(__file__).parents[1] / "recordings"
_LONG_CLIPS, _LONG_SAMPLES = 512, 10 * 16_000


def short_clips(folder: Path) -> list[Manifest]:
    """Make shards of the 1,592 embedded recordings, about 1 s each, in ``folder``; needs a Ray session."""
    return [_shards(tar, folder / tar.stem) for tar in sorted(RECORDINGS.glob("*.tar"))]


def long_clips(folder: Path, short: ClipIndex) -> list[Manifest]:
    """Make shards of ten-second clips, each several short clips end to end; needs a Ray session."""
    files = folder / "files"
    files.mkdir(parents=True)
    pcm = np.concatenate([read_flac(flac, 0, num_samples) for flac, num_samples in clips(short)])
    starts = np.random.default_rng(0).integers(0, len(pcm), _LONG_CLIPS)
    for number, start in enumerate(starts):
        clip = np.take(pcm, np.arange(start, start + _LONG_SAMPLES), mode="wrap")
        (files / f"{number:05d}.flac").write_bytes(encode_flac(clip, 16_000))
    return [_shards(files, folder / "shards")]


def clips(index: ClipIndex) -> Iterator[tuple[bytes, int]]:
    """Yield FLAC and number of samples of every clip, in the order of the clip_ids."""
    for unit in index.units:
        table = read_unit(unit, ("audio", "num_samples"))
        yield from zip(table["audio"].to_pylist(), table["num_samples"].to_pylist(), strict=True)


def write_files(index: ClipIndex, num_clips: int, folder: Path) -> list[Path]:
    """Write some clips, spread evenly over all, as FLAC files for the other loaders."""
    folder.mkdir(parents=True)
    chosen = set(np.linspace(0, index.num_clips - 1, num_clips).astype(int).tolist())
    paths = []
    for number, (flac, _) in enumerate(clips(index)):
        if number in chosen:
            paths.append(folder / f"{number:07d}.flac")
            paths[-1].write_bytes(flac)
    return paths


def repeated(manifests: list[Manifest], num_clips: int) -> ClipIndex:
    """Repeat the sources until they have ``num_clips`` clips: a useful length of an epoch from few files."""
    once = sum(manifest.num_clips for manifest in manifests)
    return ClipIndex(manifests * -(-num_clips // once))


def _shards(source: Path, output: Path) -> Manifest:
    manifest = prepare(PrepareConfig(source=str(source), output=str(output)))
    assert manifest is not None  # only a dry run returns none
    return manifest
