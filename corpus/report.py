"""Describes a corpus: README.md, stats.json and the licences of its packages."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from corpus.clips import Task
from corpus.near_copies import MOST_DB
from corpus.packages import Package, Packages, copyright_files, package_lists
from corpus.pretraining import MOST_DB as MOST_DB_OF_PRETRAINING
from corpus.pretraining import Pretraining
from corpus.splits import SPLITS
from corpus.task_folder import Built, Row
from unfused_ray import storage

_HEAD = f"""# A free corpus of audio tasks

Made by `python -m corpus` out of Debian packages. All clips are 16 kHz mono 16-bit FLAC. `<task>/train.csv`,
`valid.csv` and `test.csv` have the columns `wav_path` (relative to this folder), `label` and `group`; `pretrain.csv`
lists the clips for pre-training in its column `files`.

## How leakage is avoided

- A split belongs to a group, never to a clip: no group is in two splits. Every choice is a function of the SHA-1 of a
  name; nothing is random.
- Copies are dropped: equal bytes, equal samples, and samples that differ in gain only. Of a recording that carries two
  labels, neither clip is kept.
- Near-copies across splits are dropped: log-mel fingerprints of the first second that differ by less than
  {MOST_DB:g} dB (root mean square); the training clip goes first.
- `pretrain.csv` holds no clip of a valid or test split of any task, none that shares a source recording with one, and
  no near-copy of one, below {MOST_DB_OF_PRETRAINING:g} dB. Unlabelled clips that are not listed for this reason remain
  in their folders.
"""


def write_report(
    output: Path, packages: Packages, tasks: Sequence[Task], built: Mapping[str, Built], pretraining: Pretraining
) -> None:
    """Write README.md, stats.json and licences/ into the corpus."""
    names = sorted({name for task in tasks for name in task.packages})
    listed = package_lists()
    _copy_licences(output / "licences", packages, names)
    stats = statistics(packages, tasks, built, pretraining)
    text = "\n".join(
        [
            _HEAD,
            *_overview(tasks, built, stats),
            "",
            *(line for task in tasks for line in _about_task(task, built[task.name])),
            *_about_packages([listed[name] for name in names], packages),
            "",
        ]
    )
    storage.write_bytes(str(output / "README.md"), text.encode())
    storage.write_bytes(str(output / "stats.json"), (json.dumps(stats, indent=1, sort_keys=True) + "\n").encode())


def statistics(
    packages: Packages, tasks: Sequence[Task], built: Mapping[str, Built], pretraining: Pretraining
) -> dict[str, Any]:
    """Return counts of all tasks and of pre-training, and the versions of the packages."""
    return {
        "tasks": {task.name: _count(task, built[task.name]) for task in tasks},
        "pretraining": {
            "clips": len(pretraining.rows),
            "hours": round(pretraining.seconds / 3600, 2),
            "left out": {name: dict(sorted(why.items())) for name, why in pretraining.left_out.items() if why},
        },
        "packages": {name: packages.version(name) for task in tasks for name in task.packages},
    }


def _count(task: Task, built: Built) -> dict[str, Any]:
    rows = built.rows
    count: dict[str, Any] = {"skipped": built.skipped, "hours": round(sum(row.seconds for row in rows) / 3600, 3)}
    if task.split is None:
        return {**count, "clips": len(rows)}
    in_split = {split: [row for row in rows if row.split == split] for split in SPLITS}
    classes = {label: dict.fromkeys(SPLITS, 0) for label in sorted({row.label for row in rows})}
    for row in rows:
        classes[row.label][row.split] += 1
    return {
        **count,
        "clips": {split: len(kept) for split, kept in in_split.items()},
        "groups": {split: len({row.group for row in kept}) for split, kept in in_split.items()},
        "classes": classes,
        "largest class": round(max(Counter(row.label for row in in_split["test"]).values()) / len(in_split["test"]), 4),
    }


def _overview(tasks: Sequence[Task], built: Mapping[str, Built], stats: Mapping[str, Any]) -> list[str]:
    lines = [
        "## Tasks",
        "",
        "| task | to be told apart | classes | train | valid | test | groups in test | hours | largest class |",
        "|---|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for task in tasks:
        count = stats["tasks"][task.name]
        if task.split is None:
            lines.append(f"| {task.name} | {task.about} | | {count['clips']} | | | | {count['hours']:.2f} | |")
            continue
        clips = " | ".join(str(count["clips"][split]) for split in SPLITS)
        lines.append(
            f"| {task.name} | {task.about} | {len(count['classes'])} | {clips} | {count['groups']['test']} "
            f"| {count['hours']:.2f} | {100 * count['largest class']:.1f} % |"
        )
    clips, hours = stats["pretraining"]["clips"], stats["pretraining"]["hours"]
    return [*lines, "", f"For pre-training: {clips} clips, {hours:.1f} hours."]


def _about_task(task: Task, built: Built) -> list[str]:
    skipped = ", ".join(f"{reason} {count}" for reason, count in built.skipped.items()) or "none"
    lines = [f"## {task.name}", "", f"{task.about[0].upper()}{task.about[1:]}.", ""]
    if task.notes:
        lines += [task.notes.strip(), ""]
    if task.split is None:
        return [*lines, f"Unlabelled. Skipped: {skipped}.", ""]
    groups = ", ".join(f"{split} {len({row.group for row in built.rows if row.split == split})}" for split in SPLITS)
    lines += [
        f"A group is {task.group_is}. Groups: {groups}. Splits: {task.split.about}. Skipped: {skipped}.",
        "",
        "| class | train | valid | test | mean s | mean dBFS |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    for label in sorted({row.label for row in built.rows}):
        lines.append(_class_line(label, [row for row in built.rows if row.label == label]))
    return [*lines, ""]


def _class_line(label: str, rows: Sequence[Row]) -> str:
    clips = " | ".join(str(sum(row.split == split for row in rows)) for split in SPLITS)
    level = 10 * np.log10(np.mean([row.rms**2 for row in rows]) + 1e-12)
    return f"| {label} | {clips} | {np.mean([row.seconds for row in rows]):.2f} | {level:.1f} |"


def _about_packages(listed: Sequence[Package], packages: Packages) -> list[str]:
    lines = [
        "## Licences",
        "",
        "Read from the packages' copyright files, which are in `licences/`. A clip has the licence of its source.",
        "",
        "| package | version | taken from it | licence |",
        "|---|---|---|---|",
    ]
    return lines + [
        f"| {package.name} | {packages.version(package.name)} | {package.taken} | {package.licence} |"
        for package in listed
    ]


def _copy_licences(folder: Path, packages: Packages, names: Sequence[str]) -> None:
    folder.mkdir(exist_ok=True)
    for name, files in copyright_files(packages, names).items():
        if not files:
            raise ValueError(f"package {name} has no copyright file: its licence cannot be shown")
        for file in files:
            target = folder / (f"{name}.txt" if len(files) == 1 else f"{name}.{file.parent.name}.txt")
            shutil.copyfile(file, target)
