"""Pre-training: DECAR-v2 and the methods it is compared with, at the papers' size, on the corpus, and as a demo.

The rows of a table are comparable because every method takes all settings of DECAR-v2 except its own.
"""

from __future__ import annotations

from typing import Any

from unfused_ray.config import (
    AugmentConfig,
    BatchConfig,
    ByolAConfig,
    CheckpointConfig,
    ColaConfig,
    CropConfig,
    DecarConfig,
    DeloresMConfig,
    DeloresSConfig,
    EncoderConfig,
    OptimizerConfig,
    PretrainConfig,
    RuntimeConfig,
    SlicerConfig,
)

# UnFuSeD (arXiv 2303.05668) and DECAR (arXiv 2110.08895): 512 clusters, prototypes set to the centroids; 90 epochs,
# because the LAPE code loads its epoch 89. Head, temperature and k-means are those of DeepCluster-v2 (arXiv 2006.09882,
# appendix). AdamW with 3e-4 was used by a trial on the corpus before this project; the batch is 256. The average of the
# weights is exported, as for UnFuSeD's students: every method gets whatever helps one of them.
DECAR_V2_AUDIOSET = PretrainConfig(
    name="decar-v2-audioset",
    epochs=90,
    ema_decay=0.99,
    method=DecarConfig(num_clusters=(512,)),
    batch=BatchConfig(block=64, blocks_per_step=4),
    optimizer=OptimizerConfig(lr=3e-4, warmup_epochs=1),
    # One node of four GPUs, because exchanging a step's gradients between nodes would take longer than its arithmetic.
    # A worker reserves one CPU, the others decode. An epoch may be over in seconds, and a checkpoint is 200 MB.
    runtime=RuntimeConfig(num_workers=4, gpus_per_worker=1, cpus_per_worker=1),
    checkpoint=CheckpointConfig(min_minutes=2),
)

# DECAR uses 512 clusters for more clips than the corpus has (48,000). For two cores.
CORPUS = DECAR_V2_AUDIOSET.replace(
    name="decar-v2-corpus",
    epochs=8,
    batch=BatchConfig(block=64, blocks_per_step=2),
    runtime=RuntimeConfig(),
    checkpoint=CheckpointConfig(),
)

# A network of 413,248 parameters, a thirteenth of the paper's, so that 28 epochs of 1,112 clips take a minute and a
# half on two cores: 30,464 clips, two views of each. Three numbers of clusters and the average of the weights keep a
# margin from depending on last bits. They were chosen on clips held out from train and valid, before test was read
# (docs/log.md). Labels come from a full pass: with so few clips those of the bank, whose embeddings are of one
# augmented view each, are less stable.
DEMO = CORPUS.replace(
    name="demo",
    epochs=28,
    encoder=EncoderConfig(channels=32, width=512),
    method=DecarConfig(num_clusters=(64, 128, 256), labels_from="full_pass"),
    batch=BatchConfig(block=32, blocks_per_step=2),
    optimizer=OptimizerConfig(lr=1e-3, warmup_epochs=0.5),
    ema_decay=0.98,
)


def _audioset(name: str, **fields: Any) -> PretrainConfig:
    """Return another method at the size of the paper's setting."""
    return DECAR_V2_AUDIOSET.replace(name=f"{name}-audioset", **fields)


def _corpus(name: str, audioset: PretrainConfig, changes: dict[str, Any] | None = None) -> PretrainConfig:
    """Return the same method on the free corpus."""
    own = {field: audioset.get(field) for field in ("method", "crop", "augment")}
    return CORPUS.replace({"name": f"{name}-corpus", **own, **(changes or {})})


# COLA (arXiv 2010.10915): two crops of a clip. AdamW as for all methods here; the paper uses Adam.
COLA_AUDIOSET = _audioset("cola", method=ColaConfig(), crop=CropConfig(num_crops=2))
COLA_CORPUS = _corpus("cola", COLA_AUDIOSET)

# DeLoRes-S (arXiv 2203.13628): two views of one crop; head as in the LAPE code, λ as in the authors' first code.
DELORES_S_AUDIOSET = _audioset("delores-s", method=DeloresSConfig())
DELORES_S_CORPUS = _corpus("delores-s", DELORES_S_AUDIOSET)

# DeLoRes-M (doi 10.1109/JSTSP.2022.3202093): heads, weights and temperature of the LAPE code. Queue and decay were
# chosen for the corpus of version 0.1, and kept: a queue of 65,536 would have held each of its 8,332 clips eight times,
# and an average with a decay of 0.999 would have outlasted the run's 520 steps. So the queue holds a quarter of an
# epoch of that corpus, and the decay is 0.99, which MoCo's authors took for CIFAR-10.
DELORES_M_AUDIOSET = _audioset("delores-m", method=DeloresMConfig())
DELORES_M_CORPUS = _corpus("delores-m", DELORES_M_AUDIOSET, {"method.queue": 2048, "method.ema_decay": 0.99})

# BYOL-A (arXiv 2103.06695 sec. IV and the authors' configuration): projection, hidden width, EMA, 3e-4. AdamW as for
# all methods here; the authors use Adam.
BYOL_A_AUDIOSET = _audioset("byol-a", method=ByolAConfig())
BYOL_A_CORPUS = _corpus("byol-a", BYOL_A_AUDIOSET)

# SLICER (arXiv 2211.01519): projection, clusters, temperatures and k-mix of the LAPE code. Queue and decay were chosen
# for the corpus of version 0.1, and kept: 2,048 is a quarter of its 8,332 clips, about the share that 65,536 is of the
# paper's; a decay of 0.999 would have kept 0.6 of the teacher's random weights over its 520 steps.
SLICER_AUDIOSET = _audioset("slicer", method=SlicerConfig(), augment=AugmentConfig(k_mix=4))
SLICER_CORPUS = _corpus("slicer", SLICER_AUDIOSET, {"method.queue": 2048, "method.ema_decay": 0.99})
