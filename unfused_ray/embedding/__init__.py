"""Vectors of clips and windows: of any layer (clips), cached for evaluation (cache), of any audio at scale (job).

Nothing here imports Ray itself: the job runs its parts with an executor of ``data.parts``.
"""
