"""The results table: systems × tasks, trained to one budget and read by one protocol."""
