"""Batches of crops: planned from (seed, epoch, step), read, and streamed to the workers."""
