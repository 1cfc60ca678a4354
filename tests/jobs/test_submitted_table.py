"""The results table as a job submitted to a cluster, as in the guide for clusters."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from support.heads import started_head
from support.paths import ROOT
from support.tasks import write_task


@pytest.mark.slow  # over two minutes: a head node, and processes for three trainings and four evaluations
def test_the_tiny_table_is_submitted_to_a_head_node_and_written(tmp_path: Path) -> None:
    for name in ("drums", "languages"):
        groups = [f"{name} {clip // 2}" for clip in range(54)]
        write_task(tmp_path / "shards" / name, 34, 8, 12, group=groups)
    output = tmp_path / "table"
    with started_head(num_cpus=2) as head:
        submit = ["ray", "job", "submit", "--address", f"http://127.0.0.1:{head.ports['dashboard-port']}"]
        submit += ["--working-dir", str(ROOT), "--", "env", f"UNFUSED_RAY_HOME={tmp_path / 'home'}"]
        job = ["python", "jobs/compare.py", "tiny", "--data-root", str(tmp_path / "shards"), "--output", str(output)]
        done = subprocess.run([*submit, *job], env=head.environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    table = json.loads((output / "table.json").read_text())
    assert {"log-mel statistics", "DECAR-v2", "UnFuSeD"} < {row["row"]["name"] for row in table["rows"]}
    assert len(table["comparisons"]) == 2
    assert "| UnFuSeD" in done.stdout
