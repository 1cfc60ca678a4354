"""Probes of frozen vectors: what a system's vectors are worth with all labels, with a few, and by their neighbours.

``linear`` trains a linear layer on all training clips, ``few_shot`` on eight clips of each class, several times.
``neighbours`` trains nothing: it asks whose vectors are nearest. ``probe`` does all three.

With all labels a random network of thousands of numbers may read above an encoder of a million words; by neighbours and
with few labels it hardly does, except on pitch (docs/log.md, 2026-11-28). The headline is the mean of these two.
"""
