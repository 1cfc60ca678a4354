"""Draws the pictures of a run: health over the epochs, a map of its embeddings, and spectrograms by cluster."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from matplotlib.figure import Figure

from unfused_ray import storage
from unfused_ray.audio import randomness
from unfused_ray.audio.log_mel import LogMel
from unfused_ray.data.shards.index import ClipIndex, labels_to_ids
from unfused_ray.embedding.clips import embed_clips, read_clips
from unfused_ray.figures.canvas import save
from unfused_ray.figures.curves import draw_health
from unfused_ray.figures.map import MAX_POINTS, Grouping, by_class, draw_map, project
from unfused_ray.figures.metrics import RunView, view_of
from unfused_ray.figures.spectrograms import SheetRow, draw_sheet
from unfused_ray.figures.watched import draw_watched, panels
from unfused_ray.models.export import load_encoder
from unfused_ray.models.frozen import FrozenEncoder
from unfused_ray.runs.reader import PICTURES, RunReader
from unfused_ray.runs.watched import watched_curves

logger = logging.getLogger(__name__)

NUM_CLUSTERS = 8
CLIPS_PER_CLUSTER = 6


@dataclass(frozen=True)
class _Scene:
    """Run and clips from which the map and the sheet are drawn."""

    run: RunReader
    view: RunView
    index: ClipIndex
    label_ids: np.ndarray
    """First label of each clip as an index into ``label_names``; -1 if it has none."""
    label_names: Sequence[str]
    shown: np.ndarray
    """Clusters on the sheet; empty if nothing is clustered."""

    @classmethod
    def of(cls, run: RunReader) -> Self:
        view, index = view_of(run), ClipIndex.load(run.config.data, run.config.splits)
        shown = spread_clusters(run.assignment.labels[0], NUM_CLUSTERS) if view.group else np.empty(0, np.int64)
        return cls(run, view, index, *labels_to_ids(index.column("labels")), shown)

    @property
    def num_clusters(self) -> int:
        """Number of clusters of the first head."""
        return len(self.run.assignment.prototypes[0])


def write(run_uri: str) -> list[str]:
    """Draw a finished run into its folder ``pictures``: as :func:`write_progress`, plus ``map.png`` if possible.

    This takes about 15 s for 1,600 short clips on 2 cores.

    Returns:
        URIs of the pictures.

    Raises:
        FileNotFoundError: there is no run, or it has no exported encoder or no assignment yet.
        ValueError, OSError: its data cannot be read.
    """
    found = _map(_Scene.of(RunReader(run_uri)), load_encoder(run_uri))
    if found is None:
        logger.warning("no map of %s: its vectors have fewer than three directions, as of a collapsed network", run_uri)
    return [*write_progress(run_uri), *(_save(run_uri, {"map": found}) if found else ())]


def write_progress(run_uri: str) -> list[str]:
    """Draw a run that has finished an epoch: ``health.png``, ``watch.png`` if it is watched, and ``clusters.png``.

    The clusters are those of the first head in the newest assignment; for a distillation, its pseudo-labels. Without
    these, ``clusters.png`` is left out. Curves take a second or two, and so does the sheet of clusters.

    Returns:
        URIs of the pictures.

    Raises:
        FileNotFoundError: there is no run.
        ValueError, OSError: the run cannot be read.
    """
    run = RunReader(run_uri)
    name, history, view = run.config.name, run.history(), view_of(run)
    figures = {"health": draw_health(f"Health of {name}", history, view.metrics)}
    if curves := watched_curves(history):
        title = f"Validation clips while {name} trained, beside random networks of its shape"
        figures["watch"] = draw_watched(title, panels({"": curves}))
    if view.group and run.has_assignment:
        figures["clusters"] = _sheet(_Scene.of(run))
    return _save(run_uri, figures)


def _save(run_uri: str, figures: Mapping[str, Figure]) -> list[str]:
    return [save(figure, storage.join(run_uri, PICTURES, f"{name}.png")) for name, figure in figures.items()]


def spread_clusters(clusters_N: np.ndarray, num_shown: int) -> np.ndarray:
    """Choose clusters evenly over the ranks of their sizes, from the largest to the smallest.

    Args:
        clusters_N: cluster of each clip; -1 is none.
        num_shown: largest number of clusters to choose.

    Returns:
        Ids of non-empty clusters, the largest first.
    """
    sizes = np.bincount(clusters_N[clusters_N >= 0])
    ranked = np.argsort(-sizes, kind="stable")[: np.count_nonzero(sizes)]
    return ranked[np.linspace(0, len(ranked) - 1, min(num_shown, len(ranked))).round().astype(int)]


def _sample(index: ClipIndex) -> np.ndarray:
    """Choose at most ``MAX_POINTS`` clip_ids, the same each time: whole row groups, shuffled by the ingest.

    Clips drawn one by one would each need a row group of 16 MB to be read.
    """
    taken: list[np.ndarray] = []
    for number in randomness.generator(0, "map").permutation(len(index.units)):
        unit = index.units[number]
        taken.append(np.arange(unit.first_clip_id, unit.first_clip_id + unit.num_clips))
        if sum(map(len, taken)) >= MAX_POINTS:
            break
    return np.sort(np.concatenate(taken)[:MAX_POINTS])


def _map(scene: _Scene, encoder: FrozenEncoder) -> Figure | None:
    run, shown, group = scene.run, scene.shown, scene.view.group
    clip_ids = _sample(scene.index)
    embeddings = embed_clips(encoder, scene.index, clip_ids)[encoder.encoder.config.cut]
    whole = np.isfinite(embeddings).all(axis=1)
    clip_ids = clip_ids[whole]
    groupings = []
    if scene.label_names:
        groupings.append(by_class("by label", scene.label_ids[clip_ids], scene.label_names))
    if group:
        title = f"by {group}: {len(shown)} of {scene.num_clusters}, as in clusters.png"
        names = [f"{group} {cluster}" for cluster in shown]
        clusters = run.assignment.labels[0][clip_ids]
        groupings.append(Grouping.of(title, clusters, shown.tolist(), names, f"other {group}s"))
    elif not groupings:
        groupings.append(Grouping.of("clips", np.zeros(len(clip_ids), np.int64), [0], ["clip"], "others"))
    title = (
        f"{len(clip_ids)} clips of {run.config.name}, embedded by its {run.config.export} "
        f"(t-SNE; {scene.view.labels_note})"
    )
    positions = project(embeddings[whole])
    return None if positions is None else draw_map(title, positions, groupings)


def _sheet(scene: _Scene) -> Figure:
    run, shown, label_names = scene.run, scene.shown, scene.label_names
    clusters, distances = run.assignment.labels[0], run.assignment.distances[0]
    members = [np.flatnonzero(clusters == cluster) for cluster in shown]
    nearest = [ids[np.argsort(distances[ids], kind="stable")[:CLIPS_PER_CLUSTER]] for ids in members]
    clip_ids = np.concatenate(nearest)
    log_mel, log_mels = LogMel(run.config.front_end), dict[int, np.ndarray]()
    for clips in read_clips(scene.index, clip_ids):
        for position, wave in clips:
            log_mels[int(clip_ids[position])] = log_mel(torch.from_numpy(wave)[None])[0].numpy()
    rows = [
        SheetRow(
            title=_in_words(f"{scene.view.group} {cluster}", scene.label_ids[ids], label_names),
            log_mels=[log_mels.get(clip_id) for clip_id in closest.tolist()],
            captions=[label_names[label] if label >= 0 else "" for label in scene.label_ids[closest]],
        )
        for cluster, ids, closest in zip(shown, members, nearest, strict=True)
    ]
    choice = "clips nearest to their centroid" if scene.view.has_distances else "some clips"
    title = (
        f"{run.config.name}: {choice}, in {len(shown)} of {scene.num_clusters} {scene.view.group}s, "
        "evenly spread from the largest to the smallest"
    )
    return draw_sheet(title, rows, run.config.front_end)


def _in_words(cluster: str, label_ids: np.ndarray, label_names: Sequence[str]) -> str:
    """Describe a cluster: name, size, and the most common label among its labelled clips."""
    text = f"{cluster}\n{len(label_ids)} clip{'s' if len(label_ids) != 1 else ''}"
    labelled = label_ids[label_ids >= 0].tolist()
    if labelled:
        label, count = Counter(labelled).most_common(1)[0]
        text += f"\n{count / len(labelled):.0%} {label_names[label]}"
    return text
