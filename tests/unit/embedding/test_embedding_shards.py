"""Vectors of shards made in parts equal those made at once, bit for bit, in whatever order the parts end."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.sources import write_source

from unfused_ray.audio.log_mel import LogMel
from unfused_ray.config import CropConfig, EncoderConfig, FrontEndConfig
from unfused_ray.data.parts.executor import IN_PROCESS, InThisProcess
from unfused_ray.data.shards.index import ClipIndex
from unfused_ray.embedding import shards
from unfused_ray.embedding.clips import embed_clips, read_out
from unfused_ray.embedding.shards import embed_shards
from unfused_ray.models.encoder import AudioNTT2020
from unfused_ray.models.frozen import FrozenEncoder


class Backwards(InThisProcess):
    """An executor whose last part ends first."""

    @contextmanager
    def run(
        self, function: Callable[..., Any], arguments: Iterable[tuple[Any, ...]]
    ) -> Iterator[Iterator[tuple[int, Any]]]:
        yield iter([(number, function(*values)) for number, values in enumerate(arguments)][::-1])


@pytest.mark.parametrize(("clips_per_part", "parts"), [(1, 4), (20, 2), (2000, 1)])
@pytest.mark.parametrize("executor", [IN_PROCESS, Backwards()])
def test_parts_change_nothing(
    clips_per_part: int, parts: int, executor: InThisProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards, "_CLIPS_PER_PART", clips_per_part)
    torch.manual_seed(0)
    encoder = AudioNTT2020(EncoderConfig(channels=4, width=16), FrontEndConfig().num_mels)
    frozen = FrozenEncoder(encoder, LogMel(FrontEndConfig(), -5.0, 4.0), CropConfig(seconds=0.2))
    index = ClipIndex([write_source(tmp_path, [[12, 11], [11, 11]], (2_400, 4_000, 7_000))])
    together = read_out(embed_clips(frozen, index, np.arange(index.num_clips)), "fc2", "both")
    done: list[int] = []
    np.testing.assert_array_equal(embed_shards(frozen, index, "both", executor, done.append), together)
    assert len(done) == parts
    assert done == sorted(done)
    assert done[-1] == index.num_clips
