"""The training stages: what pre-training and distillation check, label and build."""
