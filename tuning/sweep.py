"""``unfused-ray sweep`` for ``ray job submit … -- python tuning/sweep.py …``, with the same arguments."""

from unfused_ray.cli.main import main

if __name__ == "__main__":
    main("sweep")
