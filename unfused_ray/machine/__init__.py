"""The machine that a process runs on: its cores and threads, the memory that is freed, the driver of its GPUs."""
