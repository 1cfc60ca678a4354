"""Estimates for GPU cards: the work counted in a step, and the slower of host and GPU."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from unfused_ray.models.roofline import CARDS, Estimate, Work, count, estimate


def test_operations_bytes_and_operators_of_a_product_are_counted() -> None:
    a, b = torch.ones(10, 20), torch.ones(20, 30)
    with Work() as work:
        product = (a @ b).T  # the transpose is a view
    assert product.shape == (30, 10)
    assert (work.count, work.num_bytes, work.num_operators) == (2 * 10 * 20 * 30, 4 * (200 + 600 + 300), 1)
    calls: list[int] = []
    assert count(lambda: calls.append(len(a @ b))).count == work.count
    assert calls == [10, 10]  # the first call is not counted
    found = estimate(work, 7, CARDS["L4"])
    assert found.products == pytest.approx(12_000 / (0.35 * 121e12))
    assert found.memory == pytest.approx(4_400 / (0.8 * 300e9))


def test_a_step_takes_as_long_as_the_slower_of_host_and_gpu() -> None:
    of_gpu = Estimate(clips=10, products=2.0, memory=1.0, launches=1.0, host=3.0)
    assert of_gpu.clips_per_second == 2.5
    assert "bound by the GPU" in str(of_gpu)
    assert replace(of_gpu, host=5.0).clips_per_second == 2.0
    assert "bound by the host" in str(replace(of_gpu, host=5.0))
