"""Shards, statistics, blocks and vectors are made without Ray, with the same bytes as with Ray."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import soundfile
from support.archives import write_tar
from support.sources import tone
from support.tasks import write_encoder

from unfused_ray import storage
from unfused_ray.api import embed, prepare
from unfused_ray.config import EmbedConfig, FrontEndConfig, PrepareConfig
from unfused_ray.data.parts.ray_tasks import RayTasks
from unfused_ray.data.shards.format import Manifest
from unfused_ray.data.shards.statistics import compute_statistics

BARE = """
import json, sys
sys.modules["ray"] = sys.modules["mlflow"] = None
from unfused_ray.config import BatchConfig, CropConfig, EmbedConfig, FrontEndConfig, PrepareConfig
from unfused_ray.data.parts.default_executor import default_executor
from unfused_ray.data.shards.index import ClipIndex
from unfused_ray.api import embed, prepare
from unfused_ray.data.shards.statistics import compute_statistics
from unfused_ray.data.stream.plan import Pass, Planner
from unfused_ray.data.stream.prefetch import LocalSource, Prefetcher
from unfused_ray.data.stream.read import BlockReader

source, encoder, shards, vectors = sys.argv[1:]
manifest = prepare(PrepareConfig(source=source, output=shards))
embed(EmbedConfig(encoder=encoder, source=shards, output=vectors))
planner = Planner(ClipIndex([manifest]), 0, BatchConfig(block=4, blocks_per_step=1))
passes = [Pass("embed", 0), Pass("train", 0)]
prefetcher = Prefetcher(LocalSource(planner, BlockReader(0, 4, CropConfig(), 8_000)), passes, depth=2)
blocks = [len(list(prefetcher.blocks(pass_))) for pass_ in passes]
statistics = compute_statistics(manifest, FrontEndConfig(num_mels=32), default_executor())
print(json.dumps({"blocks": blocks, "sums": [statistics.sum, statistics.sum_of_squares]}))
"""


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.parquet")}


@pytest.mark.usefixtures("ray_session")
def test_a_bare_machine_makes_the_same_bytes(tmp_path: Path) -> None:
    clips = {}
    for number in range(30):
        soundfile.write(tmp_path / "clip.wav", tone(number, 4_000 + 700 * number), 16_000)
        clips[f"{number}.wav"] = (tmp_path / "clip.wav").read_bytes()
    write_tar(tmp_path / "clips.tar", clips)
    encoder = write_encoder(tmp_path / "encoder", cut="fc2")
    arguments = [str(tmp_path / "clips.tar"), str(encoder), str(tmp_path / "shards"), str(tmp_path / "vectors")]
    done = subprocess.run([sys.executable, "-c", BARE, *arguments], check=True, capture_output=True, text=True)
    assert "Ray is not used" in done.stderr
    source, folder = arguments[0], str(tmp_path / "by ray")
    manifest = prepare(PrepareConfig(source=source, output=folder))
    assert contents(tmp_path / "by ray") == contents(tmp_path / "shards")
    bare = Manifest.load(str(tmp_path / "shards"))
    assert manifest.statistics(FrontEndConfig()) == bare.statistics(FrontEndConfig())
    embed(EmbedConfig(encoder=str(encoder), source=arguments[2], output=storage.join(folder, "vectors")))
    assert contents(tmp_path / "by ray" / "vectors") == contents(tmp_path / "vectors")
    statistics = compute_statistics(manifest, FrontEndConfig(num_mels=32), RayTasks())
    assert json.loads(done.stdout) == {"blocks": [8, 7], "sums": [statistics.sum, statistics.sum_of_squares]}
