"""Distil a student (UnFuSeD): python jobs/distill.py RECIPE --data FOLDER --teacher RUN … (--help for the rest)."""

from unfused_ray.cli import distill_job, main

if __name__ == "__main__":
    main(distill_job)
