"""Folders in which a job has begun are known by the files that the jobs themselves name."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from unfused_ray.data.parts.ledger import refuse_occupied
from unfused_ray.data.shards.format import MANIFEST
from unfused_ray.data.shards.layout import REPORTS as PREPARING
from unfused_ray.embedding.job import _REPORTS as EMBEDDING
from unfused_ray.evaluation.table import RECORD as EVALUATION
from unfused_ray.exports.job import RECORD as EXPORT
from unfused_ray.retrieval.format import INDEX
from unfused_ray.runs.run import RECORD as RUN
from unfused_ray.sweeps import SWEEP


@pytest.mark.parametrize(
    ("mark", "kind"),
    [
        (MANIFEST, "a prepared source, or the vectors of an embedding"),
        (f"{PREPARING}/plan.json", "an unfinished prepared source"),
        (f"{EMBEDDING}/plan.json", "an unfinished embedding"),
        (INDEX, "a search index"),
        (RUN, "a run"),
        (SWEEP, "a sweep"),
        (EVALUATION, "an evaluation"),
        (EXPORT, "an export"),
    ],
)
def test_a_folder_in_which_a_job_has_begun_is_refused_by_name(mark: str, kind: str, tmp_path: Path) -> None:
    refuse_occupied(str(tmp_path))
    refuse_occupied(str(tmp_path / "not there"))
    (tmp_path / mark).parent.mkdir(exist_ok=True)
    (tmp_path / mark).write_text("{}")
    with pytest.raises(ValueError, match=re.escape(f"holds {mark}: it is {kind}, whose files would be mixed")):
        refuse_occupied(str(tmp_path))
