"""Augmentations against per-clip references written from the papers' descriptions, and their invariants."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from unfused_ray.audio import augment as A
from unfused_ray.audio.randomness import generator
from unfused_ray.config import AugmentConfig

OFF = AugmentConfig(mixup=0, virtual_crop=(1, 1), freq_scale=(1, 1), time_scale=(1, 1), fader=0)


def block(num_clips: int = 5, bands: int = 16, frames: int = 23) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).normal(size=(num_clips, bands, frames))).float()


def augment(log_mel: torch.Tensor, config: AugmentConfig, rng: np.random.Generator) -> torch.Tensor:
    """Augment one view."""
    return A.augment([log_mel], config, [rng])[0]


def resize_crop(log_mel: torch.Tensor, boxes: A.Boxes, config: AugmentConfig) -> torch.Tensor:
    """Return each clip's box of the canvas, resized to the clip's size."""
    boxes_V4B = torch.from_numpy(np.stack(boxes)).double()[None]
    rows_VBFF, columns_VBTT = A.resize_matrices(boxes_V4B, list(log_mel.shape[1:]), config)
    return A.resize(log_mel, rows_VBFF[0], columns_VBTT[0])


def reference_resize_crop(clip: torch.Tensor, box: tuple[int, int, int, int], canvas: tuple[int, int]) -> torch.Tensor:
    """Put the clip in the centre of a zero canvas, cut out the box, resize it by torch's bicubic interpolation."""
    bands, frames = clip.shape
    area = torch.zeros(canvas, dtype=torch.float64)
    above, before = (canvas[0] - bands) // 2, (canvas[1] - frames) // 2
    area[above : above + bands, before : before + frames] = clip
    top, height, left, width = box
    crop = area[top : top + height, left : left + width]
    return F.interpolate(crop[None, None], size=(bands, frames), mode="bicubic", align_corners=True)[0, 0]


scale = st.tuples(st.floats(0.05, 2.0), st.floats(0.05, 2.0)).map(lambda pair: tuple(sorted(pair)))
configs = st.builds(
    AugmentConfig,
    mixup=st.sampled_from([0.0, 0.2, 0.9]),
    virtual_crop=st.tuples(st.floats(1.0, 2.0), st.floats(1.0, 2.0)),
    freq_scale=scale,
    time_scale=scale,
    fader=st.sampled_from([0.0, 1.0]),
)


@given(configs, st.integers(1, 4), st.integers(1, 20), st.integers(1, 20), st.integers(0, 1000))
def test_resize_crop_is_the_references_at_any_size(config, num_clips, bands, frames, seed):
    log_mel = block(num_clips, bands, frames)
    canvas = A.virtual_canvas([bands, frames], config)
    boxes = A.draw_boxes(np.random.default_rng(seed), num_clips, [bands, frames], config)
    ours = resize_crop(log_mel, boxes, config)
    for clip, out, box in zip(log_mel, ours, zip(*boxes, strict=True), strict=True):
        expected = reference_resize_crop(clip, tuple(map(int, box)), canvas)
        torch.testing.assert_close(out.double(), expected, atol=1e-5, rtol=0)


@given(configs, st.integers(1, 100), st.integers(1, 100), st.integers(0, 1000))
def test_boxes_respect_their_scales_and_the_canvas(config, bands, frames, seed):
    size = [bands, frames]
    canvas = A.virtual_canvas(size, config)
    boxes = A.draw_boxes(np.random.default_rng(seed), 50, size, config)
    sides = [(boxes.top, boxes.height, config.freq_scale), (boxes.left, boxes.width, config.time_scale)]
    for (start, extent, (low, high)), length, limit in zip(sides, size, canvas, strict=True):
        assert (start >= 0).all()
        assert (start + extent <= limit).all()
        assert (extent >= min(max(int(low * length), 1), limit)).all()
        assert (extent <= max(int(high * length), 1)).all()


def test_boxes_reach_every_size_and_place():
    config = AugmentConfig(virtual_crop=(1.0, 1.5), freq_scale=(0.6, 1.5), time_scale=(0.6, 1.5))
    boxes = A.draw_boxes(np.random.default_rng(0), 20_000, [10, 20], config)
    assert set(boxes.height) == {6, 7, 8, 9, 10}
    assert set(boxes.width) == set(range(12, 30))
    assert set(boxes.left[boxes.width == 12]) == set(range(30 - 12 + 1))


@given(st.lists(st.floats(0, 0.99), min_size=3, max_size=3))
def test_log_mixup_exp_mixes_powers(shares):
    one, other = block(3).double(), block(3).double().flip(2)
    expected = torch.stack(
        [((1 - s) * a.exp() + s * b.exp()).log() for s, a, b in zip(shares, one, other, strict=True)]
    )
    torch.testing.assert_close(A.log_mixup_exp(one, other, torch.tensor(shares, dtype=torch.float64)), expected)


def test_log_mixup_exp_does_not_overflow():
    loud = torch.full((1, 2, 2), 500.0)
    torch.testing.assert_close(A.log_mixup_exp(loud, loud - 1000, torch.tensor([0.3])), loud + np.log(0.7))


def test_fader_runs_linearly_between_its_gains():
    log_mel, gains = block(2, 3, 5), torch.tensor([[1.0, -1.0], [0.5, 0.5]])
    added = A.linear_fader(log_mel, gains) - log_mel
    expected = torch.tensor([[1.0, 0.5, 0.0, -0.5, -1.0], [0.5] * 5])[:, None].expand(2, 3, 5)
    torch.testing.assert_close(added, expected)


def test_everything_off_is_the_identity():
    log_mel = block()
    assert torch.equal(augment(log_mel, OFF, generator(0, "augment", 0)), log_mel)


def test_mixing_takes_other_clips_of_the_block_with_shares_up_to_the_limit():
    """Each clip is loud in one band only, so a loud band of a view tells which clips are in the mixture."""
    log_mel = torch.full((8, 8, 4), -50.0)
    log_mel[torch.arange(8), torch.arange(8)] = 0.0
    config = OFF.replace(mixup=0.4)
    for seed in range(20):
        power = augment(log_mel, config, generator(seed, "augment"))[:, :, 0].exp()
        own = power.diagonal()
        share = (power - own.diag()).sum(1)
        assert (own >= 0.6 - 1e-5).all(), "every clip is mixed with another, never replaced"
        torch.testing.assert_close(own + share, torch.ones(8))
        assert ((power > 1e-4).sum(1) <= 2).all(), "with one other clip"


def _low_middle_and_high() -> np.ndarray:
    """Return mean log-mels of 12 clips of three spectra: low and high are far apart, middle is nearer to low."""
    return np.repeat([[1.0, 0.0], [0.9, 0.5], [-0.2, 1.0]], 4, axis=0)


def test_k_mix_takes_partners_of_the_cluster_that_is_farthest_from_a_clips_own():
    spectra, partners = _low_middle_and_high(), []
    for seed in range(40):
        kind = A.far_clips(spectra, 12, np.random.default_rng(seed)) // 4  # with 12 starts it finds all three
        assert (kind[:8] == 2).all(), "low and middle are mixed with high"
        assert (kind[8:] == 0).all(), "high with low"
        partners.append(A.far_clips(spectra, 12, np.random.default_rng(seed)))
    assert set(np.concatenate(partners)) == {0, 1, 2, 3, 8, 9, 10, 11}, "any clip of that cluster"


def test_k_mix_looks_at_the_direction_of_spectra_only():
    spectra = np.random.default_rng(0).normal(size=(12, 5))
    louder = spectra * np.random.default_rng(1).uniform(0.5, 2, (len(spectra), 1))
    for seed in range(5):
        same = (A.far_clips(block, 3, np.random.default_rng(seed)) for block in (spectra, louder))
        np.testing.assert_array_equal(*same)


@given(st.integers(2, 9), st.integers(1, 12), st.integers(0, 100))
def test_k_mix_finds_a_partner_in_any_block(num_clips, num_clusters, seed):
    spectra = np.random.default_rng(seed).integers(-1, 2, (num_clips, 3)).astype(np.float32)  # some are equal or zero
    partners = A.far_clips(spectra, num_clusters, np.random.default_rng(seed))
    assert partners.shape == (num_clips,)
    assert set(partners) <= set(range(num_clips))


def test_k_mix_mixes_a_view_with_its_partner():
    log_mel = block(8)
    rng = np.random.default_rng(3)
    partners = A.far_clips(log_mel.mean(2).numpy(), 4, rng)
    shares = torch.from_numpy(rng.uniform(0, 0.4, 8)).float()
    expected = A.log_mixup_exp(log_mel, log_mel[partners], shares)
    config = OFF.replace(mixup=0.4, k_mix=4)
    torch.testing.assert_close(augment(log_mel, config, np.random.default_rng(3)), expected)


@pytest.mark.parametrize(("mixup", "k_mix", "message"), [(0.0, 4, "mixup=0 mixes nothing"), (0.4, 1, "k_mix=1")])
def test_k_mix_that_would_do_nothing_is_refused(mixup, k_mix, message):
    with pytest.raises(ValidationError, match=message):
        AugmentConfig(mixup=mixup, k_mix=k_mix)


def test_a_clip_alone_in_its_block_is_not_mixed():
    log_mel = block(1)
    config = OFF.replace(mixup=0.4)
    assert torch.equal(augment(log_mel, config, generator(0, "augment")), log_mel)


@pytest.mark.parametrize(
    "config", [AugmentConfig(), AugmentConfig(fader=1.0), AugmentConfig(k_mix=2)], ids=["v1", "v2", "k-mix"]
)
def test_a_view_is_a_pure_function_of_its_key_and_its_block(config):
    log_mel = block()
    before = log_mel.clone()
    view = augment(log_mel, config, generator(0, "augment", 3, 7, 1))
    assert torch.equal(view, augment(log_mel, config, generator(0, "augment", 3, 7, 1)))
    assert torch.equal(log_mel, before), "the block is left as it was"
    assert view.shape == log_mel.shape
    assert view.dtype == torch.float32
    for key in [(3, 7, 0), (3, 8, 1), (4, 7, 1)]:
        assert not torch.equal(view, augment(log_mel, config, generator(0, "augment", *key)))


def test_silence_around_the_clip_is_the_mean():
    """A box in the empty border of the canvas is all zeros, the mean of normalised log-mels."""
    log_mel = torch.ones(1, 8, 20)
    box = A.Boxes(*(np.array([n]) for n in (0, 8, 0, 5)))
    assert (resize_crop(log_mel, box, AugmentConfig(virtual_crop=(1.0, 1.5))) == 0).all()


def test_views_of_a_block_are_those_of_each_alone():
    log_mels, config = [block(), block() * 2], AugmentConfig(fader=1.0)
    keys = [(3, view) for view in range(2)]
    together = A.augment(log_mels, config, [generator(0, "augment", *key) for key in keys])
    for view, log_mel, key in zip(together, log_mels, keys, strict=True):
        assert torch.equal(view, augment(log_mel, config, generator(0, "augment", *key)))


def test_autocast_does_not_reach_the_interpolation():
    log_mel = block()
    with torch.autocast("cpu", torch.bfloat16):
        inside = augment(log_mel, AugmentConfig(), generator(0, "augment"))
    torch.testing.assert_close(inside, augment(log_mel, AugmentConfig(), generator(0, "augment")), atol=0, rtol=0)
