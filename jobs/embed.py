"""``unfused-ray embed`` for ``ray job submit … -- python jobs/embed.py …``, with the same arguments."""

from unfused_ray.cli.main import main

if __name__ == "__main__":
    main("embed")
