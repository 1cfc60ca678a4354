"""A run's metrics and parameters in MLflow, and its newest metrics for Prometheus."""
