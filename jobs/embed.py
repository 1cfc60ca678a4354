"""Any audio or shards to vectors: python jobs/embed.py --encoder RUN --source … --output FOLDER (--help for more)."""

from unfused_ray.cli import embed_job, main

if __name__ == "__main__":
    main(embed_job)
