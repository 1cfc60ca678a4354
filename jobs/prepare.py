"""Any audio to shards: python jobs/prepare.py --source FOLDER|CSV|TAR|PARQUET --output FOLDER (--help for the rest).

A data set of the LAPE benchmark, with its splits: python jobs/prepare.py --task us8k --root FOLDER --output FOLDER.
"""

from unfused_ray.cli import main, prepare_job

if __name__ == "__main__":
    main(prepare_job)
