"""Stateless random numbers are pure, independent of the batch, uniform, and uncorrelated between purposes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from unfused_ray.audio import randomness

seeds = st.integers(0, 2**31 - 1)
small = st.integers(0, 10_000)
clip_ids = st.lists(st.integers(0, 2**40), min_size=1, max_size=50)


def splitmix64(state: int) -> int:
    """Compute an output of SplitMix64 from its published definition, in Python integers."""
    mask = 2**64 - 1
    z = (state + 0x9E3779B97F4A7C15) & mask
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
    return z ^ (z >> 31)


def test_mixing_function_is_splitmix64s():
    # The first output of the reference implementation for seed 0.
    assert splitmix64(0) == 0xE220A8397B1DCDAF
    golden = 0x9E3779B97F4A7C15
    words = np.arange(100, dtype=np.uint64)
    np.testing.assert_array_equal(randomness._mix(words + golden), [splitmix64(i) for i in range(100)])
    assert randomness._mix(5 + golden) == splitmix64(5)


@given(seeds, small, clip_ids, st.randoms())
def test_a_clips_draw_does_not_depend_on_its_batch(seed, epoch, ids, random):
    together = dict(zip(ids, randomness.uniform(seed, "crop", epoch, np.array(ids)), strict=True))
    random.shuffle(ids)
    for clip_id in ids:
        alone = randomness.uniform(seed, "crop", epoch, np.array([clip_id]))
        assert alone[0] == together[clip_id]
        assert 0 <= alone[0] < 1


def test_draws_are_uniform_and_uncorrelated_between_neighbours():
    ids = np.arange(200_000)
    epochs = [randomness.uniform(0, "crop", epoch, ids) for epoch in (0, 1)]
    others = [randomness.uniform(1, "crop", 0, ids), randomness.uniform(0, "other", 0, ids), epochs[1]]
    assert stats.kstest(epochs[0], "uniform").pvalue > 1e-3
    assert abs(np.corrcoef(epochs[0][:-1], epochs[0][1:])[0, 1]) < 0.01
    for other in others:
        assert abs(np.corrcoef(epochs[0], other)[0, 1]) < 0.01


@pytest.mark.parametrize("low_bits", [1, 8, 16])
def test_low_bits_are_as_good_as_high_ones(low_bits):
    draws = (randomness.uniform(3, "crop", 0, np.arange(100_000)) * 2**53).astype(np.int64)
    assert abs(((draws >> (low_bits - 1)) & 1).mean() - 0.5) < 0.01


@given(seeds, st.tuples(small, small, small), st.tuples(small, small, small))
def test_generators_are_equal_exactly_when_their_keys_are(seed, key, other):
    draws = randomness.generator(seed, "augment", *key).random(4)
    np.testing.assert_array_equal(draws, randomness.generator(seed, "augment", *key).random(4))
    assert (draws == randomness.generator(seed, "augment", *other).random(4)).all() == (key == other)
    assert (draws != randomness.generator(seed, "dropout", *key).random(4)).any()


def test_keys_of_other_lengths_and_orders_are_other_keys():
    keys = [(), (0,), (0, 0), (1, 0), (0, 1), (0, 0, 1)]
    firsts = {randomness.generator(7, "augment", *key).random() for key in keys}
    assert len(firsts) == len(keys)


@given(seeds, small, st.lists(st.integers(1, 200_000), min_size=1, max_size=30), st.integers(1, 20_000))
def test_crops_lie_within_their_clips(seed, epoch, num_samples, crop_samples):
    samples = np.array(num_samples)
    starts = randomness.crop_starts(seed, "crop", epoch, np.arange(len(samples)), samples, crop_samples)
    assert (starts >= 0).all()
    assert (starts[samples <= crop_samples] == 0).all()
    assert (starts + crop_samples <= np.maximum(samples, crop_samples)).all()


def test_every_crop_position_is_equally_likely():
    starts = randomness.crop_starts(0, "crop", 0, np.arange(100_000), np.full(100_000, 19), 10)
    counts = np.bincount(starts, minlength=10)
    assert len(counts) == 10
    assert stats.chisquare(counts).pvalue > 1e-3


@given(seeds, small, small)
def test_derived_seeds_are_taken_by_torch_and_do_not_collide(seed, step, block):
    derived = randomness.derived_seed(seed, "dropout", step, block)
    torch.manual_seed(derived)
    assert 0 <= derived < 2**64
    assert derived not in {randomness.derived_seed(seed, "dropout", step + 1, block), seed, seed + step}
