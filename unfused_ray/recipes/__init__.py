"""Named configurations: the one place for numbers that come from a paper or a measurement.

A recipe is a full configuration; a variant changes a few fields of another. The command line overrides any field:
``python jobs/pretrain.py decar-v2-audioset --data s3://bucket/audioset --epochs 30``.
"""

from __future__ import annotations

from typing import Any

from unfused_ray.config import (
    AugmentConfig,
    BatchConfig,
    ByolAConfig,
    ColaConfig,
    CropConfig,
    DecarConfig,
    DeloresMConfig,
    DeloresSConfig,
    DistillConfig,
    EmbedConfig,
    EncoderConfig,
    EvaluateConfig,
    OptimizerConfig,
    PrepareConfig,
    PretrainConfig,
    PseudoLabelConfig,
    RuntimeConfig,
    SlicerConfig,
    SweepConfig,
    UnfusedConfig,
)

# UnFuSeD's brief and DECAR (arXiv 2110.08895): 512 clusters, prototypes set to the centroids; teacher of 90 epochs, as
# the LAPE code loads its epoch 89. Head, temperature and k-means as DeepCluster-v2 (arXiv 2006.09882, appendix).
# A batch of 256 and AdamW 3e-4: a trial on the corpus before this project used the latter. What is exported is the
# average of the weights, as for UnFuSeD's students: what helps one method is given to all.
_DECAR_V2_AUDIOSET = PretrainConfig(
    name="decar-v2-audioset",
    epochs=90,
    ema_decay=0.99,
    method=DecarConfig(num_clusters=(512,)),
    batch=BatchConfig(block=64, blocks_per_step=4),
    optimizer=OptimizerConfig(lr=3e-4, warmup_epochs=1),
    runtime=RuntimeConfig(num_workers=4, gpus_per_worker=1, cpus_per_worker=4),
)

# K scales with the data, N/16 where N is small: 8,332 clips, 520 ≈ 512 clusters; two cores.
_CORPUS = _DECAR_V2_AUDIOSET.model_copy(
    update={
        "name": "decar-v2-corpus",
        "epochs": 8,
        "batch": BatchConfig(block=64, blocks_per_step=2),
        "runtime": RuntimeConfig(),
    }
)

# 5,760 training views of 1,009 clips: two minutes on two cores. Labels of a full pass: on so few clips those of the
# bank, whose embeddings are of one augmented view each, are less stable from epoch to epoch (docs/log.md).
_DEMO = _CORPUS.model_copy(
    update={
        "name": "demo",
        "epochs": 3,
        "method": DecarConfig(num_clusters=(64,), labels_from="full_pass"),
        "batch": BatchConfig(block=32, blocks_per_step=2),
        "optimizer": OptimizerConfig(lr=5e-4, warmup_epochs=0.5),
        "ema_decay": 0.0,
    }
)

# Seconds on one core: for tests and for trying an installation out.
_TINY = _DEMO.model_copy(
    update={
        "name": "tiny",
        "epochs": 2,
        "crop": CropConfig(seconds=0.31),
        "encoder": EncoderConfig(channels=8, width=32),
        "method": DecarConfig(projection_hidden=16, projection_dim=8, num_clusters=(8,)),
        "batch": BatchConfig(block=8, blocks_per_step=4),
        "runtime": RuntimeConfig(kind="in-process"),
    }
)


def _audioset(name: str, **update: Any) -> PretrainConfig:
    """Another method at the size of the paper's setting; all but its own is as DECAR-v2's, so that rows compare."""
    return _DECAR_V2_AUDIOSET.model_copy(update={"name": f"{name}-audioset", **update})


def _corpus(name: str, of: PretrainConfig, **update: Any) -> PretrainConfig:
    """The same method on the free corpus."""
    own = {"method": of.method, "crop": of.crop, "augment": of.augment}
    return _CORPUS.model_copy(update={"name": f"{name}-corpus", **own, **update})


# COLA (arXiv 2010.10915): two crops of a clip, Adam.
_COLA_AUDIOSET = _audioset("cola", method=ColaConfig(), crop=CropConfig(num_crops=2))
_COLA_CORPUS = _corpus("cola", _COLA_AUDIOSET)
_COLA_TINY = _TINY.model_copy(
    update={
        "name": "cola-tiny",
        "method": ColaConfig(projection_dim=16),
        "crop": _TINY.crop.model_copy(update={"num_crops": 2}),
    }
)

# DeLoRes-S (arXiv 2203.13628): two views of one crop; head as in the LAPE code, λ as in the authors' first code.
_DELORES_S_AUDIOSET = _audioset("delores-s", method=DeloresSConfig())
_DELORES_S_CORPUS = _corpus("delores-s", _DELORES_S_AUDIOSET)
_DELORES_S_TINY = _TINY.model_copy(update={"name": "delores-s-tiny", "method": DeloresSConfig(decorrelation_dim=16)})

# DeLoRes-M (doi 10.1109/JSTSP.2022.3202093): heads, weights and temperature of the LAPE code. Its queue of 65,536 would
# hold each of 8,332 clips eight times, and an average that keeps 0.999 would outlast the run's 520 steps: a quarter of
# an epoch, and 0.99, which MoCo's authors took for CIFAR-10.
_DELORES_M_AUDIOSET = _audioset("delores-m", method=DeloresMConfig())
_DELORES_M_CORPUS = _corpus("delores-m", _DELORES_M_AUDIOSET, method=DeloresMConfig(queue=2048, ema_decay=0.99))
_DELORES_M_TINY = _TINY.model_copy(
    update={
        "name": "delores-m-tiny",
        "method": DeloresMConfig(
            projection_dim=8,
            queue=64,
            ema_decay=0.9,
            decorrelation_dim=16,
            on_diagonal=0.01,  # as much as InfoNCE, so that tests see both
            off_diagonal=0.01,
        ),
    }
)

# BYOL-A (arXiv 2103.06695 sec. IV and the authors' configuration): projection, hidden width, EMA, Adam 3e-4.
_BYOL_A_AUDIOSET = _audioset("byol-a", method=ByolAConfig())
_BYOL_A_CORPUS = _corpus("byol-a", _BYOL_A_AUDIOSET)
_BYOL_A_TINY = _TINY.model_copy(update={"name": "byol-a-tiny", "method": ByolAConfig(hidden=32, projection_dim=16)})

# SLICER (arXiv 2211.01519): projection, clusters, temperatures and k-mix of the LAPE code. Its queue of 65,536 is about
# a quarter of its clips, as 2,048 is of the corpus's; its decay of 0.999 would keep 0.6 of the teacher's random weights
# over the corpus's 520 steps.
_SLICER_AUDIOSET = _audioset("slicer", method=SlicerConfig(), augment=AugmentConfig(k_mix=4))
_SLICER_CORPUS = _corpus("slicer", _SLICER_AUDIOSET, method=SlicerConfig(queue=2048, ema_decay=0.99))
_SLICER_TINY = _TINY.model_copy(
    update={
        "name": "slicer-tiny",
        "method": SlicerConfig(projection_dim=16, num_clusters=8, queue=96, ema_decay=0.9),
        "augment": _SLICER_CORPUS.augment,
    }
)

PRETRAIN: dict[str, tuple[str, PretrainConfig]] = {
    "demo": ("The embedded recordings, minutes on two cores.", _DEMO),
    "corpus": ("The free corpus of real recordings (make corpus), about an hour on two cores.", _CORPUS),
    "decar-v2-audioset": ("The paper's setting: 10 % of AudioSet and FSD50K, four GPUs.", _DECAR_V2_AUDIOSET),
    **{
        config.name: (f"{heading} at the size of the paper's setting.", config)
        for heading, config in (
            ("COLA", _COLA_AUDIOSET),
            ("DeLoRes-S", _DELORES_S_AUDIOSET),
            ("DeLoRes-M", _DELORES_M_AUDIOSET),
            ("BYOL-A", _BYOL_A_AUDIOSET),
            ("SLICER", _SLICER_AUDIOSET),
        )
    },
    "cola-corpus": ("COLA on the free corpus.", _COLA_CORPUS),
    "cola-tiny": ("COLA with a toy encoder.", _COLA_TINY),
    "delores-s-corpus": ("DeLoRes-S on the free corpus.", _DELORES_S_CORPUS),
    "delores-s-tiny": ("DeLoRes-S with a toy encoder.", _DELORES_S_TINY),
    "delores-m-corpus": ("DeLoRes-M on the free corpus.", _DELORES_M_CORPUS),
    "delores-m-tiny": ("DeLoRes-M with a toy encoder.", _DELORES_M_TINY),
    "byol-a-corpus": ("BYOL-A on the free corpus.", _BYOL_A_CORPUS),
    "byol-a-tiny": ("BYOL-A with a toy encoder.", _BYOL_A_TINY),
    "slicer-corpus": ("SLICER on the free corpus.", _SLICER_CORPUS),
    "slicer-tiny": ("SLICER with a toy encoder.", _SLICER_TINY),
    "tiny": ("A toy encoder, to try an installation out in seconds.", _TINY),
}

# UnFuSeD: alpha and beta of the authors' code. Clusters, optimiser and batch are those of a first trial on kws.
_UNFUSED = DistillConfig(
    labels=PseudoLabelConfig(num_clusters=(48,)),
    method=UnfusedConfig(alpha=0.7, beta=0.003),
    ema_decay=0.99,
    optimizer=OptimizerConfig(lr=5e-4, warmup_epochs=1),
    batch=BatchConfig(block=64, blocks_per_step=1),
    runtime=RuntimeConfig(kind="in-process"),
)

# Of more clips than one process takes: the same on four GPUs.
_UNFUSED_CLUSTER = _UNFUSED.model_copy(
    update={
        "name": "unfused-cluster",
        "batch": BatchConfig(block=64, blocks_per_step=4),
        "runtime": _DECAR_V2_AUDIOSET.runtime,
    }
)

# 2,048 and 2,816 training views of 280 and 729 clips; with the pre-training's 5,760 the demo has 10,624.
_DEMO_DRUMS = _UNFUSED.model_copy(
    update={
        "name": "demo-drums",
        "epochs": 8,
        "labels": PseudoLabelConfig(num_clusters=(32,)),
        "optimizer": OptimizerConfig(lr=5e-4, warmup_epochs=0.5),
        "batch": BatchConfig(block=32, blocks_per_step=1),
        "ema_decay": 0.9,
    }
)
_DEMO_LANGUAGES = _DEMO_DRUMS.model_copy(update={"name": "demo-languages", "epochs": 4})

_UNFUSED_TINY = _UNFUSED.model_copy(
    update={
        "name": "tiny-student",
        "epochs": 2,
        "crop": _TINY.crop,
        "encoder": _TINY.encoder,
        "labels": PseudoLabelConfig(num_clusters=(4,), starts=2, iterations=5),
        "method": UnfusedConfig(head_hidden=16),
        "batch": _TINY.batch,
    }
)

DISTILL: dict[str, tuple[str, DistillConfig]] = {
    "unfused": ("A target task of some thousand clips, in this process.", _UNFUSED),
    "unfused-cluster": (
        "A target of a hundred thousand clips: a worker group, four GPUs.",
        _UNFUSED_CLUSTER,
    ),
    "demo-drums": ("The embedded recordings of drums, half a minute on two cores.", _DEMO_DRUMS),
    "demo-languages": ("The embedded recordings of languages, half a minute on two cores.", _DEMO_LANGUAGES),
    "tiny": ("A toy network, to try an installation out in seconds.", _UNFUSED_TINY),
}

# A student of every trial on every task; twenty trials of the demo's end within 25 minutes on two cores.
SWEEP: dict[str, tuple[str, SweepConfig]] = {
    "unfused": ("Alpha and beta of UnFuSeD on your tasks.", SweepConfig(distill=_UNFUSED)),
    "demo": (
        "The embedded recordings.",
        SweepConfig(name="demo", distill=_DEMO_DRUMS.model_copy(update={"name": "demo-sweep", "epochs": 6})),
    ),
    "tiny": (
        "A toy network, to try an installation out in seconds.",
        SweepConfig(name="tiny", num_trials=4, distill=_UNFUSED_TINY, random_seeds=0),
    ),
}

EVALUATE: dict[str, tuple[str, EvaluateConfig]] = {
    "default": ("The protocol that comes with the package.", EvaluateConfig()),
}

EMBED: dict[str, tuple[str, EmbedConfig]] = {
    "default": ("One vector a clip, of a longer recording one a minute.", EmbedConfig()),
    "windows": ("A vector every 0.95 s, the crop that encoders are trained on.", EmbedConfig(window_seconds=0.95)),
}

PREPARE: dict[str, tuple[str, PrepareConfig]] = {
    "default": ("Any audio, all of it.", PrepareConfig()),
    "audioset-10-percent": (
        "The paper's share of AudioSet: a reproducible tenth, clips of at most 10 s.",
        PrepareConfig(fraction=0.1, seed=31, long_clips="truncate"),
    ),
}
