"""A whole training of the paper's network on the embedded drum sounds: clips/s, and how long it waits for data.

The sounds are named several times, so that an epoch is long compared with its beginning and its end.
"""

from __future__ import annotations

import tarfile
import tempfile
from importlib import import_module
from pathlib import Path

import torch

from benchmarks.measure import ROOT, Figure, figure


def measure(device: torch.device, small: bool) -> list[Figure]:
    """Return figures of all epochs after the first, trained in this process, from the run's history."""
    for needed in ("pyarrow", "soundfile", "av"):
        import_module(needed)
    from unfused_ray import recipes
    from unfused_ray.config import PrepareConfig
    from unfused_ray.data.shards import ingest
    from unfused_ray.runs.run import Run
    from unfused_ray.training.driver import launch

    epochs, recipe = (2, "tiny") if small else (5, "decar-v2-corpus")
    with tempfile.TemporaryDirectory() as folder:
        source, output = str(Path(folder, "drums")), str(Path(folder, "run"))
        sounds = Path(folder, "sounds")
        with tarfile.open(ROOT / "recordings" / "drums.tar") as tar:
            tar.extractall(sounds, tar.getmembers()[: 128 if small else None], filter="data")
        ingest.run(ingest.check(PrepareConfig(source=str(sounds), output=source)))
        here = {"data": (source,) * (2 if small else 24), "output": output, "epochs": epochs, "tracking.uri": "off"}
        here |= {"runtime.kind": "in-process", "runtime.threads": int(small)}  # 0 takes all cores
        here |= {"method.num_clusters": (8,), "checkpoint.pictures_every_minutes": 0.0}
        training = recipes.PRETRAIN[recipe][1].replace(here)
        launch.run(launch.check(training))
        history = Run(output).history()[1:]
    figures = [figure("clips/s, whole epochs", [epoch["clips_per_second"] for epoch in history], "clips/s")]
    names = [name for name in history[0] if name.startswith("seconds_")]
    return figures + [figure(f"an epoch's {name}", [epoch[name] for epoch in history], "s") for name in names]
