"""The kits' own checks of the adapters, in the environment of ``make test-kits``; without EVAR, not on PyPI."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from support.paths import ROOT

pytestmark = pytest.mark.kits


def run(folder: str, program: str, *arguments: str) -> str:
    """Run a program of the kits' environment; return its output."""
    kits = os.environ.get("KITS", "")
    if not kits:
        pytest.fail("KITS names no folder of programs: make test-kits")
    variables = {"PYTHONPATH": str(ROOT), "UNFUSED_RAY_ENCODER": folder, "PATH": os.environ["PATH"], "HOME": folder}
    ended = subprocess.run(
        [str(Path(kits) / program), *arguments], env=variables, cwd=folder, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout + ended.stderr


def test_hears_validator_takes_it_after_tensorflow(folder):
    told = run(folder, "hear-validator", "unfused_ray.kits.hear", "--model", folder, "--device", "cpu")
    assert "Looks good!" in told and "Interval between timestamps is 40.0ms" in told
    assert "We suggest a interval" not in told


def test_xares_checker_takes_it(folder):
    code = (
        "from xares.utils import attr_from_py_path\n"
        "from xares.audio_encoder_checker import check_audio_encoder\n"
        "encoder = attr_from_py_path('unfused_ray/kits/xares.py', endswith='Encoder')()\n"
        "assert check_audio_encoder(encoder)\n"
    )
    run(folder, "python", "-c", code)


def test_mteb_evaluates_it(folder):
    told = run(folder, "python", str(ROOT / "tests" / "support" / "mteb_task.py"), folder)
    assert float(told.rpartition("accuracy ")[2]) > 0.9
