"""The machine that a process runs on: its cores and threads, its freed memory, and the driver of its GPUs."""
