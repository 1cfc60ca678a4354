"""Jobs that are killed and disturbed, and must end with equal results (docs/reliability.md)."""
