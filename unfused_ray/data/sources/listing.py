"""The listing of a whole source."""

from __future__ import annotations

import ray

from unfused_ray.data.shards.parallel import run_bounded
from unfused_ray.data.sources.archives import list_parquet, list_tar
from unfused_ray.data.sources.find import Source, list_audio, list_csv
from unfused_ray.data.sources.items import Listing, combine
from unfused_ray.progress import Progress


def list_source(source: Source) -> Listing:
    """All clips of a source: archives in parallel tasks, which see many small parts of big files.

    Only archives (tar and Parquet) need an open Ray session.

    Raises:
        ValueError: a CSV or Parquet file lacks a column that is needed.
        OSError: an object store does not answer.
    """
    if source.kind == "audio":
        return combine([list_audio(source)])
    if source.kind == "csv":
        return combine([list_csv(uri, len(source.files) > 1) for uri in source.files])
    listings: list[Listing] = [Listing.from_rows([])] * len(source.files)
    arguments = ((source.kind, uri) for uri in source.files)
    with (
        Progress("listing", len(source.files), f"{source.kind} files") as bar,
        run_bounded(_list_archive, arguments) as results,
    ):
        for done, (index, listing) in enumerate(results, start=1):
            listings[index] = listing
            bar.update(done)
    return combine(listings)


@ray.remote(num_cpus=1, max_retries=3, retry_exceptions=[OSError])
def _list_archive(kind: str, uri: str) -> Listing:
    return list_tar(uri) if kind == "tar" else list_parquet(uri)
