"""The job that makes and changes an index, part by part until the manifest is written."""

from __future__ import annotations

import json
import logging
import re
import threading
import time
from dataclasses import replace
from itertools import islice

import numpy as np

from unfused_ray import storage
from unfused_ray.data.parts.driver import PartedJob, run_parts
from unfused_ray.data.parts.ledger import Ledger, delete_reports
from unfused_ray.lease import InUseError, Lease, refuse_lost
from unfused_ray.retrieval.format import IndexManifest, IndexPart, IndexSource, Recall, TrainedFile
from unfused_ray.retrieval.plan import IndexPlan, readable, settings_of
from unfused_ray.retrieval.recall import measure_recall
from unfused_ray.retrieval.space import VectorSpace
from unfused_ray.retrieval.stored import load_trained, parts_of
from unfused_ray.retrieval.training import TrainedIndex, kind_for, train
from unfused_ray.retrieval.vector_parts import draw, encoder_of
from unfused_ray.retrieval.write import IndexPartWriter

logger = logging.getLogger(__name__)

_REPORTS = "_index"
_SPACE_SAMPLE = 32_768
_TRAINING = re.compile(r"[0-9a-f]{12}")


def run(plan: IndexPlan) -> IndexManifest:
    """Make or change the index; do nothing if it is up to date already.

    An interrupted job resumes after its finished parts if the plan is the same; otherwise its parts are not used. Until
    the end of a job, searches use the index as it was, also while it is rebuilt: new files lie beside its own, and the
    manifest, which names them, is replaced by one write. An object store replaces an object as a whole, too. Then the
    files of before are deleted; a search that still reads them begins again.

    Raises:
        InUseError: another process works on the index, or has taken it over.
        ValueError: the SHA-256 of a file of vectors is not the one in its manifest.
        MissingExtraError: faiss is needed and not installed.
    """
    lost = threading.Event()
    if plan.is_finished:
        assert plan.before is not None
        if storage.list_files(storage.join(plan.config.output, _REPORTS)):  # of a job that ended before clearing up
            with Lease(plan.config.output, on_loss=lost.set):
                _refuse_moved_on(plan)
                delete_reports(plan.config.output, _REPORTS)
                _clean(plan.before)
        return plan.before
    start = time.monotonic()
    with Lease(plan.config.output, on_loss=lost.set), plan.executor.open():
        _refuse_moved_on(plan)
        for source in plan.built:
            plan.executor.refuse_impossible({"vectors": source.manifest.uri, "output": plan.config.output})
        manifest = _index(plan, lost)
        _clean(manifest)
    logger.info("%d vectors in %.0f s", manifest.num_vectors, time.monotonic() - start)
    return manifest


def _index(plan: IndexPlan, lost: threading.Event) -> IndexManifest:
    """Train, write the missing parts, measure the recall, and write the manifest."""
    config, output = plan.config, plan.config.output
    parts = [list(source.parts()) for source in plan.built]
    joined = [part for of_source in parts for part in of_source]
    digest = storage.sha256(json.dumps([plan.training, [part.stem for part in joined]]).encode())
    ledger = Ledger(output, _REPORTS, ", ".join(s.manifest.uri for s in plan.built), settings_of(config), digest)
    resumes = _resumes(ledger)
    ledger.begin()
    trained, file = _trained(plan, resumes, lost)
    writer = IndexPartWriter(output, plan.training, plan.executor.share(trained))
    job = PartedJob("index", ledger, joined, [part.num_clips for part in joined], (), writer, IndexPart)
    written = iter([report.file for report in run_parts(job, plan.executor, lost) if report.file is not None])
    made = [
        IndexSource(
            name=source.name,
            vectors=source.manifest.uri,
            audio=source.manifest.settings["source"],
            digest=source.digest,
            window_seconds=source.manifest.settings["window_seconds"],
            parts=tuple(islice(written, len(of_source))),
        )
        for source, of_source in zip(plan.built, parts, strict=True)
    ]
    encoder = plan.before.encoder if plan.before else encoder_of(plan.built)
    unmeasured = Recall(0, 0, 0, 0.0, {})
    found = IndexManifest(output, settings_of(config), encoder, file, unmeasured, (*plan.kept, *made))
    if not found.num_vectors:
        raise ValueError(f"none of the {plan.num_vectors} vectors of {ledger.source} has a direction")
    found = replace(found, recall=measure_recall(found, trained, config.recall))
    refuse_lost(output, lost)  # measuring the recall takes minutes
    found.save()
    ledger.delete()
    return found


def _resumes(ledger: Ledger) -> bool:
    """Return True if an interrupted job has begun this plan; delete the reports of another plan.

    An existing index does not need these reports: its manifest names its own files.
    """
    try:
        return ledger.check_begun()
    except ValueError:
        logger.warning(
            "%s: an interrupted job with another plan is discarded, and this one starts from the beginning",
            ledger.output,
        )
        ledger.delete()
        return False


def _trained(plan: IndexPlan, resumes: bool, lost: threading.Event) -> tuple[TrainedIndex, TrainedFile]:
    """Return the trained index: the existing one, the one left by an interrupted job, or a newly trained one."""
    config = plan.config
    if plan.before is not None and plan.is_trained:
        return load_trained(plan.before), plan.before.trained
    num_vectors = plan.num_vectors
    file = TrainedFile(plan.training, "", kind_for(config, num_vectors), num_vectors)
    uri = storage.join(config.output, file.file)
    if not (resumes and storage.exists(uri)):

        def more(space: VectorSpace, count: int) -> np.ndarray:
            return draw(plan.built, count, config.seed + 1, plan.executor, space)

        if plan.before is not None:
            logger.info("%s is trained anew, on its %d vectors", config.output, num_vectors)
        sample_ND = draw(plan.built, _SPACE_SAMPLE, config.seed, plan.executor, None)
        trained = train(config, num_vectors, sample_ND, more).to_bytes()
        refuse_lost(config.output, lost)  # training takes minutes too
        storage.write_bytes(uri, trained)
    data = storage.read_bytes(uri)
    return TrainedIndex.from_bytes(data, uri), replace(file, sha256=storage.sha256(data))


def _refuse_moved_on(plan: IndexPlan) -> None:
    """Refuse an index that another process has changed since it was checked, whose files this job would replace."""
    live = readable(plan.config.output)
    has_changed = plan.before is not None and live != plan.before
    if has_changed or (plan.before is None and live is not None and live.trained.id == plan.training):
        raise InUseError(f"another process has changed {plan.config.output} just now: give the command again")


def _clean(manifest: IndexManifest) -> None:
    """Remove the parts of sources and trainings that the index no longer uses."""
    kept = {manifest.trained.file}
    for part in parts_of(manifest):
        kept |= {part.file, part.clips_file}
    for folder in storage.list_folders(manifest.uri):
        if _TRAINING.fullmatch(name := storage.name(folder)):
            for uri in storage.list_files(folder):
                if f"{name}/{storage.name(uri)}" not in kept:
                    storage.delete(uri)
            storage.delete_unfinished(folder)
            if name != manifest.trained.id:
                storage.delete(folder)
