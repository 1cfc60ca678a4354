"""Draws the pictures of a cell: the errors of its classifier, and a map of the test clips in the system's vectors."""

from __future__ import annotations

import logging

from unfused_ray import storage
from unfused_ray.evaluation.cells import Cell, Heard, file_stem
from unfused_ray.evaluation.tasks import Task
from unfused_ray.figures.canvas import save
from unfused_ray.figures.confusion import draw_confusion
from unfused_ray.figures.map import by_class, draw_map, project

logger = logging.getLogger(__name__)


def files(system: str) -> tuple[str, str]:
    """Return the names of a system's pictures in a task's folder: confusion matrix and map."""
    return f"{file_stem(system)}-confusion.png", f"{file_stem(system)}-map.png"


def write(output: str, task: Task, system: str, cell: Cell, heard: Heard) -> None:
    """Draw a cell into an evaluation's folder.

    The confusion matrix covers all networks and folds together. The map needs vectors with at least three directions.
    """
    confusion, picture = (storage.join(output, task.name, name) for name in files(system))
    num_networks, num_tested = cell.scores["linear"].shape
    title = f"Linear probe of {system} on {task.name}: {cell.accuracy('linear'):.1%} of {num_tested:,} test clips"
    if num_networks > 1:
        title += f", each embedded by {num_networks} networks"
    save(draw_confusion(title, cell.confusion, task.class_names), confusion)
    storage.delete(picture)  # it may show another network
    if (positions := project(heard.vectors)) is None:
        logger.warning("no map of %s on %s: its vectors have fewer than three directions", system, task.name)
        return
    clips = f"{len(heard.vectors):,} test clips of {heard.task}"
    classes = by_class("by class", heard.class_ids, task.class_names)
    save(draw_map(f"{clips}, embedded by {system} (t-SNE)", positions, [classes]), picture)
