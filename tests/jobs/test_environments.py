"""In nearly empty environments the core loads and embeds, and the hub's folder works without this project."""

from __future__ import annotations

import os
import subprocess
import tomllib
from collections.abc import Sequence
from pathlib import Path

import pytest
from support.environments import link
from support.exports import write_student
from support.paths import ROOT

from unfused_ray import api

pytestmark = pytest.mark.slow

CORE = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
EXTRAS = {"ray", "pyarrow", "mlflow", "scipy", "sklearn", "matplotlib", "tyro", "rich", "optuna", "av", "onnx"}


def run(python: Path, folder: Path, arguments: Sequence[str], check: bool = True) -> subprocess.CompletedProcess[str]:
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    variables |= {"HF_HOME": str(folder / "hub"), "HF_HUB_OFFLINE": "1"}
    return subprocess.run(
        [str(python), *arguments], cwd=folder, env=variables, check=check, capture_output=True, text=True
    )


def test_the_core_alone_loads_a_student_and_embeds(tmp_path: Path) -> None:
    python, sizes = link(tmp_path / "environment", CORE)
    (tmp_path / "unfused_ray").symlink_to(ROOT / "unfused_ray")
    student = write_student(tmp_path / "made")
    code = f"""
import sys, importlib.util, numpy as np
assert not [name for name in {EXTRAS} if importlib.util.find_spec(name)]
import unfused_ray
student = unfused_ray.load_student({student.run!r})
assert student.embed(np.zeros(16_000, np.int16), 16_000).shape == (1, 16)
assert student.embed(np.zeros(44_100), 44_100).shape == (1, 16)
import unfused_ray.kits.hear, unfused_ray.kits.xares, unfused_ray.kits.evar, soundfile
for use in (lambda: unfused_ray.prepare(source="a", output="b"), lambda: unfused_ray.load_student("s3://bucket/run")):
    try:
        use()
    except ImportError as error:
        assert "needs pyarrow, which is not installed: pip install 'unfused-ray[train]'" in str(error), error
    else:
        raise AssertionError("nothing is refused")
"""
    run(python, tmp_path, ["-c", code])
    told = run(python, tmp_path, ["-m", "unfused_ray", "prepare"], check=False)
    assert (told.returncode, told.stdout) == (2, "")
    missing = "the command prepare needs tyro, which is not installed: pip install 'unfused-ray[train]'"
    assert told.stderr == f"error: {missing}\n"
    assert "unfused-ray COMMAND" in run(python, tmp_path, ["-m", "unfused_ray"]).stdout
    own = {name: size for name, size in sizes.items() if not name.startswith(("torch", "triton", "nvidia", "cuda"))}
    assert sum(own.values()) < 150, f"megabytes beside torch: {own}"


@pytest.mark.parametrize(
    ("packages", "load"),
    [
        (
            ["torch", "transformers"],
            "from transformers import AutoModel\n"
            "model = AutoModel.from_pretrained(folder, trust_remote_code=True)\n"
            "vectors = model(wave).pooler_output",
        ),
        (
            ["torch", "safetensors", "huggingface_hub"],
            "sys.path.insert(0, folder)\n"
            "from unfused_encoder import UnfusedEncoder\n"
            "vectors, _ = UnfusedEncoder.from_pretrained(folder)(wave)",
        ),
    ],
)
def test_the_hubs_folder_is_loaded_without_this_project(tmp_path: Path, packages: list[str], load: str) -> None:
    python, _ = link(tmp_path / "environment", packages)
    student = write_student(tmp_path / "made")
    api.export(encoder=student.run, to="hub", output=str(tmp_path / "birds"))
    expected = api_vectors(student.run)
    code = f"""
import importlib.util, sys, torch
assert importlib.util.find_spec("unfused_ray") is None
folder, wave = {str(tmp_path / "birds")!r}, torch.linspace(-0.5, 0.5, 5_000)[None]
{load}
assert torch.allclose(vectors, torch.tensor({expected}), atol=1e-3), vectors
"""
    run(python, tmp_path, ["-c", code])


def api_vectors(run_: str) -> list[list[float]]:
    """Return the vectors of a ramp by the student itself."""
    import torch

    from unfused_ray import load_student

    return load_student(run_)(torch.linspace(-0.5, 0.5, 5_000)[None]).tolist()
