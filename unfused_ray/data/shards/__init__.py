"""Prepared audio: the shard format, its index by clip_id, its statistics, and the ingest that writes it."""
