"""Makes the clusters of a page that can be listened to: their clips as sound and spectrogram."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from unfused_ray import storage
from unfused_ray.data.shards.index import ClipIndex, labels_to_ids
from unfused_ray.embedding.clips import embed_clips
from unfused_ray.figures.metrics import view_of
from unfused_ray.models.export import load_encoder
from unfused_ray.report.choice import NUM_CLUSTERS, PLACES, choose
from unfused_ray.report.page import PageClip, PageCluster, Section, Sound
from unfused_ray.report.sounds import read_sounds, seconds_of_each
from unfused_ray.runs.reader import RunReader

_MAX_MEMBERS = 200


def clip_seconds(num_runs: int, num_requested: int = 0) -> float:
    """Return the seconds of each clip for which a page of some runs has room.

    Args:
        num_runs: number of runs with clusters.
        num_requested: number of requested clusters of each run.
    """
    return seconds_of_each(max(1, num_runs) * (NUM_CLUSTERS + num_requested) * len(PLACES))


@dataclass(frozen=True)
class _Heard:
    """Clips of a run with their distances to the centre of their cluster."""

    run: RunReader
    index: ClipIndex
    shown: Mapping[int, str]
    """Reason why each cluster is shown."""
    distances: np.ndarray
    """(N,) float32 by clip_id; NaN if unknown."""
    seconds: float
    """Seconds of each clip for which the page has room."""

    @property
    def clusters(self) -> np.ndarray:
        """(N,) int32 clusters of the first head, by clip_id."""
        return self.run.assignment.labels[0]

    @cached_property
    def labels(self) -> list[list[str]]:
        """Labels of every clip."""
        return self.index.column("labels")

    @cached_property
    def keys(self) -> list[str]:
        """Key of every clip."""
        return self.index.column("key")

    def members(self, cluster: int) -> np.ndarray:
        """Return the clips of a cluster with known distance, the nearest first."""
        ids = np.flatnonzero((self.clusters == cluster) & np.isfinite(self.distances))
        return ids[np.argsort(self.distances[ids], kind="stable")]


def clusters_to_hear(run: RunReader, seconds: float, requested: Sequence[int]) -> Section:
    """Show the nearest, the median and the farthest clip of some clusters, or why clips cannot be read.

    Args:
        run: a run with an assignment; with several heads, the first is used.
        seconds: seconds of each clip.
        requested: clusters to include, which have clips.
    """
    heading = f"Listen to the {view_of(run).group}s"
    try:
        heard = _hear(run, seconds, requested)
        clusters = _clusters(heard)
    except (OSError, ValueError) as error:
        return Section(heading, [f"The clips cannot be heard here, because they cannot be read now: {error}"])
    return Section(heading, [_explain(heard)], clusters=clusters)


def _hear(run: RunReader, seconds: float, requested: Sequence[int]) -> _Heard:
    index = ClipIndex.load(run.config.data, run.config.splits)
    if index.checksums != run.facts["data_checksums"]:
        raise ValueError(f"the clips at {', '.join(run.config.data)} are no longer those that the run was trained on")
    clusters, distances = run.assignment.labels[0], run.assignment.distances[0]
    if view_of(run).has_distances:
        return _Heard(run, index, choose(clusters, distances, requested), distances, seconds)
    shown = choose(clusters, np.full(len(clusters), np.nan, np.float32), requested)
    return _Heard(run, index, shown, _measured(run, index, list(shown)), seconds)


def _measured(run: RunReader, index: ClipIndex, shown: Sequence[int]) -> np.ndarray:
    """Return distances of some clips of each cluster to their mean direction, in the exported encoder's vectors:
    (N,)."""
    encoder = load_encoder(run.uri)
    clusters = run.assignment.labels[0]
    distances = np.full(len(clusters), np.nan, np.float32)
    for cluster in shown:
        ids = np.flatnonzero(clusters == cluster)[:_MAX_MEMBERS]
        vectors_ND = embed_clips(encoder, index, ids)[encoder.encoder.config.cut]
        unit_ND = vectors_ND / np.linalg.norm(vectors_ND, axis=1, keepdims=True)
        mean_D = np.nanmean(unit_ND, axis=0)
        distances[ids] = 1 - unit_ND @ (mean_D / np.linalg.norm(mean_D))
    return distances


def _explain(heard: _Heard) -> str:
    """Explain the choice of clusters and the form of their clips."""
    view, seconds = view_of(heard.run), heard.seconds
    group, assignment = view.group, heard.run.assignment
    total = np.count_nonzero(np.bincount(heard.clusters[heard.clusters >= 0]))
    if view.has_distances:
        chosen = "the most and the least coherent (mean distance to the centroid) and sizes spread evenly"
        measure = "1 - cosine similarity to the centroid, as training saw it"
    else:
        chosen = "sizes spread evenly"
        measure = (
            f"these labels are not clusters, so distances are to the mean vector of at most {_MAX_MEMBERS} of their "
            f"clips, by the exported {heard.run.config.export}"
        )
    others = ", and those asked for" if any("asked for" in why for why in heard.shown.values()) else ""
    heads = f", of the first of {len(assignment.labels)} heads" if len(assignment.labels) > 1 else ""
    return (
        f"{len(heard.shown)} of {total} {group}s{heads}: {chosen} from the largest to the smallest with at least "
        f"{len(PLACES)} clips{others}. Distance: {measure}. Each clip is cut to its first {seconds:.1f} s and coded "
        f"with Opus; spectrograms share one scale of colour and time. {view.labels_note.capitalize()}."
    )


def _clusters(heard: _Heard) -> list[PageCluster]:
    members = {cluster: heard.members(cluster) for cluster in heard.shown}
    places = {cluster: _ends(ids) for cluster, ids in members.items() if len(ids)}
    wanted = np.unique(np.concatenate([list(chosen.values()) for chosen in places.values()]))
    clips = _clips(heard, wanted)
    group = view_of(heard.run).group
    return [
        PageCluster(
            name=f"{group} {cluster}",
            why=heard.shown[cluster],
            facts=_describe(heard, cluster),
            clips=[PageClip(place, *clips[clip_id]) for place, clip_id in chosen.items() if clip_id in clips],
        )
        for cluster, chosen in places.items()
    ]


def _ends(ids: np.ndarray) -> dict[str, int]:
    """Return the nearest, the median and the farthest of ordered clips; fewer if there are fewer clips."""
    middle = (len(ids) - 1) // 2
    places = dict(zip(PLACES, (0, middle, len(ids) - 1), strict=True))
    found: dict[str, int] = {}
    for place, position in places.items():
        if int(ids[position]) not in found.values():
            found[place] = int(ids[position])
    return found


def _describe(heard: _Heard, cluster: int) -> str:
    """Return size, coherence and the most common labels of a cluster."""
    ids = np.flatnonzero(heard.clusters == cluster)
    text = f"{len(ids):,} clips, mean distance {np.nanmean(heard.distances[ids]):.2f}"
    label_ids, names = labels_to_ids([heard.labels[i] for i in ids])
    counts = Counter(label_ids[label_ids >= 0].tolist())
    if counts:
        total = sum(counts.values())
        common = ", ".join(f"{count / total:.0%} {names[label]}" for label, count in counts.most_common(3))
        text += f"; labels: {common}"
    return text


def _clips(heard: _Heard, clip_ids: np.ndarray) -> dict[int, tuple[str, str, Sound]]:
    """Return key, facts and sound by clip_id, without damaged clips."""
    sounds = read_sounds(heard.index, heard.run.config.front_end, clip_ids, heard.seconds)
    if not sounds:
        raise ValueError("every clip that was chosen is damaged")
    found = {}
    for clip_id, sound in sounds.items():
        labels = ", ".join(heard.labels[clip_id])
        source = storage.name(heard.index.source_of(clip_id).uri)
        facts = (
            f"{source}, clip {clip_id}{f', {labels}' if labels else ''}, {sound.facts}, distance "
            f"{heard.distances[clip_id]:.2f}"
        )
        found[clip_id] = heard.keys[clip_id], facts, sound
    return found
