"""The page of benchmark results: its text for each figure, and the parts that survive when it is written again."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from support.paths import ROOT

from benchmarks import measure

WriteResult = Callable[..., None]


@pytest.fixture
def write_result(monkeypatch: pytest.MonkeyPatch) -> WriteResult:
    """Return a function that writes a benchmark's result: folder, title, then name, median, unit, reach a figure."""

    def write(folder: Path, title: str, *figures: tuple[str, float, str, str]) -> None:
        monkeypatch.setattr(measure, "command", lambda: f"python -m benchmarks.speed.{title}")
        lines = [measure.Figure(name, value, unit, value / 2, value * 2, reach) for name, value, unit, reach in figures]
        measure.report(title, lines, folder)

    return write


def make_page(folder: Path) -> subprocess.CompletedProcess[str]:
    """Run the script on ``folder``; the page is page.md."""
    paths = {"--results": "bench", "--page": "page.md", "--before": "before/end_to_end.json"}
    arguments = [text for option, name in paths.items() for text in (option, str(folder / name))]
    command = [sys.executable, "-m", "benchmarks.speed.page", *arguments]
    return subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)


def test_the_page_has_every_figure_and_says_which_reach_is_met(tmp_path: Path, write_result: WriteResult) -> None:
    write_result(tmp_path / "bench", "step", ("ours | plain", 1.4, "×", "≥ 1.5"), ("  conv", 61.0, "%", ""))
    write_result(tmp_path / "bench", "stream", ("decoded", 2345.6, "clips/s", "≥ 1,500 a core"))
    write_result(tmp_path / "bench", "start", ("in-process", 12.0, "s", "≤ 12"))
    write_result(tmp_path / "bench", "kmeans", ("ours", 2.0, "×", "≤ 1.05"))
    assert make_page(tmp_path).returncode == 0
    lines = (tmp_path / "page.md").read_text().splitlines()
    summary = lines[: lines.index("### stream")]
    assert "2 of 4 targets are met." in summary
    assert [line for line in summary if line.endswith("**no** |")] == [
        "| ours \\| plain | 1.4 × | 0.7 to 2.8 | ≥ 1.5 | **no** |",
        "| ours | 2 × | 1 to 4 | ≤ 1.05 | **no** |",
    ]
    assert "| decoded | 2,346 clips/s | 1,173 to 4,691 | ≥ 1,500 a core | yes |" in lines
    assert "| &emsp;conv | 61 % | 30.5 to 122 |  |  |" in lines
    assert [line for line in lines if line.startswith("### ")] == ["### stream", "### step", "### kmeans", "### start"]
    sources = [line for line in lines if line.startswith("`python")]
    assert len(sources) == 4
    assert all(re.search(r"`, \d{4}-\d\d-\d\d \d\d:\d\d UTC; .* cores, .* GB.*; .*torch 2", line) for line in sources)


def test_what_is_written_by_hand_survives(tmp_path: Path, write_result: WriteResult) -> None:
    write_result(tmp_path / "bench", "step", ("ours", 1.4, "×", ""))
    page = tmp_path / "page.md"
    page.write_text("# Title\n\nBy hand, before.\n")
    assert make_page(tmp_path).returncode == 0
    first = page.read_text()
    assert first.startswith("# Title\n\nBy hand, before.\n")
    assert make_page(tmp_path).returncode == 0
    assert page.read_text() == first
    page.write_text(first + "\nBy hand, after.\n")
    write_result(tmp_path / "bench", "step", ("ours", 1.6, "×", ""))
    assert make_page(tmp_path).returncode == 0
    assert page.read_text().startswith("# Title\n\nBy hand, before.\n")
    assert page.read_text().endswith("\nBy hand, after.\n")
    assert "| ours | 1.6 × | 0.8 to 3.2 |" in page.read_text()
    assert "1.4 ×" not in page.read_text()


def test_a_benchmark_that_was_not_run_again_keeps_its_figures(tmp_path: Path, write_result: WriteResult) -> None:
    write_result(tmp_path / "bench", "step", ("ours | plain", 1.4, "×", "≥ 1.5"), ("conv", 61.0, "%", ""))
    stages = (("stage: training", 30.0, "s", ""), ("rate", 50.0, "clips/s", "≥ 40"))
    write_result(tmp_path / "bench", "end_to_end", *stages)
    assert make_page(tmp_path).returncode == 0
    before, chart = (tmp_path / "page.md").read_text(), (tmp_path / "end_to_end.png").read_bytes()
    for path in (tmp_path / "bench").iterdir():
        path.unlink()
    write_result(tmp_path / "bench", "search", ("query", 0.2, "ms", "≤ 10"))
    assert make_page(tmp_path).returncode == 0
    after = (tmp_path / "page.md").read_text()
    kept = before.replace("1 of 2 targets are met.", "2 of 3 targets are met.").splitlines()
    assert [line for line in kept if line not in after.splitlines()] == []
    assert [line for line in after.splitlines() if line.startswith("### ")] == [
        "### step",
        "### end to end",
        "### search",
    ]
    assert after.count("| query | 0.2 ms |") == 1 and after.count("| rate | 50 clips/s |") == 1
    assert (tmp_path / "end_to_end.png").read_bytes() == chart
    write_result(tmp_path / "bench", "search", ("query", 0.3, "ms", "≤ 10"))
    assert make_page(tmp_path).returncode == 0
    assert (tmp_path / "page.md").read_text().replace("0.3 ms | 0.15 to 0.6", "0.2 ms | 0.1 to 0.4") == after


def test_a_page_with_one_mark_is_left_as_it_is(tmp_path: Path, write_result: WriteResult) -> None:
    write_result(tmp_path / "bench", "step", ("ours", 1.4, "×", ""))
    assert make_page(tmp_path).returncode == 0
    broken = (tmp_path / "page.md").read_text().replace("<!-- end", "<!-- and")
    (tmp_path / "page.md").write_text(broken)
    assert make_page(tmp_path).returncode == 1
    assert (tmp_path / "page.md").read_text() == broken


def test_the_chart_shows_stages_before_and_after(tmp_path: Path, write_result: WriteResult) -> None:
    stages = (("stage: training", 30.0, "s", ""), ("stage: waiting", 2.0, "s", ""), ("rate", 50.0, "clips/s", ""))
    write_result(tmp_path / "bench", "end_to_end", *stages)
    write_result(tmp_path / "before", "end_to_end", ("stage: training", 60.0, "s", ""))
    assert make_page(tmp_path).returncode == 0
    assert (tmp_path / "end_to_end.png").read_bytes().startswith(b"\x89PNG")
    assert "](end_to_end.png)" in (tmp_path / "page.md").read_text()


def test_without_results_there_is_no_page(tmp_path: Path) -> None:
    finished = make_page(tmp_path)
    assert finished.returncode == 1
    assert "run make bench" in finished.stderr
    assert not (tmp_path / "page.md").exists()
