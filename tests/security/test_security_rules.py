"""Ruff, as in `make check`, refuses every way to unpickle, to evaluate text or to use a shell."""

from __future__ import annotations

import subprocess
import sys

from support.paths import ROOT

REFUSED = """
import marshal, os, pickle, subprocess
import cloudpickle  # refused as an import (as no other here)
import joblib
import numpy as np
import pyarrow.parquet as pq
import torch
import yaml

pickle.loads(b"")
joblib.load("x")
marshal.loads(b"")
torch.load("x")
np.load("x", allow_pickle=True)
pq.read_table("x")
yaml.load("x")
eval("1")
exec("1")
os.system("x" + __name__)
os.execl("/bin/x", "x")
subprocess.run("x" + __name__, shell=True)
"""


def test_every_way_to_run_what_a_file_or_an_argument_says_is_refused() -> None:
    for package in ("unfused_ray", "jobs", "tuning"):
        command = [sys.executable, "-m", "ruff", "check", "--no-cache", "--output-format", "concise"]
        ran = subprocess.run(
            [*command, "--stdin-filename", f"{package}/x.py", "-"],
            cwd=ROOT,
            input=REFUSED,
            capture_output=True,
            text=True,
            check=False,
        )
        lines = {int(line.split(":")[1]) for line in ran.stdout.splitlines() if " S" in line or "TID251" in line}
        wanted = {number for number, line in enumerate(REFUSED.splitlines(), 1) if "(" in line}
        assert lines >= wanted, (package, wanted - lines, ran.stdout, ran.stderr)
