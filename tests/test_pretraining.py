"""What every pre-training without pseudo-labels has to keep: exact resumes, one result for any number of workers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch
import torch.distributed as dist
from runs import assert_equal_runs, history, tiny, tracked
from sources import write_source

from unfused_ray import recipes
from unfused_ray.clustering.clusterer import NoLabels
from unfused_ray.config import PretrainConfig
from unfused_ray.data.plan import Pass
from unfused_ray.data.read import BlockReader
from unfused_ray.data.shards import Statistics
from unfused_ray.data.stream import LocalSource
from unfused_ray.evaluation.run_folder import RunFolder
from unfused_ray.evaluation.stage_views import view_of
from unfused_ray.evaluation.summary import summary
from unfused_ray.methods.pretraining import build_pretraining
from unfused_ray.training.coordinator import RemoteCoordinator
from unfused_ray.training.group import Alone, Distributed, Group
from unfused_ray.training.launch import check, train
from unfused_ray.training.loop import Loop, Worker

STEPS = 3  # an epoch: 100 clips, 32 a global batch
METHODS = [name for name, (_, recipe) in recipes.PRETRAIN.items() if name.endswith("-tiny")]

pytestmark = pytest.mark.usefixtures("alone")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("source")
    write_source(folder, [[40, 30], [30]])
    return folder


@pytest.mark.parametrize("name", METHODS)
def test_a_run_that_was_stopped_ends_as_if_it_had_not_been(
    name: str, source: Path, tmp_path: Path, tracking_uri: str, stop_after: Callable[[int], None]
) -> None:
    whole, parts = (tiny(source, tmp_path / folder, tracking_uri, name) for folder in ("whole", "parts"))
    assert train(whole).state == "finished"
    stop_after(STEPS + 1)
    assert train(parts).state == "stopped"
    assert train(parts).state == "finished"
    assert_equal_runs(tmp_path / "parts", tmp_path / "whole")
    assert all(entry["loss"] > 0 and entry["effective_rank"] > 1 for entry in history(tmp_path / "whole"))
    run = RunFolder(str(tmp_path / "whole"))
    assert not run.is_labelled
    assert summary(run.uri).row_count
    drawn = {panel.figure for panel in view_of(run).panels()}
    counts = {"epoch", "damaged_clips", "collapse_signs"}
    assert history(tmp_path / "whole")[-1].keys() - counts <= drawn
    figures = tracked(tracking_uri, run.uri).data.metrics
    assert figures["epoch/effective_rank"] == run.history[-1]["effective_rank"]


def _loop(config: PretrainConfig, group: Group) -> Loop:
    """A loop of one worker, before its first step."""
    prepared = check(config)
    source = LocalSource(prepared.planner, _reader(config))
    worker = Worker(group, torch.device("cpu"), prepared.planner, source, NoLabels(), RemoteCoordinator(None))
    torch.manual_seed(config.seed)
    return Loop(config, prepared.run.uri, Statistics(1, 0.0, 1.0), build_pretraining(config), worker, None)


def _reader(config: PretrainConfig) -> BlockReader:
    samples = config.crop.num_samples(config.front_end.sample_rate)
    return BlockReader(config.seed, config.batch.block, config.crop, samples)


def _two_steps(config: PretrainConfig, group: Group) -> dict[str, torch.Tensor]:
    """The method's state after two steps, of this worker's share of the blocks, on one thread: bits depend on them."""
    torch.set_num_threads(1)
    loop = _loop(config, group)
    blocks = list(loop.worker.source.blocks(Pass("train", 0)))[group.rank :: group.world]
    loop.method.train()
    for step in range(2):
        loop.step(0, step, iter(blocks[step * loop.blocks_per_step :]), [])
    return dict(loop.method.state_dict())


def _worker(rank: int, world: int, configs: dict[str, str], folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=world)
    for name, config in configs.items():
        state = _two_steps(PretrainConfig.model_validate_json(config), Distributed(torch.device("cpu")))
        safetensors.torch.save_file(state, f"{folder}/{name}-{rank}")
    dist.destroy_process_group()


def _on_sgd(name: str, source: Path, output: Path, tracking_uri: str) -> PretrainConfig:
    """Not on AdamW, whose step of a bias before batch norm, without a gradient but for rounding, is as long as any."""
    return tiny(source, output, tracking_uri, name, optimizer__name="sgd", optimizer__lr=0.1)


@pytest.fixture(scope="module")
def of_two_workers(source: Path, tracking_uri: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of each method's state on both workers, ``<recipe>-<rank>``: two processes for all, which start slowly."""
    folder = tmp_path_factory.mktemp("workers")
    configs = {name: _on_sgd(name, source, folder / "run", tracking_uri).model_dump_json() for name in METHODS}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GLOO_SOCKET_IFNAME", "lo")
        torch.multiprocessing.spawn(_worker, (2, configs, str(folder)), nprocs=2)
    return folder


@pytest.mark.parametrize("name", METHODS)
def test_two_workers_learn_what_one_does(
    name: str, source: Path, tmp_path: Path, tracking_uri: str, of_two_workers: Path
) -> None:
    alone = _two_steps(_on_sgd(name, source, tmp_path / "run", tracking_uri), Alone())
    for rank in range(2):
        state = safetensors.torch.load_file(of_two_workers / f"{name}-{rank}")
        torch.testing.assert_close(state, alone, rtol=1e-4, atol=1e-5)
