"""Augments a block of normalised log-mels, batched on its device.

Shapes: V views, B clips of a block, F mel bands, T frames. Draws come from a NumPy generator that the caller keys by
(seed, epoch, block, view), so a view is a pure function of this key and the block's contents.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from unfused_ray.audio.transfer import to_device
from unfused_ray.config import AugmentConfig

_CUBIC = -0.75  # the coefficient of bicubic interpolation in torch, OpenCV and BYOL-A


class Boxes(NamedTuple):
    """One crop per clip on the virtual canvas, in bands and frames of the input: (B,) int64 each."""

    top: np.ndarray
    height: np.ndarray
    left: np.ndarray
    width: np.ndarray


@torch.no_grad()
def augment(log_mels: Sequence[Tensor], config: AugmentConfig, rngs: Sequence[np.random.Generator]) -> Tensor:
    """Make augmented views: log-mixup-exp, random resize crop, random linear fader, in this order.

    A clip is mixed only with clips of its own block. All draws are copied to the device at once. Nothing waits for the
    device except k-mix, which looks at the clips.

    Args:
        log_mels: normalised log-mels of each view, (B, F, T) float32.
        config: settings of the augmentation.
        rngs: the generator of each view.

    Returns:
        (V, B, F, T).

    Source: BYOL-A, arXiv 2103.06695 sec. III-B; fader: BYOL-A v2, arXiv 2204.07402 sec. III-C. Unlike in BYOL-A, mixing
    draws from the block instead of a memory of past clips, so that a resumed run sees the same views.
    """
    num_clips, *size = log_mels[0].shape
    spectra_VBF = np.empty((len(log_mels), 0, 0))
    if config.k_mix:
        spectra_VBF = torch.stack([log_mel_BFT.mean(2) for log_mel_BFT in log_mels]).cpu().numpy()
    drawn = [_draw(num_clips, size, config, *each) for each in zip(spectra_VBF, rngs, strict=True)]
    draws_V8B = to_device(np.stack(drawn), log_mels[0].device)
    rows_VBFF, columns_VBTT = resize_matrices(draws_V8B[:, 4:], size, config)
    views = []
    for view, draws_8B, rows_BFF, columns_BTT in zip(log_mels, draws_V8B, rows_VBFF, columns_VBTT, strict=True):
        if config.mixup > 0 and num_clips > 1:
            view = log_mixup_exp(view, view[draws_8B[0].long()], draws_8B[1].to(view.dtype))
        view = resize(view, rows_BFF, columns_BTT)
        views.append(linear_fader(view, draws_8B[2:4].T.to(view.dtype)) if config.fader > 0 else view)
    return torch.stack(views)


def _draw(
    num_clips: int, size: list[int], config: AugmentConfig, spectra_BF: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Draw the partners, shares, two gains and :class:`Boxes` fields of a view: (8, B) float64."""
    others, shares, gains = np.arange(num_clips), np.zeros(num_clips), np.zeros((num_clips, 2))
    if config.mixup > 0 and num_clips > 1:
        if config.k_mix:
            others = far_clips(spectra_BF, config.k_mix, rng)
        else:
            others = (others + rng.integers(1, num_clips, num_clips)) % num_clips
        shares = rng.uniform(0, config.mixup, num_clips)
    boxes = draw_boxes(rng, num_clips, size, config)
    if config.fader > 0:
        gains = rng.uniform(-config.fader, config.fader, (num_clips, 2))
    return np.stack([others, shares, *gains.T, *boxes], dtype=np.float64)


def far_clips(spectra_BF: np.ndarray, num_clusters: int, rng: np.random.Generator) -> np.ndarray:
    """Choose each clip's partner by k-mix: a random clip of the cluster farthest from its own; (B,) int64.

    Args:
        spectra_BF: normalised log-mels, averaged over time; only their directions matter.
        num_clusters: number of clusters in the block; fewer if its clips differ too little.
        rng: draws the first centroids and the partners.

    Source: SLICER, arXiv 2211.01519, as in the LAPE code: four clusters of directions. There, one spherical k-means of
    20 iterations over all clips precedes training, and partners come from a memory of 2,048 past samples. Here both
    come from the block, and k-means of unit vectors runs until it converges. There, k-mix may follow a plain mixup;
    here it replaces mixup.
    """
    from scipy.cluster.vq import kmeans, vq  # only SLICER waits for this import

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
    """Mix in the domain of powers: ``log((1 - share)·exp(log_mel) + share·exp(other))``, for shares in [0, 1)."""
    shares = shares_B[:, None, None]
    one, other = log_mel_BFT + torch.log1p(-shares), other_BFT + shares.log()
    # The value of torch.logaddexp in a fifth of its time on CPUs, where log1p is not vectorised.
    return torch.maximum(one, other) + (one - other).abs_().neg_().exp_().add_(1).log_()


def virtual_canvas(size: list[int], config: AugmentConfig) -> tuple[int, int]:
    """Return bands and frames of the canvas that holds a log-mel of ``size`` at its centre; its rest is 0, the mean."""
    return int(size[0] * config.virtual_crop[0]), int(size[1] * config.virtual_crop[1])


def draw_boxes(rng: np.random.Generator, num_clips: int, size: list[int], config: AugmentConfig) -> Boxes:
    """Draw crops of random height and width at random places of the canvas, never larger than it."""
    sides: list[np.ndarray] = []
    scales = (config.freq_scale, config.time_scale)
    for length, canvas, scale in zip(size, virtual_canvas(size, config), scales, strict=True):
        extent = np.clip((rng.uniform(*scale, num_clips) * length).astype(np.int64), 1, canvas)
        sides += [rng.integers(0, canvas - extent + 1), extent]
    return Boxes(*sides)


def resize(log_mel_BFT: Tensor, rows_BFF: Tensor, columns_BTT: Tensor) -> Tensor:
    """Resize each clip's box of the canvas to (F, T), by matrices from :func:`resize_matrices`."""
    with torch.autocast(log_mel_BFT.device.type, enabled=False):
        return rows_BFF @ log_mel_BFT @ columns_BTT.transpose(1, 2)


def resize_matrices(boxes_V4B: Tensor, size: list[int], config: AugmentConfig) -> tuple[Tensor, Tensor]:
    """Make the matrices of bicubic interpolation from clips to boxes of the canvas, over bands and over frames.

    Corners are aligned. Beyond the border of its box the interpolation repeats the border, as if the box had been cut
    out first. A position outside the clip holds zero, so its weight is dropped. Interpolation is separable. Both sides
    of all boxes are computed together, as large as the longer side, because the host of a GPU takes longer for more
    operations.

    Args:
        boxes_V4B: the fields of :class:`Boxes`, float64, on the device of the clips.
        size: bands and frames of a clip.
        config: gives the size of the canvas.

    Returns:
        (V, B, F, F) and (V, B, T, T), float32.
    """
    device, longest = boxes_V4B.device, max(size)
    above, before = ((canvas - side) // 2 for canvas, side in zip(virtual_canvas(size, config), size, strict=True))
    top, height, left, width = boxes_V4B.unbind(1)
    start = torch.stack([top - above, left - before])[..., None]  # (2, V, B, 1)
    last = torch.stack([height, width])[..., None] - 1
    length = torch.stack([torch.full((1, 1, 1), side, dtype=start.dtype, device=device) for side in size])
    positions = torch.arange(longest, device=device) * last / (length - 1).clamp_min_(1)
    first = positions.floor()
    fraction = positions - first
    near = _kernel_within_1(torch.stack([fraction, 1 - fraction]))
    far = _kernel_from_1_to_2(torch.stack([1 + fraction, 2 - fraction]))
    taps = first + torch.arange(-1, 3, device=device)[:, None, None, None, None]
    sources = start + torch.minimum(taps.clamp_min_(0), last)
    weights = torch.cat([far[:1], near, far[1:]]).mul_((sources >= 0) & (sources < length)).float()
    indices = sources.clamp_(0, longest - 1).long()
    matrix = torch.zeros(*positions.shape, longest, device=device)
    # Tap by tap, because clamped taps share a source: within one call no two sums meet, so the order of addition is
    # fixed.
    for index, weight in zip(indices, weights, strict=True):
        matrix.scatter_add_(-1, index[..., None], weight[..., None])
    bands, frames = (matrix[number, ..., :side, :side] for number, side in enumerate(size))
    return bands, frames


def linear_fader(log_mel_BFT: Tensor, gains_B2: Tensor) -> Tensor:
    """Add a gain that changes linearly over time, from the first to the second of each clip's gains."""
    ramp = torch.linspace(0, 1, log_mel_BFT.shape[2], device=log_mel_BFT.device)
    return log_mel_BFT + torch.lerp(gains_B2[:, :1], gains_B2[:, 1:], ramp)[:, None]


def _kernel_within_1(x: Tensor) -> Tensor:
    return ((_CUBIC + 2) * x - (_CUBIC + 3)) * x * x + 1


def _kernel_from_1_to_2(x: Tensor) -> Tensor:
    return ((_CUBIC * x - 5 * _CUBIC) * x + 8 * _CUBIC) * x - 4 * _CUBIC
