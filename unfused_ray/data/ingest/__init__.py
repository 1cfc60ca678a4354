"""Ingest: any audio to shards. ``prepare.prepare`` is the whole of it."""
