"""The loop, its two runtimes, checkpoints and tracking."""
