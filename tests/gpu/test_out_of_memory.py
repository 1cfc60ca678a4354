"""A training that needs more memory than the device has ends with the names of the settings to change."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

pytest.importorskip("mlflow")
pytest.importorskip("soundfile")

from support.runs import tiny, train

from unfused_ray.audio.views import Views

GIVEN = {"weights": 0, "a step": 16 << 20}
"""Free bytes, by what does not fit: torch reserves 2 MiB at a time for small tensors, as weights, else 20 MiB."""


@pytest.fixture(params=GIVEN)
def little_memory(
    request: pytest.FixtureRequest, device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """A GPU without room for the weights or for a step; on a processor, an error like a GPU's."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
        given = torch.cuda.memory_reserved() + GIVEN[request.param]
        torch.cuda.set_per_process_memory_fraction(given / torch.cuda.get_device_properties(device).total_memory)
        yield
        torch.cuda.set_per_process_memory_fraction(1.0)
    else:

        def fail(*arguments: object) -> None:
            raise torch.OutOfMemoryError("out of memory")

        monkeypatch.setattr(Views, "__init__" if request.param == "weights" else "forward", fail)
        yield


@pytest.mark.usefixtures("little_memory")
def test_too_little_memory_names_the_settings(source: Path, tmp_path: Path) -> None:
    config = tiny(source, tmp_path / "run", "off").replace({"encoder.channels": 64})
    with pytest.raises(RuntimeError, match=r"out of memory on .* with batch\.block=8 .*; lower batch\.block"):
        train(config)
