"""Pseudo-labels for training: clustered anew each epoch, or fixed for a whole run."""
