"""``unfused-ray index`` for ``ray job submit … -- python jobs/index.py …``, with the same arguments."""

from unfused_ray.cli.main import main

if __name__ == "__main__":
    main("index")
