"""How fast the parts are, and the page that shows it (docs/performance.md)."""
