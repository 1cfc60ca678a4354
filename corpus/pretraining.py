"""Lists the clips for pre-training: no held-out clips, no copies of these, and none that share a recording with
them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from corpus.clips import Task
from corpus.near_copies import FINGERPRINT_SIZE, near_pairs
from corpus.task_folder import Built, Row, write_csv

TABLE = "pretrain.csv"
MOST_DB = 4.0
"""A clip is left out if its fingerprint differs by less than this, in dB, from that of a held-out clip. The limit is
wider than within a task, because losing a clip costs nothing here."""


@dataclass
class Pretraining:
    """The clips for pre-training."""

    rows: list[Row]
    left_out: dict[str, Counter[str]] = field(default_factory=dict)
    """Clips of each task that are left out, by reason."""

    @property
    def seconds(self) -> float:
        """Seconds of audio."""
        return sum(row.seconds for row in self.rows)


def list_pretraining(output: Path, tasks: Sequence[Task], built: Mapping[str, Built]) -> Pretraining:
    """Choose the clips for pre-training, and write ``pretrain.csv``.

    They are the training clips of all tasks and all unlabelled clips. Left out are clips that share a recording with a
    valid or test clip of any task, near-copies of such a clip, and copies of a clip that is listed already.
    """
    labelled = [task.name for task in tasks if task.split is not None]
    held = [
        (row, prints)
        for name in labelled
        for row, prints in zip(built[name].rows, built[name].fingerprints, strict=True)
        if row.split != "train"
    ]
    held_sources = {source for row, _ in held for source in row.sources} | {row.digest for row, _ in held}
    held_prints = np.array([prints for _, prints in held], np.uint8).reshape(len(held), FINGERPRINT_SIZE)
    chosen, seen = Pretraining([]), set[str]()
    for task in tasks:
        rows, prints = built[task.name].rows, built[task.name].fingerprints
        near = {place for place, _, _ in near_pairs(prints, held_prints, MOST_DB)}
        left_out = chosen.left_out.setdefault(task.name, Counter())
        for place, row in enumerate(rows):
            if row.split not in ("", "train"):
                continue
            if held_sources & {row.digest, *row.sources}:
                left_out["shares a recording with a held-out clip"] += 1
            elif place in near:
                left_out["near-copy of a held-out clip"] += 1
            elif row.digest in seen:
                left_out["copy of another task's clip"] += 1
            else:
                seen.add(row.digest)
                chosen.rows.append(row)
    write_csv(output / TABLE, ["files"], [[row.wav_path] for row in chosen.rows])
    return chosen
