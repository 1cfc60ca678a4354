"""One training method a file: a module with a loss over a block of clips, in torch; no Ray."""
