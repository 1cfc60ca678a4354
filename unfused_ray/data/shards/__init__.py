"""Prepared audio: the shard format, and the job that writes it."""
