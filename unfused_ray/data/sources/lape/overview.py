"""The table of the LAPE tasks: their facts, addresses, and the files found on this disk."""

from __future__ import annotations

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from unfused_ray.data.sources.lape.registry import ROOT, TASKS
from unfused_ray.data.sources.lape.task import LapeTask


def overview(root: str) -> Group:
    """Make the table, with addresses under it; ``root`` is the folder that holds the data sets, or ''."""
    title = f"LAPE tasks; data sets in {root}" if root else f"LAPE tasks; --root or {ROOT} says where data sets are"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 0, 0, 1))
    table.add_column("code", no_wrap=True)
    table.add_column("data set", overflow="fold")
    for name in ("classes", "clips", "hours"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("licence", overflow="fold")
    if root:
        table.add_column("on this disk", overflow="fold")
    codes_by_address: dict[str, list[str]] = {}
    for code, task in TASKS.items():
        figures = (f"{task.classes:,}", f"{task.clips:,}", f"{task.hours:g}")
        found = [_found(task, root)] if root else []
        table.add_row(code, task.name, *figures, task.licence, *found)
        codes_by_address.setdefault(task.url, []).append(code)
    # Addresses are under the table, where a narrow terminal does not wrap them.
    addresses = Table(title="where to get them", title_justify="left", box=None, show_header=False, pad_edge=False)
    addresses.add_column(overflow="fold")
    addresses.add_column(overflow="fold")
    for address, codes in codes_by_address.items():
        addresses.add_row(", ".join(codes), Text(address, f"link {address}"))
    return Group(table, addresses)


def _found(task: LapeTask, root: str) -> str:
    missing = task.on(root).missing()
    if not missing:
        return "there"
    if len(missing) == len(task.requires):
        return "–"
    return f"without {missing[0]}" + (f" and {len(missing) - 1} more" if len(missing) > 1 else "")
