"""Search by ear: indexes over vectors, queries, learning from marks, near-copies.

An index is a folder (``format``). It is made from Parquet vectors part by part (``job``, ``vector_parts``,
``training``, ``write``), and opened as a ``collection``, which ``queries`` and ``learn`` search.
"""
