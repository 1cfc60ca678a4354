"""Recipes of the jobs that do not train one network: prepare, embed, sweep."""

from __future__ import annotations

from unfused_ray.config import EmbedConfig, PrepareConfig, SweepConfig
from unfused_ray.recipes.distillation import DEMO_DRUMS, UNFUSED
from unfused_ray.recipes.toys import UNFUSED_TINY

AUDIOSET_10_PERCENT = PrepareConfig(fraction=0.1, seed=31, long_clips="truncate")

EMBED_WINDOWS = EmbedConfig(window_seconds=0.95)

# Each trial distils a student on every task; twenty trials of the demo take at most 25 minutes on two cores.
SWEEP_UNFUSED = SweepConfig(distill=UNFUSED)
SWEEP_DEMO = SweepConfig(name="demo", distill=DEMO_DRUMS.replace(name="demo-sweep", epochs=6))
SWEEP_TINY = SweepConfig(name="tiny", num_trials=4, distill=UNFUSED_TINY, random_seeds=0)
