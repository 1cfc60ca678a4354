"""Makes one self-contained HTML page of runs: figures, tables, configurations, and their clusters to listen to."""
