"""Builds the free corpus: audio tasks and clips for pre-training, out of Debian packages."""
