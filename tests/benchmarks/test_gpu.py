"""The GPU benchmark script on a processor with toy sizes, and the section of the page made from its result."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from support.paths import ROOT

from benchmarks.gpu import __main__ as gpu
from benchmarks.gpu import ceilings, page

BARE = """
import sys

class Without:
    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in sys.argv[1].split(","):
            return self.finder.find_spec(name, path, target)

sys.meta_path[:] = map(Without, sys.meta_path)
from benchmarks.gpu.__main__ import main
raise SystemExit(main(sys.argv[2:]))
"""
"""Runs the script as on a machine without some packages: no finder finds them."""
PACKAGES = "ray,soundfile,soxr,faiss,pyarrow,mlflow,av,scipy,sklearn,joblib,rich,psutil,matplotlib,tyro,pytest"
QUICK = ["ceilings", "step", "clustering", "embedding", "curves", "end to end", "graph", "inductor", "search"]
"""All parts of the script but the tests, which the suite runs anyway."""
COMPILED = {"graph": "a CUDA graph needs a GPU", "inductor": "a small run does not have"}


@pytest.mark.usefixtures("ray_session")
def test_the_whole_script_runs_on_a_processor(tmp_path: Path) -> None:
    output = tmp_path / "gpu.json"
    arguments = ["--device", "cpu", "--small", "--output", str(output), "--commit", "abc", "--parts", *QUICK]
    assert gpu.main(arguments) == 0
    result = json.loads(output.read_text())
    assert (result["title"], result["commit"], result["card"]) == ("gpu", "abc", None)
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d UTC", result["date"])
    assert list(result["parts"]) == QUICK
    rounding = 0.05 * (len(QUICK) + 1)  # each number is rounded
    assert 0 < sum(part["seconds"] for part in result["parts"].values()) <= result["seconds"] + rounding
    for name, part in result["parts"].items():
        if name in COMPILED:
            assert COMPILED[name] in part["set_aside"]
            continue
        assert part["figures"], name
        for figure in part["figures"]:
            assert set(figure) == {"name", "value", "unit", "low", "high", "reach"}
            assert isinstance(figure["value"], int | float)
    with pytest.raises(ValueError, match="a result without card is not for the page"):
        page.section(result)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("missing", "measured"),
    [
        ("av", {"ceilings", "tests", "step", "embedding", "clustering", "curves", "search"}),
        (PACKAGES, {"ceilings", "step", "embedding", "clustering"}),
        (f"{PACKAGES},pydantic", {"ceilings", "clustering"}),
    ],
)
def test_a_bare_machine_measures_what_it_can(missing: str, measured: set[str], tmp_path: Path) -> None:
    output = tmp_path / "gpu.json"
    command = [sys.executable, "-c", BARE, missing, "--device", "cpu", "--small", "--output", str(output)]
    ended = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    parts = json.loads(output.read_text())["parts"]
    assert {name for name, part in parts.items() if "figures" in part} == measured
    for name in parts.keys() - measured - COMPILED.keys():
        assert "No module named" in parts[name]["set_aside"]


@pytest.fixture
def result() -> dict[str, Any]:
    """A result as a GPU would give it."""
    figures = [{"name": "step", "value": 9876.0, "unit": "clips/s", "low": 9800.0, "high": 9900.0, "reach": ""}]
    return {
        "title": "gpu",
        "date": "2026-12-01 10:00 UTC",
        "command": "python -m benchmarks.gpu",
        "commit": "0123456789ab",
        "card": {"name": "NVIDIA H100", "memory_gb": 80.0, "driver": "575.1", "cuda": "13.0"},
        "machine": {"processor": "a processor", "cores": 16, "versions": {"torch": "2.14.1"}},
        "seconds": 400.0,
        "parts": {"step": {"figures": figures}, "search": {"set_aside": "No module named 'faiss'"}},
    }


def test_a_section_says_what_it_was_measured_on_and_what_was_left_out(result: dict[str, Any]) -> None:
    text = page.section(result)
    assert text.startswith(
        "Measured on **NVIDIA H100** (80 GB, driver 575.1, CUDA 13.0), 2026-12-01 10:00 UTC, at commit `0123456789ab`"
    )
    assert "| step | 9,876 clips/s | 9,800 to 9,900 |  |  |" in text
    assert "### search\n\nNo figures: No module named 'faiss'." in text
    for name in ("card", "date", "commit"):
        with pytest.raises(ValueError, match=f"a result without {name}"):
            page.section({**result, name: ""})
    with pytest.raises(ValueError, match="of changed files"):
        page.section({**result, "commit": "0123456789ab+"})


def test_a_commit_is_marked_where_files_have_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "ROOT", tmp_path)
    assert gpu.commit() == ""
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a"]
    (tmp_path / "file").write_text("one")
    for words in (["init", "-q"], ["add", "file"], ["commit", "-qm", "one"]):
        subprocess.run([*git, *words], check=True)
    clean = gpu.commit()
    assert re.fullmatch(r"[0-9a-f]{12}", clean)
    (tmp_path / "file").write_text("two")
    assert gpu.commit() == clean + "+"


def test_a_part_that_takes_too_long_is_broken_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ceilings, "measure", lambda device, small: time.sleep(60))
    part = gpu.run_part("ceilings", torch.device("cpu"), True, seconds=0.1)
    assert part["set_aside"] == "broken off: 480 s are over"
    assert part["seconds"] < 30


def test_the_page_has_no_figure_of_a_gpu_without_card_date_and_commit() -> None:
    written = (ROOT / "docs/performance.md").read_text()
    ours = written[written.index(page.BEGIN) + len(page.BEGIN) : written.index(page.END)].strip()
    card = r"Measured on \*\*[^*]+\*\* \([\d.]+ GB, driver [^,]+, CUDA [\d.]+\)"
    known = card + r", [\d-]+ [\d:]+ UTC, at commit `[0-9a-f]{7,}`"
    assert ours == page.NOT_RUN or re.match(known, ours)
    assert ("|" in ours) == (ours != page.NOT_RUN)
