"""All measurements that need a GPU, in one file: ``python -m benchmarks.gpu``."""
