"""Is everything there that a run needs? What is looked at on every node, and what is made of it."""
