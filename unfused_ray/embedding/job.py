"""The embedding of a source: checked, described, and run part by part, until the manifest is written."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.console import Group
from rich.text import Text

from unfused_ray import paths, storage
from unfused_ray.config import EmbedConfig
from unfused_ray.data.parts.default_executor import default_executor
from unfused_ray.data.parts.driver import PartedJob, write_parts
from unfused_ray.data.parts.executor import Executor
from unfused_ray.data.parts.ledger import Ledger, changed, delete_reports, refuse_difference, refuse_occupied
from unfused_ray.data.parts.rejects import count_reasons, told_reasons
from unfused_ray.data.shards.format import MANIFEST
from unfused_ray.data.sources.columns import BY_NAME
from unfused_ray.data.sources.notes import by_kind, sentences
from unfused_ray.embedding.clips import read_out
from unfused_ray.embedding.parts import PlannedParts, plan_parts
from unfused_ray.embedding.vectors import VectorFile, VectorManifest, vector_schema
from unfused_ray.embedding.write import PartWriter
from unfused_ray.lease import refuse_in_use
from unfused_ray.models.export import load_encoder, read_description
from unfused_ray.models.frozen import FrozenEncoder
from unfused_ray.progress import summary

logger = logging.getLogger(__name__)

_REPORTS = "_embed"


@dataclass(frozen=True)
class _Job:
    """An embedding that is not finished."""

    encoder: FrozenEncoder
    planned: PlannedParts
    ledger: Ledger
    dim: int
    """Size of a vector."""
    executor: Executor


@dataclass(frozen=True)
class EmbeddingPlan:
    """An embedding whose encoder and source have been read, or whose output is finished."""

    config: EmbedConfig
    """Configuration with absolute paths."""
    finished: VectorManifest | None
    """Manifest of a finished output; None if the output is not finished."""
    job: _Job | None
    """None if the output is finished."""


def check(config: EmbedConfig) -> EmbeddingPlan:
    """Load the encoder, list the source and cut it into parts; nothing is written.

    A finished output stays valid if its source is gone, and is refused if the source's clips have changed.

    Raises:
        FileNotFoundError: the source or the encoder is missing.
        ValueError: a path cannot be used, the source holds no audio, the shards have another sample rate than the
            encoder, the cluster lacks the requested resources, or the output was made with other settings or from other
            clips, or is another job's.
        InUseError: another process works on the output.
    """
    config = paths.check(config)
    description = read_description(config.encoder)
    settings, sample_rate = _settings(config, description["sha256"]), description["front_end"]["sample_rate"]
    refuse_in_use(config.output)
    executor = default_executor(config.gpus_per_task)
    with executor.open():
        if (manifest := _finished(config, settings, sample_rate, executor)) is not None:
            return EmbeddingPlan(config, manifest, None)
        executor.refuse_impossible({"source": config.source, "output": config.output})
        encoder = load_encoder(config.encoder)
        _warn_of_short_windows(config, encoder)
        planned = plan_parts(config, sample_rate, executor)
    digest = storage.sha256(json.dumps([settings, planned.contents], sort_keys=True).encode())
    ledger = Ledger(config.output, _REPORTS, config.source, settings, digest)
    if not ledger.check_begun():
        refuse_occupied(config.output)
    return EmbeddingPlan(config, None, _Job(encoder, planned, ledger, _dim(encoder, config), executor))


def describe(plan: EmbeddingPlan) -> Group:
    """Summarise an embedding without starting it."""
    config, job = plan.config, plan.job
    if job is None:
        assert plan.finished is not None
        return summary(f"{config.output} is already finished: nothing to do", _rows(plan.finished))
    planned, dim = job.planned, job.dim
    rows: dict[str, float | str] = {
        "clips": planned.num_clips,
        **{f"set aside: {reason}": count for reason, count in count_reasons(planned.rejects).items()},
        "parts": len(planned.parts),
        "parts finished before": job.ledger.num_finished(),
        "values of a vector": dim,
    }
    vectors_per_second = 1 / (config.hop_seconds or config.window_seconds) if config.window_seconds else 0.0
    if vectors_per_second and planned.seconds is None:
        rows["megabytes an hour of audio, about"] = 3600 * vectors_per_second * dim * 4 / 1e6
    else:
        num_vectors = max(planned.num_clips, round((planned.seconds or 0.0) * vectors_per_second))
        rows |= {"vectors, about": num_vectors, "megabytes, about": num_vectors * dim * 4 / 1e6}
    rows |= by_kind(planned.notes)
    title = f"would embed {config.source} to {config.output}; a dry run writes nothing"
    return Group(summary(title, rows), *(Text(f"! {sentence}") for sentence in sentences(planned.notes)))


def run(plan: EmbeddingPlan) -> VectorManifest:
    """Write the vectors; do nothing if the output is finished.

    An interrupted job resumes after its finished parts. A clip that cannot be read is set aside, with its reason in
    ``rejects.parquet``.

    Raises:
        InUseError: another process works on the output, or has taken it over.
        ValueError: none of the clips can be used.
    """
    if plan.job is None:
        assert plan.finished is not None
        delete_reports(plan.config.output, _REPORTS)  # the manifest says all that these did
        logger.info("%s is already finished: nothing to do", plan.config.output)
        return plan.finished
    source, notes = plan.config.source, plan.job.planned.notes
    for kind, words in by_kind(notes).items():
        logger.info("%s: %s: %s", source, kind, words)
    for sentence in sentences(notes):
        logger.warning("%s: %s", source, sentence)
    start = time.monotonic()
    manifest = _embed(plan.config, plan.job)
    logger.info("%d clips in %.0f s", manifest.num_clips, time.monotonic() - start)
    return manifest


def describe_manifest(manifest: VectorManifest) -> Group:
    """Summarise finished vectors."""
    return summary(f"embedded {manifest.settings['source']} to {manifest.uri}", _rows(manifest))


def _rows(manifest: VectorManifest) -> dict[str, float | str]:
    return {
        "clips": manifest.num_clips,
        "vectors": manifest.num_vectors,
        "values of a vector": manifest.dim,
        "parts": len(manifest.parts),
        "megabytes": sum(part.num_bytes for part in manifest.parts) / 1e6,
        **told_reasons(manifest.rejects, manifest.warnings),
    }


def _settings(config: EmbedConfig, encoder_sha256: str) -> dict[str, Any]:
    """Return the settings that decide the vectors, without paths and settings of speed."""
    # Default columns are left out: vectors of older versions, which lacked the setting, would count as different.
    unused = {"columns"} if config.columns == BY_NAME else set()
    settings = config.model_dump(mode="json", exclude={"encoder", "output", "gpus_per_task", *unused})
    return {**settings, "encoder_sha256": encoder_sha256}


def _finished(
    config: EmbedConfig, settings: Mapping[str, Any], sample_rate: int, executor: Executor
) -> VectorManifest | None:
    """Return the manifest of a finished output; None if the output is not finished.

    Raises:
        ValueError: the output was made with other settings, or the source's clips have changed since.
    """
    if not storage.exists(storage.join(config.output, MANIFEST)):
        return None
    manifest = VectorManifest.load(config.output)
    refuse_difference(config.output, manifest.settings, settings)
    try:
        contents = plan_parts(config, sample_rate, executor).contents
    except FileNotFoundError as error:
        logger.warning("%s is not compared with its source: %s", config.output, error)
        return manifest
    if contents != manifest.contents:
        raise changed(config.source, config.output)
    return manifest


def _warn_of_short_windows(config: EmbedConfig, encoder: FrozenEncoder) -> None:
    if 0 < config.window_seconds < encoder.crop.seconds:
        logger.warning(
            "window_seconds=%g is less than the %g s that the encoder was trained on: every window is extended by the "
            "encoder's rule for short clips (%s)",
            config.window_seconds,
            encoder.crop.seconds,
            encoder.crop.short_clips,
        )


def _dim(encoder: FrozenEncoder, config: EmbedConfig) -> int:
    """Return the size of a vector."""
    sample_rate = encoder.log_mel.config.sample_rate
    layers = encoder.layers(np.zeros(sample_rate), sample_rate)
    arrays = {layer: vector.numpy() for layer, vector in layers.items()}
    return read_out(arrays, encoder.encoder.config.cut, config.readout).shape[1]


def _embed(config: EmbedConfig, job: _Job) -> VectorManifest:
    planned, ledger, dim, executor = job.planned, job.ledger, job.dim, job.executor

    def finished() -> VectorManifest | None:
        return _finished(config, ledger.settings, job.encoder.log_mel.config.sample_rate, executor)

    def manifest_of(files: tuple[VectorFile, ...], rejects: dict[str, int], warnings: dict[str, int]) -> VectorManifest:
        described = config.output, config.encoder, dim, ledger.settings, planned.contents
        return VectorManifest(*described, files, rejects, warnings)

    schema = vector_schema(dim, ledger.settings["encoder_sha256"], config.readout)
    with executor.open():
        writer = PartWriter(config, schema, executor.share(job.encoder))
        sizes = [part.num_clips for part in planned.parts]
        parted = PartedJob("embed", ledger, planned.parts, sizes, planned.rejects, writer, VectorFile)
        return write_parts(parted, executor, finished, manifest_of)
