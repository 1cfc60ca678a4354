"""The command line: ``python -m corpus``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.table import Table

from corpus.build import build
from corpus.clips import Task
from corpus.splits import SPLITS
from corpus.task_folder import Built
from corpus.tasks import TASKS
from unfused_ray.machine.threads import usable_cores
from unfused_ray.progress import plain_console

_EXAMPLES = """examples:
  python -m corpus --output ../corpus
  python -m corpus --output /tmp/drums --tasks drum,inst --packages ../corpus.debs
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Build the corpus that the command line describes; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m corpus",
        description="Build audio tasks and clips for pre-training out of Debian packages, which are downloaded and "
        "unpacked, never installed. The same command resumes after an interruption.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder of the corpus")
    parser.add_argument("--tasks", default=",".join(TASKS), metavar="A,B", help="default: all, %(default)s")
    parser.add_argument("--packages", type=Path, metavar="DIR", help="folder of unpacked packages (OUTPUT.debs)")
    parser.add_argument("--processes", type=int, default=usable_cores(), help="tasks built at once (%(default)s)")
    given = parser.parse_args(arguments)
    names = [name for name in given.tasks.split(",") if name]
    if unknown := [name for name in names if name not in TASKS]:
        parser.error(f"no task {unknown[0]!r}: there are {', '.join(TASKS)}")
    if given.processes < 1:
        parser.error(f"--processes {given.processes} must be at least 1")
    output = given.output.absolute()
    tasks = [TASKS[name] for name in names]
    try:
        built = build(output, given.packages or output.with_name(output.name + ".debs"), tasks, given.processes)
    except (ValueError, OSError, RuntimeError) as error:  # RuntimeError from a program, or from a process that ended
        parser.exit(2, f"error: {error}\n")
    plain_console().print(_summary(tasks, built))
    sys.stdout.write(f"{output / 'README.md'} says more\n")
    return 0


def _summary(tasks: Sequence[Task], built: Mapping[str, Built]) -> Table:
    table = Table("task", "classes", *SPLITS, "groups in test", "hours")
    for column in table.columns[1:]:
        column.justify = "right"
    for task in tasks:
        rows = built[task.name].rows
        hours = f"{sum(row.seconds for row in rows) / 3600:.2f}"
        if task.split is None:
            table.add_row(task.name, "", str(len(rows)), "", "", "", hours)
            continue
        counts = [str(sum(row.split == split for row in rows)) for split in SPLITS]
        groups = len({row.group for row in rows if row.split == "test"})
        table.add_row(task.name, str(len({row.label for row in rows})), *counts, str(groups), hours)
    return table
