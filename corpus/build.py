"""Builds the corpus: fetches packages, builds each task once, and lists the clips for pre-training."""

from __future__ import annotations

import ast
import hashlib
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import torch
from safetensors.numpy import load_file, save_file

from corpus.clips import Task
from corpus.packages import Packages, fetch, need_programs, package_lists
from corpus.pretraining import list_pretraining
from corpus.report import write_report
from corpus.splits import SPLITS
from corpus.task_folder import Built, Row, TaskFolder
from unfused_ray import storage
from unfused_ray.progress import Progress, terminal

FORMAT_VERSION = 1
STATE_FOLDER = ".build"
"""Folder below the corpus with the state that saves a later run from building finished tasks again."""


def build(output: Path, packages_folder: Path, tasks: Sequence[Task], processes: int) -> dict[str, Built]:
    """Build tasks into a folder; finished tasks from the same packages and code are kept.

    Args:
        output: folder of the corpus.
        packages_folder: folder in which packages are, or will be, unpacked.
        tasks: tasks to build.
        processes: number of tasks built in parallel.

    Raises:
        ValueError: a program is missing, a package cannot be downloaded, a class is missing from a split, or a
            recording is both in train and held out.
    """
    need_programs(program for task in tasks for program in task.programs)
    unlisted = {name for task in tasks for name in task.packages} - package_lists().keys()
    if unlisted:
        raise ValueError(f"packages without a licence in corpus/package_lists: {', '.join(sorted(unlisted))}")
    packages = fetch((name for task in tasks for name in task.packages), packages_folder)
    output.mkdir(parents=True, exist_ok=True)
    digests = {task.name: state_digest(task, packages) for task in tasks}
    missing = [task for task in tasks if not _is_built(output, task, digests[task.name])]
    with Progress("tasks", len(tasks), "tasks", done=len(tasks) - len(missing)) as progress:
        finished = _build(missing, output, packages, digests, processes)
        for done, (name, num_clips, seconds) in enumerate(finished, len(tasks) - len(missing) + 1):
            progress.update(done)
            terminal().print(f"{name}: {num_clips} clips in {seconds:.0f} s", highlight=False)
    built = {task.name: _read(output, task) for task in tasks}
    refuse_crossing(built)
    pretraining = list_pretraining(output, tasks, built)
    write_report(output, packages, tasks, built, pretraining)
    return built


def refuse_crossing(built: Mapping[str, Built]) -> None:
    """Refuse a recording that one task trains on and another holds out: a network of all tasks would train on it.

    Raises:
        ValueError: names two such clips; a clip's folder is that of its task.
    """
    rows = [row for task in built.values() for row in task.rows if row.split in SPLITS]
    held = {mark: row for row in rows if row.split != "train" for mark in (row.digest, *row.sources)}
    crossing = {
        row.wav_path: held[mark]
        for row in rows
        if row.split == "train"
        for mark in (row.digest, *row.sources)
        if mark in held
    }
    if crossing:
        path, held_row = next(iter(crossing.items()))
        raise ValueError(
            f"{len(crossing)} training clips are made of recordings that are held out, such as {path}, which shares "
            f"one with {held_row.wav_path} of {held_row.split}; give both one split"
        )


def _build(
    tasks: Sequence[Task], output: Path, packages: Packages, digests: Mapping[str, str], processes: int
) -> Iterator[tuple[str, int, float]]:
    """Build tasks, ``processes`` in parallel; yield name, clips and seconds of each as it finishes."""
    if processes == 1:
        yield from (build_task(task, output, packages, digests[task.name]) for task in tasks)
        return
    context = get_context("spawn")  # torch's threads do not survive a fork
    with ProcessPoolExecutor(processes, mp_context=context) as pool:
        jobs = [pool.submit(build_task, task, output, packages, digests[task.name]) for task in tasks]
        yield from (job.result() for job in as_completed(jobs))


def build_task(task: Task, output: Path, packages: Packages, digest: str) -> tuple[str, int, float]:
    """Build one task in a temporary folder and move it to its place; return name, number of clips and seconds."""
    torch.set_num_threads(1)
    start, name = time.monotonic(), task.name
    state = output / STATE_FOLDER
    part = state / f"{name}.part"
    shutil.rmtree(part, ignore_errors=True)
    (part / name).mkdir(parents=True)
    built = TaskFolder(task, part).build(packages)
    _state_file(output, name).unlink(missing_ok=True)
    shutil.rmtree(output / name, ignore_errors=True)
    (part / name).rename(output / name)
    shutil.rmtree(part)
    save_file({"fingerprints": built.fingerprints}, state / f"{name}.safetensors")
    content = {"digest": digest, "rows": [asdict(row) for row in built.rows], "skipped": built.skipped}
    storage.write_json(str(_state_file(output, name)), content, FORMAT_VERSION)
    return name, len(built.rows), time.monotonic() - start


def state_digest(task: Task, packages: Packages) -> str:
    """Return a digest of everything that a task is made from: the versions of its packages and the code that it
    runs."""
    versions = {name: packages.version(name) for name in task.packages}
    function = task.clips.func if isinstance(task.clips, partial) else task.clips
    code = imported({"corpus.task_folder", function.__module__})
    content = (task.name, sorted(versions.items()), sorted((name, without_words(tree)) for name, tree in code.items()))
    return hashlib.sha1(repr(content).encode()).hexdigest()


def imported(modules: Iterable[str]) -> dict[str, ast.Module]:
    """Parse the modules of this package among ``modules`` and all that they import."""
    root, found, left = Path(__file__).parent.parent, dict[str, ast.Module](), list(modules)
    while left:
        name = left.pop()
        path = Path(root, *name.split(".")).with_suffix(".py")
        if name in found or not path.is_file():
            continue
        found[name] = tree = ast.parse(path.read_text("utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "corpus":
                left += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return found


def without_words(tree: ast.Module) -> str:
    """Return the code of a module without comments and docstrings, which change no clip."""
    for node in ast.walk(tree):
        if isinstance(body := getattr(node, "body", None), list):
            node.body = [part for part in body if not _is_text(part)]  # type: ignore[attr-defined]
    return ast.dump(tree)


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _state_file(output: Path, name: str) -> Path:
    return output / STATE_FOLDER / f"{name}.json"


def _is_built(output: Path, task: Task, digest: str) -> bool:
    path = _state_file(output, task.name)
    if not (path.is_file() and (output / task.name).is_dir()):
        return False
    state = storage.read_json(str(path))
    return state.get("format_version") == FORMAT_VERSION and state["digest"] == digest


def _read(output: Path, task: Task) -> Built:
    state = storage.read_json(str(_state_file(output, task.name)), FORMAT_VERSION, "delete it")
    prints = load_file(output / STATE_FOLDER / f"{task.name}.safetensors")["fingerprints"]
    return Built([Row(**row) for row in state["rows"]], prints, state["skipped"])
