"""Distillation: UnFuSeD in one process, on a cluster, and as a demo."""

from __future__ import annotations

from unfused_ray.config import (
    BatchConfig,
    DistillConfig,
    OptimizerConfig,
    PseudoLabelConfig,
    RuntimeConfig,
    UnfusedConfig,
)
from unfused_ray.recipes.pretraining import DECAR_V2_AUDIOSET, DEMO

# UnFuSeD with alpha and beta of the authors' code. Clusters, optimiser and batch come from a first trial on kws.
UNFUSED = DistillConfig(
    labels=PseudoLabelConfig(num_clusters=(48,)),
    method=UnfusedConfig(alpha=0.7, beta=0.003),
    ema_decay=0.99,
    optimizer=OptimizerConfig(lr=5e-4, warmup_epochs=1),
    batch=BatchConfig(block=64, blocks_per_step=1),
    runtime=RuntimeConfig(kind="in-process"),
)

# The same on four GPUs, for more clips than one process takes.
UNFUSED_CLUSTER = UNFUSED.replace(
    name="unfused-cluster",
    batch=BatchConfig(block=64, blocks_per_step=4),
    runtime=DECAR_V2_AUDIOSET.runtime,
    checkpoint=DECAR_V2_AUDIOSET.checkpoint,
)

# A student of a small teacher, for about a thousand clips of one's own: its network is as small as the demo's, and cut.
UNFUSED_SMALL = UNFUSED.replace(
    name="unfused-small",
    epochs=20,
    encoder=DEMO.encoder,
    labels=PseudoLabelConfig(num_clusters=(32,)),
    optimizer=OptimizerConfig(lr=1e-3, warmup_epochs=0.5),
    batch=BatchConfig(block=32, blocks_per_step=1),
    ema_decay=0.98,
)

# 10,560 and 14,080 training views of 383 and 729 clips.
DEMO_DRUMS = UNFUSED_SMALL.replace(name="demo-drums", epochs=30)
DEMO_LANGUAGES = UNFUSED_SMALL.replace(name="demo-languages")
