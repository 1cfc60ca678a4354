"""Makes a table of systems × tasks: train what its plan names, read every frozen encoder on every task, compare.

The prepared sources and tasks of the plan lie in folders of their names below ``data_root``. Trainings and evaluations
are the ordinary jobs, each a process that writes to a log; given again, a comparison goes on wherever it was. Where
``RAY_ADDRESS`` is set they are drivers on that cluster.

Before the first test clip is read, the plan's digest and the protocol's hash are written to frozen.json in the output
folder; after that a plan or protocol that differs is refused: it is another table, in another folder.
"""

from __future__ import annotations

from rich.console import Group
from rich.text import Text

from unfused_ray.comparison.runner import ComparisonPlan
from unfused_ray.config import CompareConfig


def check(config: CompareConfig) -> ComparisonPlan:
    """Read the plan and refuse what cannot be trained or compared; nothing is written.

    Raises:
        ValueError, FileNotFoundError: names the field, its value and the rule.
    """
    return ComparisonPlan(config)


def describe(plan: ComparisonPlan) -> Group:
    """Show how every training stands, and the processes that would be run."""
    return Group(plan.listing(), Text("\n".join(plan.commands()), no_wrap=True, overflow="ignore"))


def run(plan: ComparisonPlan) -> int:
    """Train what is not finished, read the test clips and write the table; return how many trainings failed.

    Raises:
        ValueError: nothing is finished that could be evaluated, or a run is of other settings than the plan's.
        ChildProcessError: an evaluation failed.
    """
    return plan.run()
