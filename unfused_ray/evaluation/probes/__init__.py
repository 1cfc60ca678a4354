"""Probes of frozen vectors: how well a system's vectors serve with all labels, with a few, and by their neighbours.

``linear`` trains a linear layer on all training clips, ``few_shot`` on eight clips of each class, several times.
``neighbours`` trains nothing: it looks at the classes of the nearest training clips. ``probe`` runs all three.

With all labels, a random network with vectors of thousands of numbers may score above an encoder trained on a million
words. By neighbours and with few labels it hardly ever does, except on pitch (docs/log.md, 2026-11-28). The headline is
the mean of these two.
"""
