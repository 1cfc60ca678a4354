"""The job that evaluates: fills the cells of a table, draws them, and tracks the table in MLflow."""
