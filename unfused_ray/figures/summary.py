"""Tables for the terminal: one run at its end, and all runs of a folder."""

from __future__ import annotations

import time

from rich import box
from rich.table import Table

from unfused_ray import storage
from unfused_ray.figures.run_folder import PICTURES, RunFolder, curves
from unfused_ray.figures.stage_views import view_of
from unfused_ray.lease import is_in_use
from unfused_ray.runs.checkpoints import MANIFEST, CheckpointStore, Position
from unfused_ray.runs.run import ASSIGNMENTS, PSEUDO_LABELS, Run


def summary(run_uri: str) -> Table:
    """How a run stands, what its figures did from the first epoch to the last, and where its results are.

    Args:
        run_uri: folder of the run.

    Raises:
        FileNotFoundError: there is no run.
    """
    run = RunFolder(run_uri)
    table = Table(title=f"run {run.config.name}", title_justify="left", show_header=False, box=box.HORIZONTALS)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for heading, text in standing(run).items():
        table.add_row(heading, text)
    table.add_section()
    committed = CheckpointStore(run_uri, keep=1).committed()
    folders = {
        "checkpoint": committed[0] if committed else "",
        **{name: storage.join(run_uri, name) for name in (run.config.export, PICTURES, ASSIGNMENTS, PSEUDO_LABELS)},
    }
    for name, folder in folders.items():
        if folder and storage.exists(folder):
            table.add_row(name, folder)
    return table


def standing(run: RunFolder) -> dict[str, str]:
    """How a run stands and what its figures did from the first epoch to the last, by heading."""
    status = Run(run.uri).status()
    message = f": {status.message}" if status and status.message else ""
    rows = {"state": _state(run.uri) + message, "progress": _progress(run), "clips": f"{run.num_clips:,}"}
    view = view_of(run)
    for row in view.rows:
        for head, (_, values) in curves(run.history, row.figure).items():
            heading = f"{row.heading}, {head}" if head else row.heading
            rows[heading] = " → ".join(f"{value:{row.form}}" for value in values[:: max(len(values) - 1, 1)])
    return rows | view.facts()


def runs_table(folder_uri: str) -> Table:
    """The runs in a folder, in the order they were started in.

    A run that says it is running but that no living process works on is shown as ``died``: the command that started
    it takes it up again.
    """
    table = Table(title=f"runs in {folder_uri}", title_justify="left", box=box.HORIZONTALS)
    for heading in ("name", "state", "progress", "last checkpoint"):
        table.add_column(heading, no_wrap=True)
    table.add_column("folder", overflow="fold")
    uris = [uri for uri in storage.list_folders(folder_uri) if storage.exists(storage.join(uri, "run.json"))]
    for run in sorted(map(RunFolder, uris), key=lambda run: run.record["created"]):
        table.add_row(run.record["config"]["name"], _state(run.uri), _progress(run), _last_checkpoint(run.uri), run.uri)
    return table


def _state(run_uri: str) -> str:
    status = Run(run_uri).status()
    if status is not None and status.state != "running":
        return status.state
    if not is_in_use(run_uri):
        return "died"
    return "running" if status else "starting"


def _progress(run: RunFolder) -> str:
    """How far its newest checkpoint is: what a crash would leave."""
    committed = CheckpointStore(run.uri, keep=1).committed()
    position = Position.of(storage.name(committed[0])) if committed else Position()
    text = f"{position.epoch} of {run.record['config']['epochs']} epochs"
    return f"{text}, {position.step} steps" if position.step else text


def _last_checkpoint(run_uri: str) -> str:
    committed = CheckpointStore(run_uri, keep=1).committed()
    if not committed:
        return "none"
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(storage.modified(storage.join(committed[0], MANIFEST))))
