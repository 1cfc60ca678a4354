"""The README and the docs agree with the repository: links, paths, commands, pictures and examples."""

from __future__ import annotations

import ast
import functools
import json
import re
import runpy
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import tyro
from pydantic import BaseModel
from support.pages import Block, blocks, pages
from support.paths import ROOT

import unfused_ray
from unfused_ray import recipes
from unfused_ray.cli import COMMANDS
from unfused_ray.comparison import page as comparison
from unfused_ray.data.sources.lape.disk import Disk
from unfused_ray.evaluation import cells, table

FOLDERS = ("corpus", "unfused_ray", "jobs", "tuning", "tests", "benchmarks", "deploy", "docs", "recordings")
PATH = re.compile(rf"(?<![\w/.-])(?:{'|'.join(FOLDERS)})/[\w./-]*[\w/]")
# These pages also describe earlier states.
PAST = ("CHANGELOG.md", "docs/log.md")
# Settings of a group, such as --watch.every; the options of other programs have no groups.
OPTION = re.compile(r"(?<![\w-])--([a-z-]+(?:\.[\w-]*\w)+)")
LINK = re.compile(r"\]\((?!https?:)([^)#\s]*)(?:#([^)\s]*))?\)")
GUIDES = ROOT / "docs" / "guides"


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading).lower().strip().replace(" ", "-") for heading in headings}


def test_the_readme_fits_on_two_screens() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 160


@pytest.mark.parametrize("page", pages(), ids=name)
def test_links_lead_somewhere(page: Path) -> None:
    for target, anchor in LINK.findall(page.read_text(encoding="utf-8")):
        found = page.parent / target if target else page
        assert found.exists(), f"{name(page)} links to {target}"
        assert not anchor or anchor in anchors(found), f"{name(page)} links to {target}#{anchor}"


@pytest.mark.parametrize("page", [page for page in pages() if name(page) not in PAST], ids=name)
def test_paths_that_a_page_names_exist(page: Path) -> None:
    missing = {path for path in PATH.findall(page.read_text(encoding="utf-8")) if not (ROOT / path).exists()}
    assert not missing


def settings(config: BaseModel, group: str = "") -> set[str]:
    fields = {name: getattr(config, name) for name in type(config).model_fields}
    inner = (settings(value, f"{group}{name}.") for name, value in fields.items() if isinstance(value, BaseModel))
    return {f"{group}{name}" for name in fields}.union(*inner)


@functools.cache
def known_settings() -> set[str]:
    """Every setting of every recipe, as an option spells it."""
    configs = [config for job in recipes.RECIPES.values() for _, config in job.values()]
    found = set[str]().union(*map(settings, configs))
    return {name.replace("_", "-") for name in found}


@pytest.mark.parametrize("page", [page for page in pages() if name(page) not in PAST], ids=name)
def test_settings_that_a_page_names_exist(page: Path) -> None:
    assert set(OPTION.findall(page.read_text(encoding="utf-8"))) <= known_settings()


def test_the_picture_of_the_layers_is_that_of_the_contracts() -> None:
    drawn = runpy.run_path(str(ROOT / "docs" / "layers.py"))
    assert drawn["PICTURE"].read_text(encoding="utf-8") == drawn["draw"](), "python docs/layers.py draws it anew"


def test_the_rows_of_the_picture_of_compute_are_in_the_tables() -> None:
    drawn = runpy.run_path(str(ROOT / "docs" / "compute.py"))
    rows = [row[-2:] for points in drawn["CURVES"].values() for row in points] + list(drawn["LEVELS"].values())
    assert all(0.2 < drawn["headline"](*row).value < 0.7 for row in rows)


def test_the_readme_and_the_architecture_name_every_room() -> None:
    rooms = {path.parent.name for path in (ROOT / "unfused_ray").glob("*/__init__.py")}
    tree = next(block for block in blocks("text", [ROOT / "README.md"]) if block.text.startswith("unfused_ray/"))
    assert set(re.findall(r"^  (\w+)/ ", tree.text, flags=re.MULTILINE)) == rooms
    assert all((ROOT / name).exists() for name in re.findall(r"^([\w.]+)", tree.text, flags=re.MULTILINE))
    table = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    modules = rooms | {path.stem for path in (ROOT / "unfused_ray").glob("[!_]*.py")}
    assert not {name for name in modules if not re.search(rf"`{name}[`/]", table)}


@pytest.fixture
def parse(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[list[str]], int]:
    """Return a function that parses a command line without running the command, and returns the exit code."""
    monkeypatch.setenv("HOME", str(tmp_path))
    real = tyro.cli

    def cli(target: Any, **options: Any) -> Any:
        if isinstance(target, type):
            return real(target, **options)
        return real(functools.wraps(target)(lambda *_, **__: 0), **options)

    monkeypatch.setattr(tyro, "cli", cli)

    def code(words: list[str]) -> int:
        command, *arguments = words
        config = {"distill": recipes.DISTILL["unfused"][1]}.get(command)
        if config and arguments[0].endswith(".json"):  # another command would have written it
            Path(arguments[0]).parent.mkdir(parents=True, exist_ok=True)
            Path(arguments[0]).write_text(config.model_dump_json(), encoding="utf-8")
        module = import_module(f"unfused_ray.cli.{command}")
        job = command not in ("report", "runs", "doctor", "tasks")
        try:
            return module.run([*arguments, "--print-config"] if job else arguments)
        except SystemExit as end:
            return end.code

    return code


@pytest.mark.parametrize("block", blocks("sh"), ids=str)
def test_every_command_parses(block: Block, parse: Callable[[list[str]], int], tmp_path: Path) -> None:
    called = block.commands(tmp_path)
    named = re.findall(rf"\bunfused-ray ({'|'.join(COMMANDS)}) |(?:jobs|tuning)/\w+\.py |-m unfused_ray ", block.text)
    assert len(called) >= len(named), "bash does not call them all"
    for words in called:
        assert parse(words) == 0, " ".join(words)


@pytest.mark.parametrize("block", blocks("python"), ids=str)
def test_python_examples_name_recipes_and_settings_that_there_are(block: Block) -> None:
    for node in ast.walk(ast.parse(block.text)):
        if not isinstance(node, ast.Call) or not re.fullmatch(r"unfused_ray\.\w+", ast.unparse(node.func)):
            continue
        public = ast.unparse(node.func).removeprefix("unfused_ray.")
        assert callable(getattr(unfused_ray, public))
        if known := getattr(recipes, public.upper(), None):
            recipe = ast.literal_eval(node.args[0]) if node.args else "default"
            changes = {keyword.arg: ast.literal_eval(keyword.value) for keyword in node.keywords}
            known[recipe][1].replace({**changes.pop(None, {}), **changes})


def test_the_task_of_the_guide_lists_its_clips(tmp_path: Path) -> None:
    (example,) = blocks("python", [GUIDES / "add-a-task.md"])
    module: dict[str, Any] = {}
    exec(example.text, module)  # noqa: S102
    audio = tmp_path / "ESC-50-master" / "audio"
    audio.mkdir(parents=True)
    (tmp_path / "ESC-50-master" / "meta").mkdir()
    (tmp_path / module["LIST"]).write_text(
        "filename,fold,target,category,esc10,src_file,take\n"
        "1-1-A-0.wav,1,0,dog,True,1,A\n2-7-A-3.wav,2,3,cow,False,7,A\n2-8-A-3.wav,2,3,cow,False,8,A\n"
    )
    for clip in ("1-1-A-0.wav", "2-7-A-3.wav"):
        soundfile.write(audio / clip, np.zeros(100), 16_000)
    task = module["TASK"]
    listing = task.list_clips(Disk.at(str(tmp_path), task.name, task.url, task.requires))
    rows = [(row["labels"], row["split"], row["group"]) for row in listing.items.to_pylist()]
    assert rows == [(["dog"], "fold1", "1"), (["cow"], "fold2", "7")]
    assert [reject.reason for reject in listing.rejects] == ["missing"]


def test_the_encoder_of_the_guide_makes_vectors() -> None:
    example = next(block for block in blocks("python", [GUIDES / "distil-and-evaluate.md"]) if "class" in block.text)
    module: dict[str, Any] = {}
    exec(example.text, module)  # noqa: S102
    vectors = module["MeanSpectrum"]().embed(np.ones((2, 15_200), np.float32))
    assert vectors.shape == (2, 257)
    assert np.isfinite(vectors).all()


def test_the_reader_of_the_guide_lists_its_clips(tmp_path: Path) -> None:
    (example,) = blocks("python", [GUIDES / "add-a-reader.md"])
    module: dict[str, Any] = {}
    exec(example.text, module)  # noqa: S102
    lines = [
        {"audio_filepath": "a.wav", "label": "yes", "split": "train"},
        {"label": "no"},
        {"audio_filepath": "/b.wav"},
    ]
    file = tmp_path / "list.jsonl"
    file.write_text("\n".join(map(json.dumps, lines)))
    listing = module["list_jsonl"](str(file))
    relative, absolute = listing.items.to_pylist()
    assert (relative["uri"], relative["labels"], relative["split"]) == (str(tmp_path / "a.wav"), ["yes"], "train")
    assert absolute["uri"] == "/b.wav"
    assert [(reject.key, reject.reason) for reject in listing.rejects] == [("list.jsonl:2", "missing")]
    file.write_text('{"audio_filepath": "a.wav"}\n{"audio')
    with pytest.raises(ValueError, match=r"line 2 of .*list\.jsonl is no JSON"):
        module["list_jsonl"](str(file))


def test_the_page_of_files_names_the_formats_of_now() -> None:
    page = (ROOT / "docs/reference/files.md").read_text(encoding="utf-8")
    named = dict(re.findall(r"^\| (`[^|]+?) \(format (\d+)\)", page, flags=re.MULTILINE))
    assert named == {
        "`table.json`": str(table.FORMAT_VERSION),
        "`<task>/<row>.json`": str(cells.FORMAT_VERSION),
        "`table.json` of `compare`": str(comparison.FORMAT_VERSION),
    }
