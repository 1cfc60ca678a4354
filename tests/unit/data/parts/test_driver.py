"""A job that writes in parts: one process at a time, resumed after an interruption, a manifest once it is whole."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from support.processes import wait_for

from unfused_ray import storage
from unfused_ray.data.parts.driver import PartedJob, run_parts, write_parts
from unfused_ray.data.parts.executor import InThisProcess, TaskEndedError
from unfused_ray.data.parts.ledger import Ledger, PartReport, refuse_difference
from unfused_ray.data.parts.rejects import REJECTS, Reject
from unfused_ray.lease import InUseError, Lease
from unfused_ray.progress import Progress


@dataclass(frozen=True)
class Text:
    """The file of a part; its clips are letters."""

    file: str
    sha256: str
    num_clips: int


@dataclass(frozen=True)
class Writer:
    """Writes the letters of a part in capitals; digits are set aside."""

    output: str

    def __call__(self, number: int, part: str) -> PartReport[Text]:
        good = "".join(clip for clip in part if clip.isalpha()).upper()
        rejects = tuple(Reject(clip, "digit", "it is no letter") for clip in part if not clip.isalpha())
        if not good:
            return PartReport(None, rejects)
        path = Path(self.output) / f"{number}.txt"
        if path.exists():
            raise AssertionError(f"{path} is written again")
        storage.write_bytes(str(path), good.encode())
        return PartReport(Text(path.name, storage.sha256(good.encode()), len(good)), rejects)


def job(output: Path, parts: tuple[str, ...] = ("ab1", "2", "cd"), plan: str = "plan") -> PartedJob[str, Text]:
    ledger = Ledger(str(output), "_reports", "letters", {"plan": plan}, plan)
    sizes, lost = [len(part) for part in parts], [Reject("?", "lost", "")]
    return PartedJob("letters", ledger, parts, sizes, lost, Writer(str(output)), Text)


@dataclass(frozen=True)
class Signature:
    """The manifest of an output."""

    path: Path
    content: dict[str, Any]

    def save(self) -> None:
        self.path.write_text(json.dumps(self.content))


def write(output: Path, on_describe: Callable[[], object] = lambda: None, **changes: Any) -> dict[str, Any]:
    file = output / "manifest.json"

    def describe(files: tuple[Text, ...], rejects: dict[str, int], warnings: dict[str, int]) -> Signature:
        on_describe()
        return Signature(file, {"files": [asdict(file) for file in files], "rejects": rejects})

    def finished() -> Signature | None:
        return Signature(file, json.loads(file.read_text())) if file.exists() else None

    return write_parts(job(output, **changes), InThisProcess(), finished, describe).content


def test_an_output_is_its_parts_its_rejects_and_its_manifest(tmp_path: Path) -> None:
    manifest = write(tmp_path)
    assert [(file["file"], file["num_clips"]) for file in manifest["files"]] == [("0.txt", 2), ("2.txt", 2)]
    assert manifest["rejects"] == {"digit": 2, "lost": 1}
    assert pq.read_table(tmp_path / REJECTS)["key"].to_pylist() == ["?", "1", "2"]
    assert {path.name: path.read_bytes() for path in tmp_path.glob("*.txt")} == {"0.txt": b"AB", "2.txt": b"CD"}
    assert {path.name for path in tmp_path.iterdir()} == {"0.txt", "2.txt", REJECTS, "manifest.json"}
    assert write(tmp_path) == manifest  # as if another process had finished it meanwhile


@contextmanager
def interrupted_after(monkeypatch: pytest.MonkeyPatch, parts: int) -> Any:
    update, calls = Progress.update, []

    def interrupt(self: Progress, done: int, **figures: float | str) -> None:
        update(self, done, **figures)
        calls.append(done)
        if len(calls) == parts:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Progress, "update", interrupt)
        yield


def test_an_interrupted_job_goes_on_behind_its_finished_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with interrupted_after(monkeypatch, parts=2):
        write(tmp_path)
    assert not (tmp_path / "manifest.json").exists()
    with pytest.raises(ValueError, match=r"made with other settings \(plan: plan there, other asked for\)"):
        write(tmp_path, plan="other")
    assert write(tmp_path)["rejects"] == {"digit": 2, "lost": 1}  # the writer fails if it gets a part again


class Killed(InThisProcess):
    """An executor whose first task is ended from outside."""

    @contextmanager
    def run(self, function: Callable[..., Any], arguments: Iterable[tuple[Any, ...]]) -> Iterator[Iterator[Any]]:
        def end() -> Iterator[Any]:
            raise TaskEndedError("the process of a task was ended")
            yield

        yield end()


def test_a_part_that_was_ended_from_outside_is_told_with_what_goes_on(tmp_path: Path) -> None:
    with pytest.raises(TaskEndedError, match=r"a task was ended\. The same command resumes from the parts that are"):
        run_parts(job(tmp_path), Killed(), threading.Event())


def test_what_another_version_began_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with interrupted_after(monkeypatch, parts=1):
        write(tmp_path)
    begun = tmp_path / "_reports/plan.json"
    begun.write_text(json.dumps({**json.loads(begun.read_text()), "format_version": 0}))
    with pytest.raises(ValueError, match=r"format_version 0, this version reads 2: delete .*, or name another output"):
        write(tmp_path)


def test_without_a_clip_there_is_no_manifest_and_nothing_to_go_on_from(tmp_path: Path) -> None:
    counts = r"\(3 digit, 1 lost\); 3: it is no letter; see "
    with pytest.raises(ValueError, match=f"none of the 3 clips of letters can be used {counts}"):
        write(tmp_path, parts=("12", "3"))
    assert [path.name for path in tmp_path.iterdir()] == [REJECTS]


WAITING = """
import sys
from pathlib import Path
import test_driver

class Waiting(test_driver.Writer):
    def __call__(self, number, part):
        Path(self.output, "writing").touch()
        sys.stdin.read()
        return super().__call__(number, part)

test_driver.Writer = Waiting
test_driver.write(Path(sys.argv[1]))
"""


def test_a_second_process_is_refused_and_told_who_works_on_the_output(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WAITING, str(tmp_path)]
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    with subprocess.Popen(command, stdin=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": path}) as process:
        wait_for(lambda: (tmp_path / "writing").exists() or process.poll())
        before = sorted(path.name for path in tmp_path.rglob("*"))
        with pytest.raises(InUseError, match=rf"process {process.pid} on .* is working on {tmp_path}"):
            write(tmp_path)
        assert sorted(path.name for path in tmp_path.rglob("*")) == before
        process.communicate("")
    assert process.returncode == 0
    assert (tmp_path / "2.txt").read_bytes() == b"CD"


@pytest.mark.parametrize("clips", [3, 6, 7], ids=["within the parts", "with the last part", "while it is described"])
def test_a_job_whose_lease_is_lost_ends_and_signs_nothing(
    clips: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    update = Progress.update

    def lose(self: Progress, done: int, **figures: float | str) -> None:
        update(self, done, **figures)
        if done == clips:
            held.on_loss()

    class Held(Lease):
        def __init__(self, folder: str, on_loss: Any) -> None:
            super().__init__(folder, on_loss)
            self.on_loss = on_loss
            nonlocal held
            held = self

    held: Any = None
    monkeypatch.setattr("unfused_ray.data.parts.driver.Lease", Held)
    monkeypatch.setattr(Progress, "update", lose)
    with pytest.raises(InUseError, match=r"another process has taken .* over"):
        write(tmp_path, on_describe=lambda: held.on_loss())
    assert not (tmp_path / "manifest.json").exists()
    assert (tmp_path / REJECTS).exists() == (clips == 7)
    assert (tmp_path / "_reports").exists()  # it is the other process's now


def test_settings_of_a_group_that_differ_are_named_one_by_one() -> None:
    columns = {"path": "", "label": "folder", "split": "use"}
    with pytest.raises(ValueError, match=r"columns\.label: folder there, nothing asked for; columns\.split: use"):
        refuse_difference("out", {"seed": 0, "columns": columns}, {"seed": 0, "columns": None})
    with pytest.raises(ValueError, match=r"\(columns\.label: mood there, folder asked for; seed: 0 there, 1"):
        refuse_difference("out", {"seed": 0, "columns": {**columns, "label": "mood"}}, {"seed": 1, "columns": columns})
    refuse_difference("out", {"seed": 0, "columns": None}, {"seed": 0})
