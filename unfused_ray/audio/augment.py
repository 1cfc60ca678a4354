"""Augments a block of normalised log-mels, batched on its device.

Shapes: B clips of a block, F mel bands, T frames. Draws come from a NumPy generator that the caller keys by
(seed, epoch, block, view), so a view is a pure function of these and of the block's contents.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from unfused_ray.audio.transfer import to_device
from unfused_ray.config import AugmentConfig

_CUBIC = -0.75  # the coefficient of torch's, OpenCV's and BYOL-A's bicubic interpolation


class Boxes(NamedTuple):
    """One crop per clip on the virtual canvas, in bands and frames of the input: (B,) int64 each."""

    top: np.ndarray
    height: np.ndarray
    left: np.ndarray
    width: np.ndarray


@torch.no_grad()
def augment(log_mel_BFT: Tensor, config: AugmentConfig, rng: np.random.Generator) -> Tensor:
    """Make one augmented view of each clip: log-mixup-exp, random resize crop, random linear fader, in this order.

    (B, F, T) float32, normalised → the same shape. A clip is mixed only with clips of its own block. All draws are
    copied to the device at once; but for k-mix, which looks at the clips, nothing waits for it.

    Source: BYOL-A, arXiv 2103.06695 sec. III-B; fader: BYOL-A v2, arXiv 2204.07402 sec. III-C. Unlike there, mixing
    draws from the block instead of a memory of past clips, so that a resumed run sees the same views.
    """
    num_clips, *size = log_mel_BFT.shape
    others, shares = np.arange(num_clips), np.zeros(num_clips)
    if mixes := config.mixup > 0 and num_clips > 1:
        if config.k_mix:
            others = far_clips(log_mel_BFT.mean(2).cpu().numpy(), config.k_mix, rng)
        else:
            others = (others + rng.integers(1, num_clips, num_clips)) % num_clips
        shares = rng.uniform(0, config.mixup, num_clips)
    boxes = draw_boxes(rng, num_clips, size, config)
    gains = rng.uniform(-config.fader, config.fader, (num_clips, 2)) if config.fader > 0 else np.zeros((num_clips, 2))
    draws = to_device(np.stack([others, shares, *gains.T, *boxes], dtype=np.float64), log_mel_BFT.device)

    view = log_mel_BFT
    if mixes:
        view = log_mixup_exp(view, view[draws[0].long()], draws[1].to(view.dtype))
    view = resize_crop(view, draws[4:], virtual_canvas(size, config))
    return linear_fader(view, draws[2:4].T.to(view.dtype)) if config.fader > 0 else view


def far_clips(spectra_BF: np.ndarray, num_clusters: int, rng: np.random.Generator) -> np.ndarray:
    """Choose partners by k-mix: for every clip, a random clip of the cluster farthest from its own; (B,) int64.

    Args:
        spectra_BF: normalised log-mels, averaged over time; only their direction counts.
        num_clusters: clusters of the block; fewer if its clips differ less.
        rng: draws the first centroids and the partners.

    Source: SLICER, arXiv 2211.01519, as in the LAPE code: four clusters of directions. There, one spherical k-means of
    20 iterations over all clips is made before the training, and partners come from a memory of 2,048 past samples;
    here both come from the block, and k-means of unit vectors runs until it converges. There, k-mix may follow a plain
    mixup; here it replaces it.
    """
    from scipy.cluster.vq import kmeans, vq  # others than SLICER need not wait for its import

    spectra_BF = spectra_BF.astype(np.float64)
    spectra_BF /= np.linalg.norm(spectra_BF, axis=1, keepdims=True).clip(1e-12)
    starts = rng.choice(len(spectra_BF), min(num_clusters, len(spectra_BF)), replace=False)
    centroids, _ = kmeans(spectra_BF, spectra_BF[starts])
    used, labels_B = np.unique(vq(spectra_BF, centroids)[0], return_inverse=True)
    centroids = centroids[used]
    distances = np.linalg.norm(centroids[:, None] - centroids, axis=2)
    farthest_B = distances.argmax(1)[labels_B]
    counts, by_cluster = np.bincount(labels_B), np.argsort(labels_B, kind="stable")
    first = np.cumsum(counts) - counts
    return by_cluster[first[farthest_B] + rng.integers(0, counts[farthest_B])]


def log_mixup_exp(log_mel_BFT: Tensor, other_BFT: Tensor, shares_B: Tensor) -> Tensor:
    """Mix as powers would: ``log((1 - share)·exp(log_mel) + share·exp(other))``, for shares in [0, 1)."""
    shares = shares_B[:, None, None]
    one, other = log_mel_BFT + torch.log1p(-shares), other_BFT + shares.log()
    # torch.logaddexp's value at a fifth of its time on CPUs, where log1p is not vectorised.
    return torch.maximum(one, other) + (one - other).abs_().neg_().exp_().add_(1).log_()


def virtual_canvas(size: list[int], config: AugmentConfig) -> tuple[int, int]:
    """Return bands and frames of the canvas that holds a log-mel of ``size`` in its centre; the rest is 0, the mean."""
    return int(size[0] * config.virtual_crop[0]), int(size[1] * config.virtual_crop[1])


def draw_boxes(rng: np.random.Generator, num_clips: int, size: list[int], config: AugmentConfig) -> Boxes:
    """Draw crops of random height and width at random places of the canvas, never larger than it."""
    sides: list[np.ndarray] = []
    scales = (config.freq_scale, config.time_scale)
    for length, canvas, scale in zip(size, virtual_canvas(size, config), scales, strict=True):
        extent = np.clip((rng.uniform(*scale, num_clips) * length).astype(np.int64), 1, canvas)
        sides += [rng.integers(0, canvas - extent + 1), extent]
    return Boxes(*sides)


def resize_crop(log_mel_BFT: Tensor, boxes_4B: Tensor, canvas: tuple[int, int]) -> Tensor:
    """Resize each clip's box of the canvas to (F, T) by bicubic interpolation with aligned corners.

    Args:
        log_mel_BFT: of the clips.
        boxes_4B: the fields of :class:`Boxes`, float64, on the device of the clips.
        canvas: bands and frames of the canvas.

    Beyond the border of its box the interpolation repeats the border, as if the box had been cut out first.
    Interpolation is separable: one product with a matrix over bands and one with a matrix over frames per clip.
    """
    _, num_bands, num_frames = log_mel_BFT.shape
    above, before = (canvas[0] - num_bands) // 2, (canvas[1] - num_frames) // 2
    top, height, left, width = boxes_4B
    rows_BFF = _interpolation(top - above, height, num_bands, log_mel_BFT.dtype)
    columns_BTT = _interpolation(left - before, width, num_frames, log_mel_BFT.dtype)
    with torch.autocast(log_mel_BFT.device.type, enabled=False):
        return rows_BFF @ log_mel_BFT @ columns_BTT.transpose(1, 2)


def linear_fader(log_mel_BFT: Tensor, gains_B2: Tensor) -> Tensor:
    """Add a gain that runs linearly over time from the first to the second of each clip's gains."""
    ramp = torch.linspace(0, 1, log_mel_BFT.shape[2], device=log_mel_BFT.device)
    return log_mel_BFT + torch.lerp(gains_B2[:, :1], gains_B2[:, 1:], ramp)[:, None]


def _interpolation(start_B: Tensor, extent_B: Tensor, length: int, dtype: torch.dtype) -> Tensor:
    """Make matrices (B, length, length) from a side of the input to the same side of the resized boxes.

    A box spans ``extent`` input positions from ``start``; positions outside the input hold zeros, so their weights
    are dropped.
    """
    start_B1, extent_B1 = start_B[:, None], extent_B[:, None]
    device = start_B.device
    positions = torch.arange(length, device=device) * (extent_B1 - 1) / max(length - 1, 1)
    first = positions.floor()
    fraction = positions - first
    near = _kernel_within_1(torch.stack([fraction, 1 - fraction]))
    far = _kernel_from_1_to_2(torch.stack([1 + fraction, 2 - fraction]))
    weights = torch.cat([far[:1], near, far[1:]])
    taps = first + torch.arange(-1, 3, device=device)[:, None, None]
    sources = start_B1 + torch.minimum(taps.clamp_min_(0), extent_B1 - 1)
    weights = weights.mul_((sources >= 0) & (sources < length)).to(dtype)
    indices = sources.clamp_(0, length - 1).long()
    matrix = torch.zeros(len(start_B), length, length, dtype=dtype, device=device)
    # Tap by tap, since clamped taps share a source: within one call no two sums meet, so their order is fixed.
    for index, weight in zip(indices, weights, strict=True):
        matrix.scatter_add_(2, index[..., None], weight[..., None])
    return matrix


def _kernel_within_1(x: Tensor) -> Tensor:
    return ((_CUBIC + 2) * x - (_CUBIC + 3)) * x * x + 1


def _kernel_from_1_to_2(x: Tensor) -> Tensor:
    return ((_CUBIC * x - 5 * _CUBIC) * x + 8 * _CUBIC) * x - 4 * _CUBIC
