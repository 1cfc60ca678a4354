"""Lists the clips of a whole source."""

from __future__ import annotations

from collections.abc import Callable

from unfused_ray import storage
from unfused_ray.data.parts.executor import Executor
from unfused_ray.data.sources.csv_files import list_csv
from unfused_ray.data.sources.find import Kind, Source
from unfused_ray.data.sources.hub_parquet import list_parquet
from unfused_ray.data.sources.items import Listing, combine
from unfused_ray.data.sources.tar import list_tar
from unfused_ray.progress import Progress

ARCHIVES: dict[Kind, Callable[[str], Listing]] = {"tar": list_tar, "parquet": list_parquet}
"""Lists the clips of one archive, by its kind."""


def list_source(source: Source, executor: Executor) -> Listing:
    """List all clips of a source without reading their audio.

    Args:
        source: its files.
        executor: lists archives, of which many small parts are read.

    Raises:
        ValueError: a CSV or Parquet file lacks a column that is needed.
        OSError: an object store does not answer.
    """
    if source.kind == "audio":
        return combine([list_audio(source)])
    if source.kind == "csv":
        return combine([list_csv(uri, len(source.files) > 1) for uri in source.files])
    listings: list[Listing] = [Listing.from_rows([])] * len(source.files)
    with (
        executor.open(),
        Progress("listing", len(source.files), f"{source.kind} files") as bar,
        executor.run(ARCHIVES[source.kind], ((uri,) for uri in source.files)) as results,
    ):
        for done, (number, listing) in enumerate(results, start=1):
            listings[number] = listing
            bar.update(done)
    return combine(listings)


def list_audio(source: Source) -> Listing:
    """List audio files; a clip's key is its path within the source."""
    return Listing.from_rows([{"key": storage.relative(uri, source.folder), "uri": uri} for uri in source.files])
