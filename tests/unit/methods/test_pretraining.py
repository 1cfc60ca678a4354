"""Every pre-training without pseudo-labels resumes exactly, and learns the same with one worker and with two."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
import torch.distributed as dist
from support.runs import assert_equal_runs, history, initial_weights, tiny, tracked, train

from unfused_ray import recipes, storage
from unfused_ray.clustering.assignment import Assignment, write_assignment
from unfused_ray.config import PretrainConfig
from unfused_ray.data.shards.format import Statistics
from unfused_ray.data.stream.plan import Pass
from unfused_ray.data.stream.prefetch import BlockSource, LocalSource, Prefetcher
from unfused_ray.data.stream.read import Block, BlockReader
from unfused_ray.figures.metrics import view_of
from unfused_ray.methods import METHODS as KINDS
from unfused_ray.methods import cola
from unfused_ray.methods.method import BatchMethod
from unfused_ray.models.encoder import AudioNTT2020
from unfused_ray.report.terminal import summary
from unfused_ray.runs.checkpoints import Position
from unfused_ray.runs.files import read_file
from unfused_ray.runs.reader import RunReader
from unfused_ray.runs.run import DIVERGED
from unfused_ray.runs.status import Status
from unfused_ray.training.coordinator import Coordinator
from unfused_ray.training.driver.launch import check
from unfused_ray.training.stages import stage_of
from unfused_ray.training.worker import loop
from unfused_ray.training.worker.collectives import Collectives, DistributedCollectives, LocalCollectives
from unfused_ray.training.worker.loop import Loop, Worker, passes_left

STEPS = 3  # in an epoch: 100 clips, 32 a global batch
METHODS = [name for name, (_, recipe) in recipes.PRETRAIN.items() if name.endswith("-tiny")]
BATCH_METHODS = [name for name in METHODS if issubclass(KINDS[recipes.PRETRAIN[name][1].method.kind], BatchMethod)]

SMALL_STEPS = {"batch__block": 4, "batch__blocks_per_step": 2, "checkpoint__keep": 9}  # 12 steps an epoch
NOT_FINITE = 11  # this block is the second worker's, in the sixth step
ENDINGS: dict[str, dict[str, Any]] = {
    "diverged": {},
    "collapsed": {"health__min_effective_rank": 1e3, "health__on_collapse": "stop"},
    "finished": {"epochs": 1},
}


@pytest.mark.parametrize("name", BATCH_METHODS)
def test_what_a_batch_loss_is_made_of_is_float32_where_networks_compute_in_bfloat16(name: str) -> None:
    config = recipes.PRETRAIN[name][1]
    method = stage_of(config).build_method(())
    views = torch.randn(method.num_views, 4, config.front_end.num_mels, 96)
    with torch.autocast("cpu", torch.bfloat16):
        batch = method(views, torch.ones(4), torch.zeros(0, 4, dtype=torch.int64))
    assert {rows.dtype for rows in batch.values()} == {torch.float32}


def test_the_loss_of_a_batch_is_not_computed_in_bfloat16(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """COLA's logits are not normalised: near 60, bfloat16 rounds them to multiples of a quarter."""
    lower: dict[str, list[bool]] = {"networks": [], "loss": []}
    bilinear_loss, blocks = cola.bilinear_loss, AudioNTT2020.blocks

    def noted(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            lower[name].append(torch.is_autocast_enabled("cpu"))
            return function(*arguments)

        return call

    monkeypatch.setattr(cola, "bilinear_loss", noted("loss", bilinear_loss))
    monkeypatch.setattr(AudioNTT2020, "blocks", noted("networks", blocks))
    config = tiny(source, tmp_path / "run", "off", "cola-tiny")
    assert train(config.replace({"runtime.precision": "bfloat16"}, epochs=1)).state == "finished"
    assert any(lower["networks"])
    assert set(lower["loss"]) == {False}


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
    run = RunReader(str(tmp_path / "whole"))
    assert not run.has_assignment
    assert summary(run.uri).row_count
    drawn = {metric.name for metric in view_of(run).metrics}
    counts = {"epoch", "damaged_clips", "collapse_signs"}
    assert history(tmp_path / "whole")[-1].keys() - counts <= drawn
    figures = tracked(tracking_uri, run.uri).data.metrics
    assert figures["epoch/effective_rank"] == run.history()[-1]["effective_rank"]


def test_a_checkpoint_has_no_bank_and_one_with_an_empty_bank_is_resumed(
    source: Path, tmp_path: Path, stop_after: Callable[[int], None]
) -> None:
    """Earlier versions kept an assignment without heads in the checkpoints of runs without labels."""
    config = tiny(source, tmp_path / "run", "off", "cola-tiny")
    stop_after(1)
    assert train(config).state == "stopped"
    (checkpoint,) = (tmp_path / "run" / "checkpoints").iterdir()
    assert not (checkpoint / "bank").exists()
    write_assignment(f"{checkpoint}/bank/assignment", Assignment(0, (), (), (), {}))
    manifest = json.loads((checkpoint / "manifest.json").read_text())
    for file in (checkpoint / "bank").rglob("*.*"):
        manifest["files"][str(file.relative_to(checkpoint))] = storage.sha256_file(str(file))
    (checkpoint / "manifest.json").write_text(json.dumps(manifest))
    stop_after(-1)
    assert train(config).state == "finished"


@pytest.mark.parametrize("name", ["delores-m-tiny", "slicer-tiny"])
def test_a_warm_start_leaves_the_keys_of_the_other_runs_clips_behind(
    name: str, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = tiny(source, tmp_path / "trained", "off", name, epochs=1)
    assert train(trained).state == "finished"
    model = safetensors.torch.load_file(max((tmp_path / "trained/checkpoints").iterdir()) / "model.safetensors")
    assert model.pop("queue.keys").any()
    beginning = initial_weights(monkeypatch, tiny(source, tmp_path / "a", "off", name, init_from=trained.output))
    assert not beginning.pop("queue.keys").any()
    torch.testing.assert_close(beginning, model, rtol=0, atol=0)
    smaller = tiny(source, tmp_path / "b", "off", name, init_from=trained.output, method__queue=40)
    assert train(smaller).state == "finished"
    fork = tiny(source, tmp_path / "c", "off", name, fork=trained.output, method__queue=40)
    with pytest.raises(ValueError, match=r"method\.queue: \d+ → 40"):
        check(fork)


def _loop(config: PretrainConfig, collectives: Collectives, leaving_nodes: Callable[[], Sequence[str]] = tuple) -> Loop:
    """Return the loop of one worker, before its first step."""
    prepared, device = check(config), torch.device("cpu")
    source = LocalSource(prepared.planner, _reader(config))
    worker = Worker(collectives, device, prepared.planner, source, None, Coordinator(None), leaving_nodes=leaving_nodes)
    torch.manual_seed(config.seed)
    return Loop(config, prepared.run.uri, Statistics(1, 0.0, 1.0), stage_of(config).build_method(()), worker, None)


def _reader(config: PretrainConfig) -> BlockReader:
    samples = config.crop.num_samples(config.front_end.sample_rate)
    return BlockReader(config.seed, config.batch.block, config.crop, samples)


def _two_steps(config: PretrainConfig, collectives: Collectives) -> dict[str, torch.Tensor]:
    """Return the method's state after two steps of this worker's blocks; one thread, as bits depend on their number."""
    torch.set_num_threads(1)
    run = _loop(config, collectives)
    stream = run.worker.source.stream([Pass("train", 0)])
    blocks = [block for _, block in stream if block is not None][collectives.rank :: collectives.world]
    learner = run.learner
    learner.method.train()
    for step in range(2):
        run._step(Position(0, step), iter(blocks[step * learner.blocks_per_step :]), [])
    return dict(learner.method.state_dict())


@dataclass(frozen=True)
class _Share:
    """Source of this worker's blocks; weights of the block ``not_finite`` are NaN."""

    source: BlockSource
    collectives: Collectives
    not_finite: int | None

    def stream(self, passes: Sequence[Pass]) -> Iterator[tuple[Pass, Block | None]]:
        for pass_, block in self.source.stream(passes):
            if block is None or block.index % self.collectives.world == self.collectives.rank:
                bad = block is not None and block.index == self.not_finite
                yield pass_, replace(block, weights=block.weights * np.nan) if block is not None and bad else block


def _ending(name: str, config: PretrainConfig, collectives: Collectives) -> Status:
    """Run to the end on this worker; return the status. From the third look a node is leaving, from the sixth two."""
    looks = itertools.count(1)
    leaving = ["", "", "a", "a", "a", "b"]
    run = _loop(config, collectives, lambda: leaving[2 : next(looks)])
    source = _Share(run.worker.source, collectives, NOT_FINITE if name == "diverged" else None)
    passes = list(passes_left(config.last_epoch, None, None))
    with closing(Prefetcher(source, passes, config.runtime.prefetch_blocks)) as prefetcher:
        return run.run(prefetcher)


def _worker(rank: int, world: int, configs: dict[str, str], folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=world)
    loop.LOOK_SECONDS = 0.0 if rank == 0 else 1e9  # the first worker looks at every step, for all
    for name, text in configs.items():
        config, collectives = PretrainConfig.model_validate_json(text), DistributedCollectives()
        if name in ENDINGS:
            Path(folder, f"{name}-{rank}").write_text(json.dumps(asdict(_ending(name, config, collectives))))
        else:
            safetensors.torch.save_file(_two_steps(config, collectives), f"{folder}/{name}-{rank}")
    dist.destroy_process_group()


def _on_sgd(name: str, source: Path, output: Path, tracking_uri: str) -> PretrainConfig:
    """Return a configuration with SGD: AdamW would move biases before batch norm by whole steps of rounding errors."""
    return tiny(source, output, tracking_uri, name, optimizer__name="sgd", optimizer__lr=0.1)


@pytest.fixture(scope="module")
def of_two_workers(source: Path, tracking_uri: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with both workers' results, ``<recipe or ending>-<rank>``; two processes do all, as they start slowly."""
    folder = tmp_path_factory.mktemp("workers")
    configs = {name: _on_sgd(name, source, folder / "run", tracking_uri) for name in METHODS}
    for name, fields in ENDINGS.items():
        configs[name] = tiny(source, folder / f"run-{name}", tracking_uri, "byol-a-tiny", **SMALL_STEPS, **fields)
    texts = {name: config.model_dump_json() for name, config in configs.items()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GLOO_SOCKET_IFNAME", "lo")
        torch.multiprocessing.spawn(_worker, (2, texts, str(folder)), nprocs=2)
    return folder


@pytest.mark.parametrize("name", METHODS)
def test_two_workers_learn_what_one_does(
    name: str, source: Path, tmp_path: Path, tracking_uri: str, of_two_workers: Path
) -> None:
    alone = _two_steps(_on_sgd(name, source, tmp_path / "run", tracking_uri), LocalCollectives())
    for rank in range(2):
        state = safetensors.torch.load_file(of_two_workers / f"{name}-{rank}")
        torch.testing.assert_close(state, alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "at", "checkpoints"),
    [
        ("diverged", (0, 6), ["e0000-s000004"]),
        ("collapsed", (1, 0), ["e0000-s000004", "e0000-s000007", "e0001-s000000"]),
        ("finished", (1, 0), ["e0000-s000004", "e0000-s000007", "e0001-s000000"]),
    ],
)
def test_two_workers_end_at_the_same_step_and_write_one_checkpoint_for_each_node_that_leaves(
    name: str, at: tuple[int, int], checkpoints: list[str], of_two_workers: Path
) -> None:
    first, second = (json.loads((of_two_workers / f"{name}-{rank}").read_text()) for rank in range(2))
    assert (first["state"], first["epoch"], first["step"]) == (name, *at)
    assert second == first
    run = of_two_workers / f"run-{name}"
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == checkpoints


def test_a_node_that_is_found_leaving_at_the_end_of_an_epoch_has_its_checkpoint_there(
    source: Path, tmp_path: Path, tracking_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The checkpoint is written even soon after the last one, because a leaving node is found only once."""
    monkeypatch.setattr(loop, "LOOK_SECONDS", 0.0)
    config = tiny(source, tmp_path / "run", tracking_uri, "cola-tiny", checkpoint__min_minutes=1e6)
    looks = itertools.count(1)
    run = _loop(config, LocalCollectives(), lambda: ["a"] if next(looks) >= STEPS else [])
    passes = list(passes_left(config.last_epoch, None, None))
    with closing(Prefetcher(run.worker.source, passes, config.runtime.prefetch_blocks)) as prefetcher:
        assert run.run(prefetcher).state == "finished"
    checkpoints = sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir())
    assert checkpoints == ["e0001-s000000", "e0002-s000000"]


def test_of_a_divergence_the_clips_of_all_workers_are_kept(
    source: Path, tmp_path: Path, tracking_uri: str, of_two_workers: Path
) -> None:
    config = tiny(source, tmp_path / "run", tracking_uri, "byol-a-tiny", **SMALL_STEPS)
    blocks = list(LocalSource(check(config).planner, _reader(config)).blocks(Pass("train", 0)))
    batch = read_file(str(of_two_workers / "run-diverged"), DIVERGED)
    step = NOT_FINITE // 2
    clips = sorted(clip for block in blocks[2 * step : 2 * step + 2] for clip in block.clip_ids.tolist())
    assert batch == {"epoch": 0, "step": step, "clip_ids": clips}
