"""The page of the benchmarks' results: what it says of each figure, and what of it survives being made anew."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

PAGE = Path(__file__).parent.parent / "benchmarks" / "page.py"


def write_result(path: Path, title: str, *figures: tuple[str, float, str, str]) -> None:
    """A benchmark's result: name, median, unit and reach of each figure."""
    path.parent.mkdir(parents=True, exist_ok=True)
    machine = {"processor": "a fast one", "cores": 2, "memory_gb": 24.0, "gpu": None, "versions": {"torch": "2.14"}}
    entries = [
        {"name": name, "value": value, "unit": unit, "low": value / 2, "high": value * 2, "reach": reach}
        for name, value, unit, reach in figures
    ]
    record = {"title": title, "date": "2026-11-22", "command": f"python benchmarks/{title}.py", "machine": machine}
    path.write_text(json.dumps({**record, "figures": entries}))


def make_page(folder: Path) -> subprocess.CompletedProcess[str]:
    """Run the script on ``folder``, whose page is page.md."""
    paths = ["--results", folder / "bench", "--page", folder / "page.md", "--before", folder / "before.json"]
    command = [sys.executable, str(PAGE), *map(str, paths)]
    return subprocess.run(command, check=False, capture_output=True, text=True)


def test_the_page_has_every_figure_and_says_which_reach_is_met(tmp_path: Path) -> None:
    write_result(
        tmp_path / "bench" / "step.json", "step", ("ours | plain", 1.4, "×", "≥ 1.5"), ("  conv", 61.0, "%", "")
    )
    write_result(tmp_path / "bench" / "stream.json", "stream", ("decoded", 2345.6, "clips/s", "≥ 1,500 a core"))
    write_result(tmp_path / "bench" / "start.json", "start", ("in-process", 12.0, "s", "≤ 12"))
    (tmp_path / "page.md").write_text("# Title\n\nBy hand, before.\n")
    assert make_page(tmp_path).returncode == 0
    page = (tmp_path / "page.md").read_text()
    step, stream, start = (f"`python benchmarks/{name}.py`" for name in ("step", "stream", "start"))
    lines = page.splitlines()
    summary = [line for line in lines if line.endswith(" |") and "`python" in line]
    assert summary == [
        f"| decoded | 2,346 clips/s | 1,173 to 4,691 | ≥ 1,500 a core | yes | {stream} |",
        f"| ours \\| plain | 1.4 × | 0.7 to 2.8 | ≥ 1.5 | **no** | {step} |",
        f"| in-process | 12 s | 6 to 24 | ≤ 12 | yes | {start} |",
    ]
    assert "| &emsp;conv | 61 % | 30.5 to 122 |  |  |" in lines
    assert f"{step}, 2026-11-22; a fast one, 2 cores, 24 GB; torch 2.14" in lines
    assert [line for line in lines if line.startswith("### ")] == ["### stream", "### step", "### start"]


def test_what_is_written_by_hand_survives(tmp_path: Path) -> None:
    write_result(tmp_path / "bench" / "step.json", "step", ("ours", 1.4, "×", ""))
    (tmp_path / "page.md").write_text("# Title\n\nBy hand, before.\n")
    assert make_page(tmp_path).returncode == 0
    first = (tmp_path / "page.md").read_text()
    assert first.startswith("# Title\n\nBy hand, before.\n")
    assert make_page(tmp_path).returncode == 0
    assert (tmp_path / "page.md").read_text() == first
    (tmp_path / "page.md").write_text(first + "\nBy hand, after.\n")
    write_result(tmp_path / "bench" / "step.json", "step", ("ours", 1.6, "×", ""))
    assert make_page(tmp_path).returncode == 0
    page = (tmp_path / "page.md").read_text()
    assert page == first.replace("| 1.4 × | 0.7 to 2.8 |", "| 1.6 × | 0.8 to 3.2 |") + "\nBy hand, after.\n"


def test_a_page_with_one_mark_is_left_as_it_is(tmp_path: Path) -> None:
    write_result(tmp_path / "bench" / "step.json", "step", ("ours", 1.4, "×", ""))
    assert make_page(tmp_path).returncode == 0
    broken = (tmp_path / "page.md").read_text().replace("<!-- end", "<!-- and")
    (tmp_path / "page.md").write_text(broken)
    assert make_page(tmp_path).returncode == 1
    assert (tmp_path / "page.md").read_text() == broken


def test_the_chart_shows_stages_before_and_after(tmp_path: Path) -> None:
    stages = (
        ("stage: training", 30.0, "s", ""),
        ("stage: waiting for data", 2.0, "s", ""),
        ("rate", 50.0, "clips/s", ""),
    )
    write_result(tmp_path / "bench" / "end_to_end.json", "end_to_end", *stages)
    write_result(tmp_path / "before.json", "end_to_end", ("stage: training", 60.0, "s", ""))
    assert make_page(tmp_path).returncode == 0
    assert (tmp_path / "end_to_end.png").read_bytes().startswith(b"\x89PNG")
    assert "](end_to_end.png)" in (tmp_path / "page.md").read_text()


def test_without_results_there_is_no_page(tmp_path: Path) -> None:
    finished = make_page(tmp_path)
    assert finished.returncode == 1
    assert "run make bench" in finished.stderr
    assert not (tmp_path / "page.md").exists()
