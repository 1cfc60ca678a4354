"""Evaluations of tiny tasks in this process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from support.tasks import PROTOCOL
from unfused_ray.config import EvaluateConfig
from unfused_ray.evaluation.table import EvaluationTable
from unfused_ray.evaluation_job import job, plan


def evaluated(folder: Path, task: str, *models: str, **fields: Any) -> EvaluationTable:
    """Evaluate models on a task by :data:`~support.tasks.PROTOCOL`, without random networks; return the table.

    The files of the table are in ``out`` in the folder. ``fields`` replace fields of the configuration.
    """
    (folder / "protocol.toml").write_text(PROTOCOL)
    values: dict[str, Any] = {
        "models": models,
        "tasks": (task,),
        "output": str(folder / "out"),
        "cache": str(folder / "cache"),
        "protocol": str(folder / "protocol.toml"),
        "random_seeds": 0,
        "processes": 1,
    }
    return job.run(plan.check(EvaluateConfig(**(values | fields))))
