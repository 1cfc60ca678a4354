"""The results table: systems × tasks, trained to one budget and scored by one protocol."""
