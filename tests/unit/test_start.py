"""Processes that must start fast import no needless module, as each process pays for its own imports."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import soundfile
from support.sources import tone

# Times of import, each alone: torch 1.3 s, scikit-learn 0.9 s, MLflow 1.1 s, Ray Data 0.7 s.
NEEDLESS = {
    "unfused_ray.training.coordinator": {"torch", "ray.data", "sklearn", "mlflow"},
    "unfused_ray.clustering.actor": {"torch", "ray.data", "sklearn", "mlflow"},
    "unfused_ray.data.stream.ray_source": {"torch", "sklearn", "mlflow"},
    # The actors of Ray Train and Ray Data import it, with everything that its package imports.
    "unfused_ray.training.runtimes.remote_coordinator": {"torch", "ray.data", "sklearn", "mlflow"},
    "unfused_ray.training.driver.data": {"torch", "ray", "sklearn", "mlflow", "matplotlib"},
    "unfused_ray.training.driver.launch": {"sklearn", "mlflow", "matplotlib"},
}


@pytest.mark.parametrize("module", NEEDLESS)
def test_a_process_of_a_run_imports_only_what_it_needs(module):
    code = f"import sys, {module}; sys.stdout.write(' '.join(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert module in loaded
    assert not NEEDLESS[module] & set(loaded)


def test_a_small_source_is_prepared_without_an_import_of_ray(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", tone(0, 16_000), 16_000)
    code = "import sys, unfused_ray; unfused_ray.prepare(source=sys.argv[1], output=sys.argv[2]); print(*sys.modules)"
    arguments = [str(tmp_path / "a.wav"), str(tmp_path / "shards")]
    done = subprocess.run([sys.executable, "-c", code, *arguments], check=True, capture_output=True, text=True)
    assert not {"ray", "sklearn", "mlflow", "matplotlib"} & set(done.stdout.split())
