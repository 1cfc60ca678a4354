"""Plays a few test clips, and the clips that a random network and trained ones find nearest to them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from unfused_ray.evaluation.cells import read_content
from unfused_ray.evaluation.tasks import Task, load_task
from unfused_ray.figures.nearest import Question, ask, clips_of
from unfused_ray.report.page import PageClip, PageCluster, Section, Sound
from unfused_ray.report.sounds import read_sounds, seconds_of_each

_HEADING = "Listen to the nearest clips of each system"
_MOST_TASKS = 4
_MOST_SECONDS = 2.0


def nearest_to_hear(uri: str, record: Mapping[str, Any]) -> Section:
    """Show the chosen test clips of each task as groups to listen to, or the reason why they cannot be read.

    Args:
        uri: folder of the evaluation.
        record: record of the evaluation, with its configuration, the rows whose answers are shown, and checksums of the
            tasks.
    """
    systems, all_folders = record["asked"], record["config"]["tasks"]
    folders: list[str] = all_folders[:_MOST_TASKS]
    try:
        tasks = [_load(folder, record.get("checksums", {})) for folder in folders]
        questions = [(task, ask(task, {name: _found(uri, task, name) for name in systems})) for task in tasks]
        num_clips = sum(1 + sum(map(len, each.found.values())) for _, chosen in questions for each in chosen.asked)
        seconds = min(_MOST_SECONDS, seconds_of_each(max(1, num_clips)))
        groups = [group for task, chosen in questions for group in _groups(task, chosen.asked, seconds)]
    except (OSError, ValueError) as error:
        return Section(_HEADING, [f"The clips cannot be heard here, because they cannot be read now: {error}"])
    left_out = f" of the first {_MOST_TASKS} tasks" if len(folders) < len(all_folders) else ""
    text = (
        f"Test clips{left_out}, and the training clips whose vectors are nearest to theirs, the nearest first. Each "
        f"clip is cut to its first {seconds:.1f} s and coded with Opus."
    )
    return Section(_HEADING, [text, *(f"{task.name}: {chosen.why}" for task, chosen in questions)], clusters=groups)


def _load(folder: str, checksums: Mapping[str, list[str]]) -> Task:
    """Read a task whose clips are those that the evaluation numbered; older records have no checksums to tell."""
    task = load_task(folder)
    if task.name not in checksums:
        raise ValueError(f"the evaluation does not say which clips of {folder} it read: evaluate again, which is quick")
    if task.index.checksums != checksums[task.name]:
        raise ValueError(f"the clips at {folder} are no longer those that were evaluated: evaluate again")
    return task


def _found(uri: str, task: Task, system: str) -> np.ndarray:
    return np.array(read_content(uri, task.name, system)["seeds"][0]["nearest"])


def _groups(task: Task, questions: Sequence[Question], seconds: float) -> list[PageCluster]:
    sounds = read_sounds(task.index, task.index.manifests[0].front_end, clips_of(questions), seconds)
    keys = task.index.column("key")

    def heard(clip_id: int, place: str) -> PageClip:
        sound: Sound = sounds[clip_id]
        return PageClip(place, keys[clip_id], f"{_label(task, clip_id)}, {sound.facts}", sound)

    groups = []
    for question in (each for each in questions if each.clip_id in sounds):
        label = _label(task, question.clip_id)
        answers = {name: [clip for clip in found if clip in sounds] for name, found in question.found.items()}
        right = {name: sum(_label(task, clip) == label for clip in found) for name, found in answers.items()}
        groups.append(
            PageCluster(
                name=f"{task.name}: {label}",
                why="; ".join(f"{name}: {right[name]} of {len(found)} are {label}" for name, found in answers.items()),
                facts="",
                clips=[
                    heard(question.clip_id, "test clip"),
                    *(heard(clip, name) for name, found in answers.items() for clip in found),
                ],
            )
        )
    return groups


def _label(task: Task, clip_id: int) -> str:
    return task.class_names[task.class_ids[clip_id]]
