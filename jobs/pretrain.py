"""Pre-train an encoder: python jobs/pretrain.py RECIPE --data FOLDER … (--help for the rest)."""

from unfused_ray.cli import main, pretrain_job

if __name__ == "__main__":
    main(pretrain_job)
