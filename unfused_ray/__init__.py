"""unfused-ray: distributed self-supervised audio training on Ray (DECAR-v2 and UnFuSeD)."""
