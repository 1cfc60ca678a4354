"""A table of the LAPE tasks: what they are, from where to get them, and what of them is on this disk."""

from __future__ import annotations

from rich import box
from rich.markup import escape
from rich.table import Table

from unfused_ray.data.lape.registry import ROOT, TASKS, LapeTask


def overview(root: str) -> Table:
    """The table; ``root`` is the folder that holds the data sets, '' where none is named."""
    title = f"LAPE tasks; data sets in {root}" if root else f"LAPE tasks; --root or {ROOT} says where data sets are"
    table = Table(title=escape(title), title_justify="left", box=box.HORIZONTALS)
    table.add_column("code", no_wrap=True)
    table.add_column("data set, and from where", overflow="fold")
    for name in ("classes", "clips", "hours"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("licence")
    table.add_column("on this disk", overflow="fold")
    for code, task in TASKS.items():
        figures = (f"{task.classes:,}", f"{task.clips:,}", f"{task.hours:g}")
        found = _found(task, root) if root else ""
        address = f"[dim link={task.url}]{task.url.partition('://')[2]}[/]"
        table.add_row(code, f"{task.name}\n{address}", *figures, task.licence, escape(found))
    return table


def _found(task: LapeTask, root: str) -> str:
    missing = task.on(root).missing()
    if not missing:
        return "there"
    if len(missing) == len(task.requires):
        return "–"
    return f"without {missing[0]}" + (f" and {len(missing) - 1} more" if len(missing) > 1 else "")
