"""Scores frozen encoders on labelled tasks. It only computes numbers: no Ray, tracking or drawing."""
