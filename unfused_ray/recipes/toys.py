"""Toy networks that train in seconds on one core: for tests, and for trying an installation out."""

from __future__ import annotations

from unfused_ray.config import (
    BatchConfig,
    ByolAConfig,
    ColaConfig,
    CropConfig,
    DecarConfig,
    DeloresMConfig,
    DeloresSConfig,
    EncoderConfig,
    OptimizerConfig,
    PseudoLabelConfig,
    RuntimeConfig,
    SlicerConfig,
    UnfusedConfig,
)
from unfused_ray.recipes.distillation import UNFUSED
from unfused_ray.recipes.pretraining import DEMO, SLICER_CORPUS

TINY = DEMO.replace(
    name="tiny",
    epochs=2,
    ema_decay=0.0,
    crop=CropConfig(seconds=0.31),
    optimizer=OptimizerConfig(lr=5e-4, warmup_epochs=0.5),
    encoder=EncoderConfig(channels=8, width=32),
    method=DecarConfig(projection_hidden=16, projection_dim=8, num_clusters=(8,)),
    batch=BatchConfig(block=8, blocks_per_step=4),
    # So small a network gains nothing from bfloat16, and float32 makes its curve the same on all processors.
    runtime=RuntimeConfig(kind="in-process", precision="float32"),
)
COLA_TINY = TINY.replace({"name": "cola-tiny", "method": ColaConfig(projection_dim=16), "crop.num_crops": 2})
DELORES_S_TINY = TINY.replace(name="delores-s-tiny", method=DeloresSConfig(decorrelation_dim=16))
DELORES_M_TINY = TINY.replace(
    name="delores-m-tiny",
    method=DeloresMConfig(
        projection_dim=8,
        queue=64,
        ema_decay=0.9,
        decorrelation_dim=16,
        on_diagonal=0.01,  # these terms then weigh as much as InfoNCE, so that tests see both
        off_diagonal=0.01,
    ),
)
BYOL_A_TINY = TINY.replace(name="byol-a-tiny", method=ByolAConfig(hidden=32, projection_dim=16))
SLICER_TINY = TINY.replace(
    name="slicer-tiny",
    method=SlicerConfig(projection_dim=16, num_clusters=8, queue=96, ema_decay=0.9),
    augment=SLICER_CORPUS.augment,
)
UNFUSED_TINY = UNFUSED.replace(
    name="tiny-student",
    epochs=2,
    crop=TINY.crop,
    encoder=TINY.encoder,
    labels=PseudoLabelConfig(num_clusters=(4,), starts=2, iterations=5),
    method=UnfusedConfig(head_hidden=16),
    batch=TINY.batch,
    runtime=UNFUSED.runtime.replace(precision="float32"),
)
