"""The exit code of a command tells how its work ended, whatever happens to standard output and error."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.table import Table
from support.terminal import Ended

from unfused_ray.cli.streams import outlived
from unfused_ray.cli.terminal import say, show

ODD = "1 × 2 → ü, \udce4"
"""Text with characters that ASCII and Latin-1 lack, and a byte of a file name that is not UTF-8."""


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "utf-8"])
def test_what_an_encoding_lacks_is_escaped(monkeypatch: pytest.MonkeyPatch, encoding: str) -> None:
    bytes_out = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(bytes_out, encoding=encoding))
    table = Table("name", title=ODD)
    table.add_row(ODD)
    with outlived():
        show(table)
        say(ODD)
    *_, last = bytes_out.getvalue().splitlines()
    assert last == ODD.encode(encoding, "backslashreplace")


@pytest.fixture
def stdout_to(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], io.TextIOWrapper]:
    """Return a function that makes a file descriptor standard output, buffered as for a pipe."""

    def replace(descriptor: int) -> io.TextIOWrapper:
        stream = os.fdopen(descriptor, "w", encoding="utf-8")
        monkeypatch.setattr(sys, "stdout", stream)
        return stream

    return replace


def test_a_reader_that_goes_away_is_no_error_and_nothing_to_say(
    stdout_to: Callable[[int], io.TextIOWrapper], capsys: pytest.CaptureFixture[str]
) -> None:
    read, write = os.pipe()
    stream = stdout_to(write)
    with outlived():
        say("somebody reads this")
        sys.stdout.flush()
        os.close(read)
        for _ in range(3):
            say("nobody reads this" * 1000)
            sys.stdout.flush()
    stream.close()  # as Python does at exit, with text still in the buffer
    assert capsys.readouterr().err == ""


def test_a_full_disk_behind_standard_output_is_said_once(
    stdout_to: Callable[[int], io.TextIOWrapper], capsys: pytest.CaptureFixture[str]
) -> None:
    stream = stdout_to(os.open("/dev/full", os.O_WRONLY))
    with outlived():
        for _ in range(3):
            say("this does not fit" * 1000)
    stream.close()
    message = "standard output cannot be written ([Errno 28] No space left on device): the job continues"
    assert capsys.readouterr().err.startswith(message)


def test_commands_end_with_their_own_code(tmp_path: Path) -> None:
    """Cases: closed streams, a full device, a pipe to head, and a terminal without UTF-8."""
    (tmp_path / "ü →").mkdir()
    command = f"{sys.executable} -m unfused_ray"
    ascii_only = "PYTHONIOENCODING=ascii PYTHONUTF8=0 PYTHONCOERCECLOCALE=0 LC_ALL=C"
    script = f"""
set -o pipefail
{command} prepare --help | head -n 1 || exit 11
{command} train 2> /dev/full; [ $? = 2 ] || exit 12
{command} --help >&- 2>&- || exit 13
{ascii_only} {command} runs '{tmp_path}/ü →' || exit 14
"""
    ended = subprocess.run(["bash", "-c", script], capture_output=True, check=False)
    assert (ended.returncode, ended.stderr) == (0, b"")
    assert ended.stdout.startswith(b"usage: unfused-ray prepare")


def test_a_printed_configuration_is_a_recipe_in_any_encoding(
    command_line: Callable[..., Ended], tmp_path: Path
) -> None:
    ended = command_line("prepare", "--source", "ü →", "--print-config")
    assert ended.out.isascii()
    (tmp_path / "mine.json").write_text(ended.out)
    assert command_line("prepare", str(tmp_path / "mine.json"), "--print-config").out == ended.out
