"""The command line, ``unfused-ray COMMAND``: one module per command, which imports its job only when it runs it."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Mapping, Sequence

COMMANDS = {
    "prepare": "Turn any audio into shards for training.",
    "pretrain": "Pre-train an encoder on prepared shards, without labels.",
    "distill": "Distil a student (UnFuSeD) on a task's own clips, from a pre-trained encoder's clusters.",
    "evaluate": "Probe frozen encoders on labelled tasks: one table, with intervals.",
    "compare": "Train and evaluate the systems of a plan: the results table.",
    "sweep": "Sweep a distillation's settings, judged on validation clips.",
    "embed": "Make vectors of any audio, or of prepared shards, as Parquet.",
    "export": "Write an encoder in a form that others load: ONNX, a folder for the Hugging Face hub, or plain torch.",
    "index": "Index vectors of one or several sources, to search them by ear.",
    "search": "Find clips that sound like a file, a clip, a label, or clips that you have marked.",
    "duplicates": "Find near-copies within prepared sources, and between them and others.",
    "report": "Write one HTML page of runs, to look at and to listen to.",
    "runs": "List runs: name, state, position, last checkpoint.",
    "doctor": "Check that this machine or cluster can run a recipe.",
    "tasks": "List the tasks of the LAPE benchmark.",
}
"""Every command, with a line of help; the module of a command has its name."""


def wants_help(arguments: Sequence[str]) -> bool:
    """True if the arguments ask for help."""
    return bool({"-h", "--help"} & set(arguments))


def columns(texts: Mapping[str, str]) -> list[str]:
    """Format names and texts as two columns; a text that is longer than the terminal's line continues in its column."""
    width = max(map(len, texts))
    letters = max(shutil.get_terminal_size().columns, width + 40)
    indent = " " * (width + 4)
    wrapper = textwrap.TextWrapper(letters, indent, indent, break_on_hyphens=False)
    lines = map(wrapper.wrap, texts.values())
    return [f"  {name:{width}}  " + "\n".join(line)[len(indent) :] for name, line in zip(texts, lines, strict=True)]
