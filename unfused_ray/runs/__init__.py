"""What a training leaves on storage: its record, status, lease, checkpoints and provenance."""
