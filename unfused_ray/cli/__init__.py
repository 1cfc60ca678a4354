"""The command line: ``unfused-ray COMMAND``, a module each, which imports what it runs when it runs it."""

COMMANDS = {
    "prepare": "Turn any audio into shards for training.",
    "pretrain": "Pre-train an encoder on prepared shards, without labels.",
    "distill": "Distil a student (UnFuSeD) on a task's own clips, from a pre-trained encoder's clusters.",
    "evaluate": "Probe frozen encoders on labelled tasks: one table, with intervals.",
    "compare": "Train and evaluate the systems of a plan: the results table.",
    "sweep": "Sweep a distillation's settings, judged on validation clips.",
    "embed": "Make vectors of any audio, or of prepared shards, as Parquet.",
    "report": "Write one HTML page of runs, to look at and to listen to.",
    "runs": "List runs: name, state, position, last checkpoint.",
    "doctor": "Check that this machine or cluster can run a recipe.",
    "tasks": "List the tasks of the LAPE benchmark.",
}
"""Every command, with a line of help; its module has the same name."""
