"""Pseudo-labels as training sees them: clustered anew each epoch, or fixed for a whole run."""
