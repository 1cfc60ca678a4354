"""A table of systems × tasks: train what its plan names, read every frozen encoder on every task, compare.

    python benchmarks/table.py benchmarks/corpus_table.toml --data-root SHARDS
    python benchmarks/table.py benchmarks/corpus_table.toml --data-root SHARDS --only delores-m --stages train
    python benchmarks/table.py benchmarks/corpus_table.toml --data-root SHARDS --seeds 0 \\
        --use 'decar-v2=RUNS/decar-v2' 'unfused-per-task=RUNS/teacher-{task}'
    python benchmarks/table.py benchmarks/corpus_table.toml --data-root SHARDS --list

The first command does all of it, the second one row, the third takes finished runs where their settings are the plan's.
SHARDS holds a prepared source (jobs/prepare.py) for every source and task of the plan, in a folder of that name.

Trainings are runs of jobs/pretrain.py and jobs/distill.py, and evaluations of jobs/evaluate.py, each a process that
writes to a log. The same command again goes on wherever it was: a finished run is not run again, a half one goes on.
``--jobs N`` runs N of them side by side, each on its share of the cores. Where RAY_ADDRESS is set they are drivers on
that cluster, and what recipes of a worker group compute is spread over its nodes.

Before the first test clip is read, the plan's digest and the protocol's hash are written to frozen.json in the output
folder; after that a plan or protocol that differs is refused: it is another table, in another folder.
"""

from __future__ import annotations

import argparse
import logging
import signal
import sys
from pathlib import Path

from rich.console import Console

from unfused_ray.comparison.runner import TableCommand


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("plan", type=Path, help="a TOML file, see benchmarks/plan.py")
    parser.add_argument("--data-root", required=True, help="folder of the prepared sources and tasks")
    parser.add_argument("--output", default="", help="by default output/tables/<name of the plan>")
    parser.add_argument("--only", nargs="+", default=(), metavar="SYSTEM", help="these, and what they build on")
    parser.add_argument("--seeds", nargs="+", type=int, default=(), help="some of the plan's")
    parser.add_argument(
        "--use", nargs="+", default=(), metavar="SYSTEM=RUN", help="finished runs to take, with {seed} and {task}"
    )
    parser.add_argument("--stages", nargs="+", choices=("train", "evaluate"), default=("train", "evaluate"))
    parser.add_argument("--jobs", type=int, default=1, help="processes at a time")
    parser.add_argument(
        "--against", default="", metavar="ROW", help="print every row's difference from this one, too: not planned"
    )
    parser.add_argument("--list", action="store_true", help="say what is done and what is left, and end")
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="print the jobs that would be run, and end; each run writes its settings file first",
    )
    return parser


def main() -> int:
    """Do what the command line says; the exit code."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    options = parser().parse_args()
    try:
        table = TableCommand(options)
        if options.list:
            Console().print(table.listing())
        elif options.dry_run:
            Console().print("\n".join(table.commands()), soft_wrap=True, highlight=False, markup=False)
        else:
            return 1 if table.run() else 0
    except (ValueError, OSError, RuntimeError) as error:
        Console(stderr=True).print(f"error: {error}", soft_wrap=True, highlight=False, markup=False)
        return 2
    except KeyboardInterrupt:
        Console(stderr=True).print("stopped: the same command goes on")
        return 128 + signal.SIGINT
    return 0


if __name__ == "__main__":
    sys.exit(main())
