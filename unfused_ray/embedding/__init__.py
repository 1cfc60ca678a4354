"""Vectors of clips and windows: of any layer (clips), kept for the evaluation (cache), of any audio at scale (job).

Nothing here imports Ray by itself: the job runs its parts by an executor of ``data.parts``.
"""
