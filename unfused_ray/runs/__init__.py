"""A training run on storage: its record, status, checkpoints, resume point, start times and provenance."""
