"""Compares an export with the encoder that it was made from, on real clips."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import torch

from unfused_ray.data.shards.index import ClipIndex
from unfused_ray.embedding.clips import read_clips
from unfused_ray.models.frozen import FrozenEncoder

Exported = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
"""An export: (B, samples) float32 → vectors of the clips, (B, dim), and of frames over time, (B, T', dim)."""
_BATCH = 8


@dataclass(frozen=True)
class Agreement:
    """Comparison of an export with its encoder."""

    num_clips: int
    shortest_seconds: float
    longest_seconds: float
    """Lengths of the shortest and of the longest clip."""
    max_difference: float
    """Largest difference in any number of a clip's vector or of a frame's vector, in standard deviations of all numbers
    of the clips' vectors."""
    min_cosine: float
    """Smallest cosine of a clip's two vectors."""
    same_neighbours: int
    """Number of clips whose nearest other clip, by cosine, is the same."""

    @property
    def text(self) -> str:
        """Summary of the comparison in words."""
        return (
            f"largest difference {self.max_difference:.1e} of the standard deviation, cosine at least "
            f"{self.min_cosine:.6f}, nearest clip the same for {self.same_neighbours:,} of {self.num_clips:,}"
        )


def read_waves(index: ClipIndex, num_clips: int) -> list[np.ndarray]:
    """Read clips spread evenly over some sources, the shortest first: (samples,) float32 each.

    Raises:
        ValueError: fewer than two clips can be read.
        OSError: a shard is missing, or its storage does not answer.
    """
    chosen = np.unique(np.linspace(0, index.num_clips - 1, min(num_clips, index.num_clips)).astype(np.int64))
    waves = [wave.astype(np.float32) / 2**15 for clips in read_clips(index, chosen) for _, wave in clips]
    if len(waves) < 2:
        places = ", ".join(manifest.uri for manifest in index.manifests)
        raise ValueError(
            f"{places}: {len(waves)} of {len(chosen)} clips can be read, and an export is checked on two at least: "
            "name others by --data"
        )
    return sorted(waves, key=len)


@torch.inference_mode()
def compare(encoder: FrozenEncoder, exported: Exported, waves: list[np.ndarray]) -> Agreement:
    """Embed clips with both encoder and export, clips of equal length in batches.

    Args:
        encoder: the reference.
        exported: the export to compare with it.
        waves: clips from :func:`read_waves`.
    """
    ours: list[np.ndarray] = []
    theirs: list[np.ndarray] = []
    largest = 0.0
    for _, alike in groupby(waves, len):
        same = np.stack(list(alike))
        for wave_BT in np.split(same, range(_BATCH, len(same), _BATCH)):
            vectors_BD, frames_BTD = exported(wave_BT)
            frames = encoder.frames(wave_BT, encoder.sampling_rate).vectors.numpy()
            largest = np.maximum(largest, np.abs(frames - frames_BTD).max())  # unlike max, it keeps NaN
            ours.append(encoder(wave_BT).numpy())
            theirs.append(vectors_BD)
    ours_ND, theirs_ND = np.concatenate(ours), np.concatenate(theirs)
    largest = np.maximum(largest, np.abs(ours_ND - theirs_ND).max())
    units_ND, other_units_ND = (
        each / np.linalg.norm(each, axis=1, keepdims=True).clip(1e-12) for each in (ours_ND, theirs_ND)
    )
    return Agreement(
        num_clips=len(waves),
        shortest_seconds=len(waves[0]) / encoder.sampling_rate,
        longest_seconds=len(waves[-1]) / encoder.sampling_rate,
        max_difference=float(largest / max(ours_ND.std(), 1e-12)),
        min_cosine=float((units_ND * other_units_ND).sum(1).min()),
        same_neighbours=int((_nearest(units_ND) == _nearest(other_units_ND)).sum()),
    )


def _nearest(units_ND: np.ndarray) -> np.ndarray:
    similarity_NN = units_ND @ units_ND.T
    np.fill_diagonal(similarity_NN, -np.inf)
    return similarity_NN.argmax(1)
