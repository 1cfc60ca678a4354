"""Ties a table to its plan and protocol: both are recorded before its first test clip is read."""

from __future__ import annotations

from unfused_ray import storage
from unfused_ray.comparison.table_plan import TablePlan
from unfused_ray.evaluation.protocol import load_protocol
from unfused_ray.evaluation.table import FROZEN

_FROZEN_VERSION = 1


def refuse_changes(plan: TablePlan, protocol: str, output: str) -> None:
    """Check that plan and protocol have not changed since the table's test clips were first read.

    Raises:
        ValueError: they differ from the recorded ones.
    """
    path = storage.join(output, FROZEN)
    if storage.exists(path):
        frozen = storage.read_json(path, _FROZEN_VERSION, f"give another --output than {output} for a new table")
        now = _hashes(plan, protocol)
        if changed := [name for name, value in now.items() if frozen[name] != value]:
            raise ValueError(
                f"the {' and the '.join(changed)} changed since test clips were first read for {output}: the table "
                "would be tuned on test clips. Undo the change, or give another --output for another table"
            )


def freeze(plan: TablePlan, protocol: str, output: str) -> None:
    """Record everything that decides the table, before its first test clip is read.

    Raises:
        ValueError: another plan or protocol is recorded there.
    """
    refuse_changes(plan, protocol, output)
    content = _hashes(plan, protocol) | {"settings": plan.model_dump(mode="json")}
    storage.write_json(storage.join(output, FROZEN), content, _FROZEN_VERSION)


def plan_hash(plan: TablePlan) -> str:
    """Return the SHA-256 of the plan and of every system's whole configuration, which includes the recipes."""
    configs = [system.config({}).model_dump_json() for system in plan.systems]
    return storage.sha256("\n".join([plan.model_dump_json(), *configs]).encode())


def _hashes(plan: TablePlan, protocol: str) -> dict[str, str]:
    return {"plan": plan_hash(plan), "protocol": load_protocol(protocol).sha256}
