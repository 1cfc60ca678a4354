"""A whole training in one process, a distillation and its embeddings need neither Ray nor MLflow."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from support.runs import train
from support.sources import write_source

from unfused_ray.config import PretrainConfig, RuntimeConfig
from unfused_ray.training.runtimes.in_process import InProcess

SCRIPT = """
import sys


class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("ray", "mlflow"):
            raise ImportError(f"{name} must not be imported here")


sys.meta_path.insert(0, Missing())

import numpy as np

import unfused_ray
from unfused_ray.data.shards.index import ClipIndex
from unfused_ray.embedding.clips import embed_clips
from unfused_ray.training.driver.launch import check, describe

source, folder = sys.argv[1:]
changes = {"data": (source,), "tracking.uri": "off", "runtime.threads": 1}
changes["front_end.f_max"] = 7000.0  # statistics that are unknown
changes |= {"epochs": 2, "stop_after": 1}  # no pictures are drawn of what goes on
teacher = unfused_ray.recipe("pretrain/tiny", {**changes, "output": f"{folder}/teacher"})
describe(check(teacher))
assert unfused_ray.pretrain(teacher).status.ended_as_planned(1)
student = unfused_ray.distill("tiny", **changes, output=f"{folder}/student", teacher=f"{folder}/teacher")
assert student.status.ended_as_planned(1)
encoder = unfused_ray.load_student(student.folder)
assert encoder.embed(np.zeros(16_000, np.float32), 16_000).isfinite().all()
vectors = embed_clips(encoder, ClipIndex.load((source,), teacher.splits), np.arange(5))
assert all(np.isfinite(layer).all() for layer in vectors.values())
"""


def test_a_training_a_student_and_its_embeddings_import_neither_ray_nor_mlflow(tmp_path: Path) -> None:
    write_source(tmp_path / "source", [[40, 30]], (7_000, 20_000))
    command = [sys.executable, "-c", SCRIPT, str(tmp_path / "source"), str(tmp_path)]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr


def test_what_counts_in_a_worker_group_alone_is_named(caplog: pytest.LogCaptureFixture) -> None:
    InProcess().refuse_impossible(RuntimeConfig(kind="in-process"))
    assert caplog.messages == []
    InProcess().refuse_impossible(RuntimeConfig(kind="in-process", num_workers=4, cpus_per_worker=0.5))
    assert caplog.messages == [
        "runtime.num_workers=4 is ignored: the training runs in one process",
        "runtime.cpus_per_worker=0.5 is ignored: the training runs in one process",
    ]


def test_processes_that_would_share_a_bank_are_not_ignored_in_silence(
    config: Callable[..., PretrainConfig], caplog: pytest.LogCaptureFixture
) -> None:
    train(config("run", stop_after=1, method__assignment_shards=2))
    assert "method.assignment_shards=2 is ignored: the training runs in one process" in caplog.text
