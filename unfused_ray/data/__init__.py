"""Data from any audio to training blocks: sources lists and fetches it, shards stores it, stream reads it.

Jobs that write their output part by part share parts. Only ``parts.ray_tasks`` and ``stream.ray_source`` import Ray.
"""
