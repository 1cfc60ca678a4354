"""The plan of an index: its sources, read and checked, and the parts to make."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

from rich.console import Group

from unfused_ray import paths, storage
from unfused_ray.config import IndexConfig, differences
from unfused_ray.data.parts.default_executor import default_executor
from unfused_ray.data.parts.executor import IN_PROCESS, Executor
from unfused_ray.data.parts.ledger import refuse_difference, refuse_occupied
from unfused_ray.embedding.vectors import VectorManifest
from unfused_ray.lease import refuse_in_use
from unfused_ray.progress import summary
from unfused_ray.retrieval.format import INDEX, IndexManifest, IndexSource
from unfused_ray.retrieval.training import kind_for
from unfused_ray.retrieval.vector_parts import VectorSource, encoder_of, named, vectors_digest

logger = logging.getLogger(__name__)

_IN_PROCESS_VECTORS = 131_072
"""Largest number of vectors that a job encodes without Ray, which takes longer to start."""
_OTHER_SIZE = 2.0
"""An index whose lists were trained for this many times more or fewer vectors is trained again."""


@dataclass(frozen=True)
class IndexPlan:
    """An index whose sources have been read."""

    config: IndexConfig
    """Configuration with absolute paths."""
    before: IndexManifest | None
    """The existing index; None if there is none, or if it is rebuilt."""
    kept: tuple[IndexSource, ...]
    """Sources whose parts are kept."""
    built: tuple[VectorSource, ...]
    """Sources whose parts are made now."""
    training: str
    """Id of the trained index to use: the existing one, or a new one."""
    executor: Executor

    @property
    def is_finished(self) -> bool:
        """True if the index needs no change."""
        return self.before is not None and not self.built and self.kept == self.before.sources

    @property
    def num_vectors(self) -> int:
        """Vectors of all sources."""
        return sum(each.num_vectors for each in self.kept) + sum(each.manifest.num_vectors for each in self.built)

    @property
    def is_trained(self) -> bool:
        """True if nothing has to be trained."""
        return self.before is not None and self.before.trained.id == self.training


def check(config: IndexConfig) -> IndexPlan:
    """Read the sources, and decide which parts have to be made; nothing is written.

    Raises:
        FileNotFoundError: a folder of vectors, or an index to change, is missing.
        ValueError: the sources have different encoders; a source to add is in the index already, or one to remove is
            not; a source has changed; or the index was made with other settings or from other sources.
        InUseError: another process works on the index.
    """
    config = paths.check(config)
    refuse_in_use(config.output)
    live = readable(config.output) if config.rebuild else None
    if live is not None:
        _tell_other_settings(live, config)
    before = None if config.rebuild and config.vectors else _existing(config)
    if before is None and not config.vectors:
        raise FileNotFoundError(
            f"{config.output} holds no {INDEX}, so there is nothing to change: name its sources with --vectors …"
        )
    wanted = _wanted(config, before)
    if before is not None and config.rebuild:
        kept, added = wanted
        wanted = (), (*_reread(kept), *added)
        before = None
    plan = IndexPlan(config, before, *wanted, "", IN_PROCESS)
    if not plan.num_vectors:
        raise ValueError(f"{config.output} would hold no vectors: to remove the last source, delete that folder")
    plan = _with_training(plan, live)
    encoder_of(plan.built, before.encoder if before else None)  # also of sources that are read again
    is_large = sum(source.manifest.num_vectors for source in plan.built) > _IN_PROCESS_VECTORS
    return replace(plan, executor=default_executor()) if is_large else plan


def describe(plan: IndexPlan) -> Group:
    """Summarise an index without making it."""
    if plan.is_finished:
        assert plan.before is not None
        return summary(f"{plan.config.output} is up to date: nothing to do", _rows(plan.before))
    rows: dict[str, float | str] = {
        "sources": ", ".join([*(source.name for source in plan.kept), *(source.name for source in plan.built)]),
        "vectors": plan.num_vectors,
        "vectors to encode": sum(source.manifest.num_vectors for source in plan.built),
        "kept as": kind_for(plan.config, plan.num_vectors),
        "training": "kept" if plan.is_trained else "anew",
    }
    return summary(f"would index to {plan.config.output}; a dry run writes nothing", rows)


def describe_manifest(manifest: IndexManifest) -> Group:
    """Summarise a finished index."""
    return summary(f"index {manifest.uri}", _rows(manifest))


def _rows(manifest: IndexManifest) -> dict[str, float | str]:
    recall, dropped = manifest.recall, sum(part.dropped for source in manifest.sources for part in source.parts)
    lists = f", {recall.searched_lists} lists searched" if manifest.trained.kind != "exact" else ""
    return {
        **{f"vectors of {source.name}": source.num_vectors for source in manifest.sources},
        **({"left out, without a direction": dropped} if dropped else {}),
        "metric": manifest.settings["metric"],
        "kept as": manifest.trained.kind,
        f"recall of the {recall.neighbours} nearest": f"{recall.value:.3f}{lists}",
        "megabytes": manifest.num_bytes / 1e6,
    }


def _existing(config: IndexConfig) -> IndexManifest | None:
    """Return the existing index; None if there is none.

    Raises:
        ValueError: it was made with other settings, or from other sources than the named ones; or there is none, and
            the folder is another job's.
    """
    if not storage.exists(storage.join(config.output, INDEX)):
        refuse_occupied(config.output)
        return None
    before = IndexManifest.load(config.output)
    if config.vectors and not config.rebuild:
        refuse_difference(config.output, before.settings, settings_of(config))
    elif not config.rebuild:
        _refuse_other_settings(config, before)
    if config.vectors and {*config.vectors} != {source.vectors for source in before.sources}:
        raise ValueError(
            f"{config.output} is an index of {', '.join(source.vectors for source in before.sources)}, not of "
            f"{', '.join(config.vectors)}: change it with --add and --remove, or make it anew with --rebuild"
        )
    return before


def _refuse_other_settings(config: IndexConfig, before: IndexManifest) -> None:
    """Refuse to add to an index, or to remove from it, with other settings than those it was made with."""
    settings = settings_of(config)
    others = [(name.replace("_", "-"), value) for name, value in before.settings.items() if settings.get(name) != value]
    if others:
        own = " ".join(f"--{name} {value}" for name, value in others)
        raise ValueError(f"{config.output} was made with other settings: to add to it or to remove from it, give {own}")


def readable(uri: str) -> IndexManifest | None:
    """Return the manifest of the index at ``uri``; None if there is none, or none that this version can read."""
    try:
        return IndexManifest.load(uri)
    except (FileNotFoundError, ValueError):
        return None


def _tell_other_settings(live: IndexManifest, config: IndexConfig) -> None:
    """Log the settings of an existing index that change when it is rebuilt."""
    for change in differences(live.settings, settings_of(config)).values():
        logger.warning("%s is made anew, because a setting has changed: %s", config.output, change)


def _wanted(
    config: IndexConfig, before: IndexManifest | None
) -> tuple[tuple[IndexSource, ...], tuple[VectorSource, ...]]:
    """Return the sources whose parts may stay, and those whose parts have to be made."""
    if before is None:
        return (), tuple(named([VectorManifest.load(uri) for uri in config.vectors]))
    unknown = [name for name in config.remove if not any(_is(source, name) for source in before.sources)]
    if unknown:
        known = ", ".join(f"{source.name} ({source.vectors})" for source in before.sources)
        raise ValueError(f"remove={', '.join(unknown)} is no source of {config.output}, which has {known}")
    for name in config.remove:
        found = [source.vectors for source in before.sources if _is(source, name)]
        if len(found) > 1:
            raise ValueError(
                f"remove={name} is both {found[0]} and {found[1]}, the one by its name in the index and the other by "
                "its path from here: give the whole path"
            )
    kept = tuple(source for source in before.sources if not any(_is(source, name) for name in config.remove))
    for source in () if config.rebuild else kept:
        _refuse_changed(source)
    return kept, tuple(named([VectorManifest.load(uri) for uri in config.add], kept))


def _is(source: IndexSource, name: str) -> bool:
    return name == source.name or storage.absolute(name) == source.vectors


def _refuse_changed(source: IndexSource) -> None:
    """Refuse a source whose vectors have changed since they were indexed; a missing source is not compared."""
    try:
        digest = vectors_digest(VectorManifest.load(source.vectors))
    except FileNotFoundError as error:
        logger.warning("%s is not compared with the index: %s", source.vectors, error)
        return
    if digest != source.digest:
        raise ValueError(
            f"the vectors of {source.vectors} have changed since they were indexed: make the index anew with --rebuild"
        )


def _reread(sources: Sequence[IndexSource]) -> tuple[VectorSource, ...]:
    return tuple(VectorSource(source.name, VectorManifest.load(source.vectors)) for source in sources)


def _with_training(plan: IndexPlan, live: IndexManifest | None) -> IndexPlan:
    """Decide whether the index is trained again.

    An exact index is fitted again whenever a source is added or removed. This takes seconds, and the index equals one
    made from these sources at once. Lists are kept until the index has twice or half as many vectors.

    Args:
        plan: the plan so far.
        live: index that is rebuilt, which searches use meanwhile.
    """
    config, before = plan.config, plan.before
    if before is not None:
        then, now = before.trained, plan.num_vectors
        same = (*plan.kept, *plan.built) == before.sources
        as_large = then.num_vectors / _OTHER_SIZE <= now <= then.num_vectors * _OTHER_SIZE
        if same or (then.kind == kind_for(config, now) != "exact" and as_large):
            return replace(plan, training=then.id)
        plan = replace(plan, kept=(), built=(*_reread(plan.kept), *plan.built))
    inputs: list[object] = [settings_of(config), [source.digest for source in plan.built]]
    if live is not None and _id_of(inputs) == live.trained.id:
        inputs.append(live.trained.id)  # another folder, because other versions of packages may give other bytes
    return replace(plan, training=_id_of(inputs))


def _id_of(inputs: list[object]) -> str:
    return storage.sha256(json.dumps(inputs, sort_keys=True).encode())[:12]


def settings_of(config: IndexConfig) -> dict[str, object]:
    """Return the settings that decide an index."""
    return config.model_dump(mode="json", exclude={"vectors", "output", "add", "remove", "rebuild"})
