"""Audio as people have it: find it, list its clips, fetch their bytes."""
