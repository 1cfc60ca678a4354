"""Probe frozen encoders on labelled tasks: python jobs/evaluate.py --models RUN … --tasks FOLDER … (--help)."""

from unfused_ray.cli import evaluate_job, main

if __name__ == "__main__":
    main(evaluate_job)
