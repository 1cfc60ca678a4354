"""Progress is readable in a job's log and on a terminal."""

from __future__ import annotations

import io
import logging

import pytest
from rich.console import Console
from rich.table import Table
from support.terminal import text_of

from unfused_ray import logs, progress
from unfused_ray.cli.terminal import say, show
from unfused_ray.progress import Progress, described, plain_console, summary


def test_a_log_gets_a_line_every_few_seconds_and_at_the_end(monkeypatch: pytest.MonkeyPatch):
    clock = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    log = io.StringIO()
    with Progress("ingest", total=200, unit="clips", console=Console(file=log)) as bar:
        for done in range(10, 201, 10):
            clock[0] += 2
            bar.update(done, rejected=3, loss=0.123456)
    lines = log.getvalue().splitlines()
    assert lines[0] == "ingest: 50/200 clips (25%), 30 s left, 5.0 clips/s  rejected 3  loss 0.1235"
    assert [line.split()[1] for line in lines] == ["50/200", "100/200", "150/200", "200/200"]


def test_a_slow_job_shows_its_rate_and_the_hours_that_are_left(monkeypatch: pytest.MonkeyPatch):
    clock = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    log = io.StringIO()
    with Progress("training", total=400, unit="steps", console=Console(file=log)) as bar:
        clock[0] += 42
        bar.update(1)
    assert log.getvalue() == "training: 1/400 steps (0%), 4:39:18 left, 0.024 steps/s\n"


def test_a_share_is_shown_once_and_without_a_rate(monkeypatch: pytest.MonkeyPatch):
    clock = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    log, screen = io.StringIO(), io.StringIO()
    for console in (Console(file=log), Console(file=screen, force_terminal=True, width=120)):
        with Progress("embedding every clip", total=100, unit="%", console=console) as bar:
            clock[0] += 20
            bar.update(25)
            bar.update(50, loss=0.5)
    assert log.getvalue() == "embedding every clip: 25%, 60 s left\n"
    assert "50%" in screen.getvalue()
    assert "/100" not in screen.getvalue()
    assert "%/s" not in screen.getvalue()


def test_a_terminal_gets_one_bar():
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=120)
    with Progress("ingest", total=4, unit="clips", console=console) as bar:
        bar.update(4, rejected=1)
    assert "4/4" in screen.getvalue()
    assert "rejected 1" in screen.getvalue()
    assert "left" not in screen.getvalue()


def test_a_summary_shows_every_figure():
    text = text_of(summary("prepared x", {"clips": 12345, "hours": 1.23456, "where": "there"}))
    assert [word in text for word in ("prepared x", "12,345", "1.235", "there")] == [True] * 4


def test_no_path_is_cut_in_a_narrow_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setenv("COLUMNS", "40")
    path = "/" + "".join(f"{number:02}" for number in range(60))
    table = described(path)
    table.add_row("", path)
    show(table)
    shown = "".join(character for character in capsys.readouterr().out if character.isdigit() or character == "/")
    assert shown == 2 * path


def test_paths_are_printed_as_they_are(capsys: pytest.CaptureFixture[str]):
    name = "/data/[red]x[/y]/:warning:"
    table = Table("run", title=name)
    table.add_row(name)
    show(table)
    show(summary(name, {name: name}))
    say(name)
    with Progress(name, total=1, unit="clips", console=plain_console(force_terminal=True, width=200)) as bar:
        bar.update(1, row=name)
    assert capsys.readouterr().out.count(name) >= 8  # a bar may be drawn twice


def test_a_record_does_not_break_a_bar_that_is_on(monkeypatch: pytest.MonkeyPatch):
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=120)
    monkeypatch.setattr(progress, "terminal", lambda: console)
    monkeypatch.setattr(logs, "terminal", lambda: console)
    root, package = logging.getLogger(), logging.getLogger(logs.PACKAGE)
    monkeypatch.setattr(root, "handlers", [])
    for logger in (root, package):
        monkeypatch.setattr(logger, "level", logger.level)
    logs.configure()
    with Progress("ingest", total=4, unit="clips") as bar:
        bar.update(1)
        bar._bar.refresh()
        package.warning("a clip is damaged")
    before = screen.getvalue().partition("a clip is damaged")[0].rpartition("ingest")[2]
    assert "\x1b[2K" in before  # the bar is erased before the record
