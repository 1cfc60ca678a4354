"""The method that a pre-training's configuration names."""

from __future__ import annotations

from unfused_ray.config import (
    ByolAConfig,
    ColaConfig,
    DecarConfig,
    DeloresMConfig,
    DeloresSConfig,
    PretrainConfig,
    SlicerConfig,
)
from unfused_ray.methods.byol_a import ByolA
from unfused_ray.methods.cola import Cola
from unfused_ray.methods.decar import DecarV2
from unfused_ray.methods.delores_m import DeloresM
from unfused_ray.methods.delores_s import DeloresS
from unfused_ray.methods.method import Method
from unfused_ray.methods.slicer import Slicer


def build_pretraining(config: PretrainConfig) -> Method:
    """The method, with random weights: seed torch before."""
    encoder, num_mels = config.encoder, config.front_end.num_mels
    match config.method:
        case DecarConfig():
            return DecarV2(config.method, encoder, num_mels)
        case ColaConfig():
            return Cola(config.method, encoder, num_mels)
        case DeloresSConfig():
            return DeloresS(config.method, encoder, num_mels)
        case DeloresMConfig():
            return DeloresM(config.method, encoder, num_mels)
        case ByolAConfig():
            return ByolA(config.method, encoder, num_mels)
        case SlicerConfig():
            return Slicer(config.method, encoder, num_mels)
