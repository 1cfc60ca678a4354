"""Folders in which a job has begun."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from unfused_ray.data.parts.ledger import refuse_occupied


@pytest.mark.parametrize(
    ("mark", "kind"),
    [
        ("manifest.json", "a prepared source, or the vectors of an embedding"),
        ("_ingest/plan.json", "an unfinished prepared source"),
        ("_embed/plan.json", "an unfinished embedding"),
        ("index.json", "a search index"),
        ("run.json", "a run"),
        ("sweep.json", "a sweep"),
        ("evaluation.json", "an evaluation"),
        ("export.json", "an export"),
    ],
)
def test_a_folder_in_which_a_job_has_begun_is_refused_by_name(mark: str, kind: str, tmp_path: Path) -> None:
    refuse_occupied(str(tmp_path))
    refuse_occupied(str(tmp_path / "not there"))
    (tmp_path / mark).parent.mkdir(exist_ok=True)
    (tmp_path / mark).write_text("{}")
    with pytest.raises(ValueError, match=re.escape(f"holds {mark}: it is {kind}, whose files would be mixed")):
        refuse_occupied(str(tmp_path))
