"""Typed, validated configuration of every stage.

A configuration is a tree of frozen models. Unknown names, wrong types and impossible values are refused before any work
starts; the message gives the field, the value and the rule. The docstring under a field is its help text on the command
line. Named configurations (the papers' numbers) are in ``recipes``.
"""

from unfused_ray.config.audio import AugmentConfig, CropConfig, FrontEndConfig, ShortClips
from unfused_ray.config.base import (
    Config,
    PositiveFloat,
    PositiveInt,
    Seed,
    differences,
    explain,
    flatten,
    idle_fields,
    within,
)
from unfused_ray.config.export import ExportConfig, ExportForm
from unfused_ray.config.jobs import (
    MEAN,
    WHOLE_CLIPS,
    ColumnsConfig,
    CompareConfig,
    EmbedConfig,
    EvaluateConfig,
    LapeTaskCode,
    Measure,
    PrepareConfig,
    SweepConfig,
)
from unfused_ray.config.methods import (
    ByolAConfig,
    ColaConfig,
    DecarConfig,
    DeloresMConfig,
    DeloresSConfig,
    PseudoLabelConfig,
    SlicerConfig,
    UnfusedConfig,
)
from unfused_ray.config.model import Cut, EncoderConfig, Readout
from unfused_ray.config.search import DuplicatesConfig, IndexConfig, IndexMetric, SearchConfig
from unfused_ray.config.training import (
    BatchConfig,
    CheckpointConfig,
    DistillConfig,
    HealthConfig,
    OptimizerConfig,
    PretrainConfig,
    RuntimeConfig,
    TrackingConfig,
    TrainingConfig,
)
from unfused_ray.config.watch import QUICK_MEASURES, WatchConfig, WatchedMeasure

__all__ = [
    "MEAN",
    "QUICK_MEASURES",
    "WHOLE_CLIPS",
    "AugmentConfig",
    "BatchConfig",
    "ByolAConfig",
    "CheckpointConfig",
    "ColaConfig",
    "ColumnsConfig",
    "CompareConfig",
    "Config",
    "CropConfig",
    "Cut",
    "DecarConfig",
    "DeloresMConfig",
    "DeloresSConfig",
    "DistillConfig",
    "DuplicatesConfig",
    "EmbedConfig",
    "EncoderConfig",
    "EvaluateConfig",
    "ExportConfig",
    "ExportForm",
    "FrontEndConfig",
    "HealthConfig",
    "IndexConfig",
    "IndexMetric",
    "LapeTaskCode",
    "Measure",
    "OptimizerConfig",
    "PositiveFloat",
    "PositiveInt",
    "PrepareConfig",
    "PretrainConfig",
    "PseudoLabelConfig",
    "Readout",
    "RuntimeConfig",
    "SearchConfig",
    "Seed",
    "ShortClips",
    "SlicerConfig",
    "SweepConfig",
    "TrackingConfig",
    "TrainingConfig",
    "UnfusedConfig",
    "WatchConfig",
    "WatchedMeasure",
    "differences",
    "explain",
    "flatten",
    "idle_fields",
    "within",
]
