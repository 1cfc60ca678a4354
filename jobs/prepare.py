"""Any audio to shards: python jobs/prepare.py --source FOLDER|CSV|TAR|PARQUET --output FOLDER (--help for the rest)."""

from unfused_ray.cli import main, prepare_job

if __name__ == "__main__":
    main(prepare_job)
