"""``python -m unfused_ray`` is ``unfused-ray``."""

from unfused_ray.cli.main import main

if __name__ == "__main__":
    main()
