"""The driver's side of a training: check, start, watch and stop it."""
