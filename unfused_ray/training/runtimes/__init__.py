"""The two places a training runs in: this process, or a Ray Train worker group."""
