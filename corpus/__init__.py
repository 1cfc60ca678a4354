"""Builds the free corpus, audio tasks and clips for pre-training, from Debian packages."""
