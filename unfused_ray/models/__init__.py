"""Encoders and heads, in torch; no Ray."""
