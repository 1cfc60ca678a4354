"""Jobs that are disturbed and killed, and must still end with equal results (docs/reliability.md)."""
