"""Streams batches of crops to the workers: planned from (seed, epoch, step), read from shards, prefetched."""
