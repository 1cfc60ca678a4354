"""The optimiser and its learning rate over a run."""

from __future__ import annotations

import math

import torch
from torch import nn

from unfused_ray.config import OptimizerConfig


def build_optimizer(config: OptimizerConfig, module: nn.Module) -> torch.optim.Optimizer:
    """SGD or AdamW over the trained parameters of a module; biases, gains and offsets of batch norm are not decayed."""
    trained = [p for p in module.parameters() if p.requires_grad]
    decayed = [p for p in trained if p.ndim > 1]
    kept = [p for p in trained if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": config.weight_decay}, {"params": kept, "weight_decay": 0.0}]
    if config.name == "sgd":
        return torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum, fused=True)
    return torch.optim.AdamW(groups, lr=config.lr, betas=(0.9, 0.999), fused=True)


def learning_rate(config: OptimizerConfig, step: int, steps_per_epoch: int, num_steps: int) -> float:
    """Learning rate of the ``step``-th of ``num_steps`` steps (from 0): linear warm-up, then half a cosine.

    A pure function of the step, so there is no schedule to save.
    """
    warmup = min(round(config.warmup_epochs * steps_per_epoch), num_steps - 1)
    if step < warmup:
        return config.lr * (step + 1) / warmup
    progress = (step - warmup) / max(1, num_steps - warmup)
    return config.lr * (config.final_lr + (1 - config.final_lr) * 0.5 * (1 + math.cos(math.pi * progress)))


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Give every parameter group this learning rate."""
    for group in optimizer.param_groups:
        group["lr"] = lr
