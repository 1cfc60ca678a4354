"""Training methods, one per file: modules with a loss over a block or a batch of clips, in torch, without Ray."""

from __future__ import annotations

from unfused_ray.methods.byol_a import ByolA
from unfused_ray.methods.cola import Cola
from unfused_ray.methods.decar import DecarV2
from unfused_ray.methods.delores_m import DeloresM
from unfused_ray.methods.delores_s import DeloresS
from unfused_ray.methods.method import Method
from unfused_ray.methods.slicer import Slicer

METHODS: dict[str, type[Method]] = {
    "decar-v2": DecarV2,
    "cola": Cola,
    "delores-s": DeloresS,
    "delores-m": DeloresM,
    "byol-a": ByolA,
    "slicer": Slicer,
}
"""Pre-training methods by the ``kind`` of their settings; built from their settings, the encoder's, and num_mels."""
