"""The tasks of the corpus, a module each. README.md of the package says how one is written."""

from __future__ import annotations

from corpus.clips import Task
from corpus.tasks import drum

TASKS: dict[str, Task] = {task.name: task for task in (drum.TASK,)}
"""All tasks by name, in the order of the report."""
