"""Stages refuse settings that their data cannot fulfil."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from unfused_ray.config import PretrainConfig
from unfused_ray.training.driver.launch import check


@pytest.mark.parametrize("num_clusters", [(101,), (4, 101)])
def test_more_clusters_than_clips_are_refused(
    config: Callable[..., PretrainConfig], num_clusters: tuple[int, ...]
) -> None:
    with pytest.raises(ValueError, match=r"method\.num_clusters=101 must not exceed the number of clips, 100"):
        check(config("run", method__num_clusters=num_clusters))
