"""A small finished run on labelled clips, for tests of exports."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch

from support.finished_runs import CROP, ENCODER, FRONT_END
from support.tasks import write_task
from unfused_ray.config import DistillConfig
from unfused_ray.models.encoder import AudioNTT2020
from unfused_ray.models.export import save_encoder
from unfused_ray.runs.run import Run
from unfused_ray.runs.start_times import StartTimes
from unfused_ray.runs.status import Status


class Exportable(NamedTuple):
    """Folders of a finished distillation and of the task it trained on."""

    run: str
    task: str


def write_student(
    folder: Path, seed: int = 0, changes: Mapping[str, Any] | None = None, details: Mapping[str, Any] | None = None
) -> Exportable:
    """Write the finished run ``student`` on the task ``pitches``; nothing is trained.

    Args:
        folder: folder to write to.
        seed: seed of the weights.
        changes: changed fields of the configuration.
        details: further entries of the export's description.
    """
    task = write_task(folder / "pitches", 80, 8, 24)
    config = DistillConfig(data=(task,), name="pitches-student", epochs=2, teacher=str(folder / "gone"))
    config = config.replace(changes or {})
    run = Run(str(folder / "student"))
    run.open(config, {"num_clips": 80}, {"machine": "a machine of 2 CPUs", "torch": "2.14", "commit": "abc"})
    run.write_status(Status("finished", 2, 0))
    run.write_history([{"epoch": 0.0, "loss": 2.0, "seconds_train": 84.0, "seconds_wait": 30.0, "seconds_watch": 6.0}])
    StartTimes(arithmetic="float32 on 2 threads of a CPU").write(run.uri)
    torch.manual_seed(seed)
    network = AudioNTT2020(ENCODER.replace(cut="fc1"), FRONT_END.num_mels)
    extra = {"method": "UnFuSeD", "epochs": 2, "config": config.model_dump(mode="json"), **(details or {})}
    save_encoder(f"{run.uri}/student", network, FRONT_END, CROP, -5.0, 4.0, extra)
    return Exportable(run.uri, task)
