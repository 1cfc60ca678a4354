"""Shows a few clips of a prepared source with their augmented views, as a picture and as sound."""

from __future__ import annotations

import io

import numpy as np
import soundfile
import torch
from matplotlib.figure import Figure

from unfused_ray import storage
from unfused_ray.audio import randomness
from unfused_ray.audio.augment import augment
from unfused_ray.audio.crop import complete
from unfused_ray.audio.decode import read_flac
from unfused_ray.audio.log_mel import LogMel
from unfused_ray.config import AugmentConfig, CropConfig, FrontEndConfig
from unfused_ray.data.shards.format import Manifest
from unfused_ray.data.shards.index import ClipIndex, read_unit
from unfused_ray.lettering import lettered

FOLDER = "preview"
_NUM_CLIPS = 16
_CLIPS_PER_ROW = 2
_TITLES = ("clip", "view 1", "view 2")


def write_preview(manifest: Manifest, front_end: FrontEndConfig, seed: int) -> str:
    """Write some clips of a prepared source to its folder ``preview``: ``views.png`` and one WAV a clip.

    The picture shows each clip's random crop and two augmented views of it, with the default crop and augmentation.
    Views are log-mels, so they have no sound.

    Returns:
        URI of the folder.
    """
    statistics = manifest.statistics(front_end)
    assert statistics is not None  # ingest computed them
    keys, waves = _some_clips(manifest)
    folder = storage.join(manifest.uri, FOLDER)
    for number, wave in enumerate(waves):
        sound = io.BytesIO()
        soundfile.write(sound, wave, front_end.sample_rate, format="WAV", subtype="PCM_16")
        storage.write_bytes(storage.join(folder, f"{number:02d}.wav"), sound.getvalue())
    crops = torch.from_numpy(_crops(waves, CropConfig(), front_end.sample_rate, seed))
    log_mel = LogMel(front_end, statistics.mean, statistics.std)(crops)
    rngs = [randomness.generator(seed, "preview", view) for view in (0, 1)]
    views = augment([log_mel, log_mel], AugmentConfig(), rngs)
    picture = io.BytesIO()
    with lettered(_draw(keys, torch.stack([log_mel, *views], dim=1).numpy(), front_end)) as figure:
        figure.savefig(picture, format="png", dpi=80)
    storage.write_bytes(storage.join(folder, "views.png"), picture.getvalue())
    return folder


def _some_clips(manifest: Manifest) -> tuple[list[str], list[np.ndarray]]:
    """Read keys and (samples,) int16 waves of clips from all over the source; within a split they are shuffled
    already."""
    keys: list[str] = []
    waves: list[np.ndarray] = []
    units = ClipIndex([manifest]).units
    spread = np.linspace(0, len(units) - 1, min(_NUM_CLIPS, len(units))).round().astype(int)
    for number, unit in enumerate(spread):
        count = -(-(_NUM_CLIPS - len(waves)) // (len(spread) - number))
        rows = read_unit(units[unit], ("key", "audio", "num_samples")).slice(0, count).to_pylist()
        keys += [row["key"] for row in rows]
        waves += [read_flac(row["audio"], 0, row["num_samples"]) for row in rows]
    return keys, waves


def _crops(waves: list[np.ndarray], crop: CropConfig, sample_rate: int, seed: int) -> np.ndarray:
    """Cut one random crop of each clip: (clips, samples) int16."""
    length = crop.num_samples(sample_rate)
    num_samples = np.array([len(wave) for wave in waves])
    starts = randomness.crop_starts(seed, "preview", 0, np.arange(len(waves)), num_samples, length)
    return np.stack(
        [
            complete(wave[start : start + length], length, crop.short_clips)
            for wave, start in zip(waves, starts, strict=True)
        ]
    )


def _draw(keys: list[str], images_CVFT: np.ndarray, front_end: FrontEndConfig) -> Figure:
    """Draw a grid with each clip's log-mel and views side by side, all on one colour scale."""
    num_rows = -(-len(keys) // _CLIPS_PER_ROW)
    figure = Figure(figsize=(6 * _CLIPS_PER_ROW, 1.5 * num_rows + 1.4), layout="constrained")
    axes = figure.subplots(num_rows, len(_TITLES) * _CLIPS_PER_ROW, squeeze=False, sharex=True, sharey=True)
    seconds = images_CVFT.shape[-1] * front_end.hop / front_end.sample_rate
    extent = (0.0, seconds, 0.0, float(front_end.num_mels))
    for axis in axes.flat[images_CVFT.shape[0] * len(_TITLES) :]:
        axis.set_axis_off()
    for number, (key, views) in enumerate(zip(keys, images_CVFT, strict=True)):
        for view, image in enumerate(views):
            axis = axes.flat[number * len(_TITLES) + view]
            drawn = axis.imshow(image, origin="lower", aspect="auto", cmap="magma", vmin=-2, vmax=2.5, extent=extent)
            title = f"{number:02d}  …{key[-24:]}" if len(key) > 25 else f"{number:02d}  {key}"
            axis.set_title(title if view == 0 else _TITLES[view], fontsize=7, loc="left")
            axis.tick_params(labelsize=6)
    figure.supxlabel("seconds", fontsize=8)
    figure.supylabel("mel band", fontsize=8)
    figure.colorbar(drawn, ax=axes, shrink=0.5, label="normalised log-mel")
    return figure
