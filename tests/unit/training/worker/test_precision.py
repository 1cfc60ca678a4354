"""The number format of a training: chosen by the device's instructions, kept by a run that goes on elsewhere."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from support.runs import STEPS, history, train

from unfused_ray.config import PretrainConfig, RuntimeConfig
from unfused_ray.training.worker import device
from unfused_ray.training.worker.device import choose_precision

CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        ({"avx512_bf16": True, "amx_bf16": False}, "bfloat16"),
        ({"avx512_bf16": False, "amx_bf16": True}, "bfloat16"),
        ({"avx512_bf16": False, "amx_bf16": False, "avx512_f": True}, "float32"),
        ({}, "float32"),  # of an ARM
    ],
)
def test_a_processor_with_the_instructions_computes_in_bfloat16(
    capabilities: dict[str, bool], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert choose_precision(RuntimeConfig(), CPU) == expected
    for asked in ("float32", "bfloat16"):
        assert choose_precision(RuntimeConfig(precision=asked), CPU) == asked


def test_torch_tells_the_capabilities_of_this_processor() -> None:
    assert "avx512_bf16" in torch.cpu.get_capabilities() or "x86" not in torch.cpu.get_capabilities()["architecture"]


@pytest.mark.parametrize("has", [True, False])
def test_a_gpu_is_asked_for_instructions_not_for_emulation(has: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **options: asked.append(options) or has)
    assert choose_precision(RuntimeConfig(), GPU) == ("bfloat16" if has else "float32")
    assert asked == [{"including_emulation": False}]
    assert choose_precision(RuntimeConfig(), GPU, saved="float32") == "float32"
    for config, saved in ((RuntimeConfig(precision="bfloat16"), None), (RuntimeConfig(), "bfloat16")):
        if has:
            assert choose_precision(config, GPU, saved) == "bfloat16"
        else:
            with pytest.raises(ValueError, match=r"bfloat16.*no instructions"):
                choose_precision(config, GPU, saved)


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("begun", ["float32", "bfloat16"])
def test_a_run_goes_on_in_the_precision_it_began_with(
    begun: str,
    config: Callable[..., PretrainConfig],
    stop_after: Callable[[int], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    job = config("run", runtime__precision="auto")
    monkeypatch.setattr(device, "_has_bfloat16", lambda on: begun == "bfloat16")
    stop_after(STEPS + 1)
    assert train(job).state == "stopped"
    monkeypatch.setattr(device, "_has_bfloat16", lambda on: begun == "float32")
    stop_after(-1)
    assert train(job).state == "finished"
    details = sorted(Path(job.output, "checkpoints").rglob("details.json"))
    assert [json.loads(file.read_text())["precision"] for file in details] == [begun] * len(details)


@pytest.mark.usefixtures("alone")
def test_bfloat16_learns_what_float32_does(config: Callable[..., PretrainConfig]) -> None:
    losses = []
    for precision in ("float32", "bfloat16"):
        job = config(precision, runtime__precision=precision, epochs=3)
        assert train(job).state == "finished"
        losses.append([entry["loss"] for entry in history(Path(job.output))])
    assert losses[0] != losses[1]
    assert losses[1] == pytest.approx(losses[0], rel=0.03)
