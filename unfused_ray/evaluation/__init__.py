"""Embedding clips with a frozen encoder, and the pictures and tables made of them."""
