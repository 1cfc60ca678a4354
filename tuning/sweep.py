"""Sweep a distillation's settings: python tuning/sweep.py RECIPE --tasks FOLDER … --distill.teacher RUN (--help)."""

from spaces import SPACES

from unfused_ray.cli import main, sweep_job

if __name__ == "__main__":
    main(lambda: sweep_job(SPACES))
