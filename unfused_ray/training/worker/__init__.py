"""The worker of a training: the loop, its state, and its communication with the other workers."""
