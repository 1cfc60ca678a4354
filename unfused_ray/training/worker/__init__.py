"""What every worker of a training runs: the loop, its state, and its messages to the others."""
