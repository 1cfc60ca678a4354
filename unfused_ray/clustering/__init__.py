"""Clustering: k-means, the bank of embeddings that it works on, and the Ray actor around them."""
