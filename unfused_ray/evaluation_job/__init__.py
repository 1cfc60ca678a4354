"""The evaluation job: fills the cells of a table, draws them, and tracks the table in MLflow."""
