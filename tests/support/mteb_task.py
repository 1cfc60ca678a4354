"""Let MTEB evaluate our adapter on a task of tones: ``python mteb_task.py ENCODER``, in the kits' environment."""

from __future__ import annotations

import sys
from typing import Any

import mteb
import numpy as np
from datasets import Dataset, DatasetDict
from mteb.abstasks.classification import AbsTaskClassification
from mteb.abstasks.task_metadata import TaskMetadata

from unfused_ray.kits.mteb import UnfusedModel


def tones(count: int) -> Dataset:
    """Return tones of three pitches and several lengths, labelled by pitch."""
    rng = np.random.default_rng(count)
    labels = [number % 3 for number in range(count)]
    waves = []
    for label in labels:
        time = np.arange(8_000 + 1_000 * int(rng.integers(5))) / 16_000
        wave = 0.3 * np.sin(2 * np.pi * (300 + 400 * label) * time) + 0.02 * rng.standard_normal(len(time))
        waves.append({"array": wave.astype(np.float32), "sampling_rate": 16_000})
    return Dataset.from_dict({"audio": waves, "label": labels})


class Tones(AbsTaskClassification):
    """Task: name the pitch of a tone."""

    metadata = TaskMetadata(
        name="Tones",
        description="The pitch of a tone.",
        dataset={"path": "none/none", "revision": "1"},
        type="AudioClassification",
        category="a2c",
        modalities=["audio"],
        eval_splits=["test"],
        eval_langs=["eng-Latn"],
        main_score="accuracy",
    )
    input_column_name = "audio"

    def load_data(self, **_: Any) -> None:
        self.dataset = DatasetDict({"train": tones(30), "test": tones(12)})
        self.data_loaded = True


(result,) = mteb.evaluate(UnfusedModel(sys.argv[1]), Tones(), cache=None, overwrite_strategy="always")
sys.stdout.write(f"accuracy {result.scores['test'][0]['accuracy']}\n")
