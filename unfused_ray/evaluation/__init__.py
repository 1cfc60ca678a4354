"""Scores frozen encoders on labelled tasks: numbers alone, without Ray, tracking and drawings."""
