"""The installed wheel, in an environment and a folder outside the checkout, runs the whole tiny pipeline."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest
from support.paths import ROOT

import unfused_ray

DATA = {
    "unfused_ray/py.typed",
    "unfused_ray/comparison/as_printed.toml",
    "unfused_ray/comparison/plans/corpus.toml",
    "unfused_ray/evaluation/protocol.toml",
    "unfused_ray/report/page.html.j2",
    "unfused_ray/report/search.html.j2",
    "unfused_ray/report/search.js",
}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy because building leaves folders beside the code."""
    folder = tmp_path_factory.mktemp("wheel")
    copy = folder / "source"
    shutil.copytree(ROOT / "unfused_ray", copy / "unfused_ray", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "--wheel-dir", str(folder), str(copy)], check=True)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of executables of an environment with the wheel; it borrows the dependencies of this environment."""
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    # Python does not follow .pth files in this folder, so a checkout installed here is not found.
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    python = str(folder / "bin" / "python")
    install = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", "--force-reinstall"]
    subprocess.run([*install, "--no-index", str(wheel)], check=True)
    return folder / "bin"


def test_package_data_are_in(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        assert set(archive.namelist()) >= DATA
    assert wheel.name.startswith(f"unfused_ray-{unfused_ray.__version__}-")


@pytest.mark.slow
def test_the_tiny_pipeline_runs_from_an_installed_wheel_and_python_gives_the_same(
    environment: Path, tmp_path: Path
) -> None:
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    variables = {**kept, "UNFUSED_RAY_HOME": str(tmp_path / "home"), "COLUMNS": "200"}

    def run(*command: str) -> str:
        arguments = [str(environment / command[0]), *command[1:]]
        ended = subprocess.run(arguments, cwd=tmp_path, env=variables, capture_output=True, text=True, check=False)
        assert ended.returncode == 0, ended.stdout + ended.stderr
        return ended.stdout

    where = run("python", "-c", "import unfused_ray; print(unfused_ray.__file__)")
    assert where.startswith(str(environment.parent))
    run("unfused-ray", "prepare", "--source", str(ROOT / "recordings" / "drums.tar"), "--output", "shards/drums")
    threads = ["--runtime.threads", "1"]
    run("unfused-ray", "pretrain", "tiny", "--data", "shards/drums", "--output", "teacher", *threads)
    run("unfused-ray", "distill", "tiny", "--data", "shards/drums", "--teacher", "teacher", *threads)
    models = ["--models", "teacher", "home/runs/tiny-student"]
    out = run("unfused-ray", "evaluate", "--tasks", "shards/drums", *models, "--random-seeds", "0", "--output", "table")
    assert "teacher" in out and "tiny-student" in out
    rows = json.loads((tmp_path / "table" / "table.json").read_text())["rows"]
    assert {row["name"] for row in rows} >= {"teacher", "tiny-student"}
    run("unfused-ray", "report", "teacher", "table")
    assert "image/svg+xml" in (tmp_path / "report.html").read_text()
    assert "tiny-student" in run("python", "-m", "unfused_ray", "runs")
    (tmp_path / "plan.toml").write_text(
        'name = "toy"\nsources = ["drums"]\ntasks = ["drums"]\nreference = "DECAR-v2"\n[tflop]\nsources = 0.0008\n'
        '[[systems]]\nname = "DECAR-v2"\nrecipe = "tiny"\n'
    )
    assert "to do" in run("unfused-ray", "compare", "plan.toml", "--data-root", "shards", "--list")

    run(
        "python",
        "-c",
        "import unfused_ray\n"
        'changes = {"runtime.threads": 1}\n'
        'trained = unfused_ray.pretrain("tiny", data=["shards/drums"], output="again", **changes)\n'
        'assert trained.status.state == "finished" and len(trained.pictures) == 3\n',
    )
    ours, theirs = (tmp_path / name / "encoder" / "encoder.safetensors" for name in ("again", "teacher"))
    assert ours.read_bytes() == theirs.read_bytes()
    names = [
        sorted(str(p.relative_to(run)) for p in run.rglob("*")) for run in (tmp_path / "again", tmp_path / "teacher")
    ]
    assert names[0] == names[1]
