"""Speed of the parts, and the page that shows it (docs/benchmarks.md)."""
