"""Training: the loop on each worker, the runtimes, the stages, and the driver."""
