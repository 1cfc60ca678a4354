"""Tables for the terminal: one run at its end, and all runs in a folder."""

from __future__ import annotations

import logging
import time

from rich import box
from rich.table import Table

from unfused_ray import storage
from unfused_ray.report.facts import progress, standing, state
from unfused_ray.runs.checkpoints import MANIFEST
from unfused_ray.runs.reader import PICTURES, RunReader
from unfused_ray.runs.run import ASSIGNMENTS, PSEUDO_LABELS, is_run

logger = logging.getLogger(__name__)


def summary(run_uri: str) -> Table:
    """Summarise a run: its state, its metrics from the first epoch to the last, and its folders.

    Raises:
        FileNotFoundError: there is no run.
    """
    run = RunReader(run_uri)
    table = Table(title=f"run {run.config.name}", title_justify="left", show_header=False, box=box.HORIZONTALS)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for heading, text in standing(run).items():
        table.add_row(heading, text)
    table.add_section()
    names = (run.config.export, PICTURES, ASSIGNMENTS, PSEUDO_LABELS)
    folders = {"checkpoint": run.newest_checkpoint, **{name: storage.join(run_uri, name) for name in names}}
    for name, folder in folders.items():
        if folder and storage.exists(folder):
            table.add_row(name, folder)
    return table


def runs_table(folder_uri: str) -> Table:
    """List the runs in a folder, in the order in which they were started.

    A run whose recorded state is running, but on which no living process works, is shown as ``died``: the command that
    started it resumes it. A run of another version is not listed; a warning names it.
    """
    table = Table(title=f"runs in {folder_uri}", title_justify="left", box=box.HORIZONTALS)
    for heading in ("name", "state", "progress", "last checkpoint"):
        table.add_column(heading, no_wrap=True)
    table.add_column("folder", overflow="fold")
    uris = [uri for uri in storage.list_folders(folder_uri) if is_run(uri)]
    runs = []
    for uri in uris:
        try:
            runs.append(RunReader(uri))
        except ValueError as error:
            logger.warning("a run is not listed: %s", error)
    for run in sorted(runs, key=lambda run: run.created):
        table.add_row(run.config.name, state(run), progress(run), _last_checkpoint(run), run.uri)
    return table


def _last_checkpoint(run: RunReader) -> str:
    newest = run.newest_checkpoint
    if not newest:
        return "none"
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(storage.modified(storage.join(newest, MANIFEST))))
