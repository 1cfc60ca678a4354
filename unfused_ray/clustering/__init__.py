"""Pseudo-labels: the k-means (kmeans), the embeddings it works on (bank), the Ray actor around them (actor)."""
