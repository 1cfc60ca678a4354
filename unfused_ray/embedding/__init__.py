"""Vectors of whole clips: read from shards, of any layer, kept, and at scale."""
