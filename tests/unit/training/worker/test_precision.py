"""The number format of a training follows from the device's instructions, and stays when a run resumes elsewhere."""

from __future__ import annotations

import json
import logging
import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from support.runs import STEPS, history, train

from unfused_ray.config import PretrainConfig, RuntimeConfig
from unfused_ray.machine import nvidia
from unfused_ray.runs.start_times import StartTimes, read_arithmetic
from unfused_ray.training.driver import monitor
from unfused_ray.training.driver.launch import check
from unfused_ray.training.runtimes.in_process import InProcess
from unfused_ray.training.worker import device
from unfused_ray.training.worker.device import choose_precision, chosen_kernels, describe_arithmetic

CPU, GPU = torch.device("cpu"), torch.device("cuda")
CPU_FLAGS = Path("/proc/cpuinfo")


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        ({"avx512_bf16": True, "amx_bf16": False}, "bfloat16"),
        ({"avx512_bf16": False, "amx_bf16": True}, "bfloat16"),
        ({"avx512_bf16": False, "amx_bf16": False, "avx512_f": True}, "float32"),
        ({}, "float32"),  # an ARM processor
    ],
)
def test_a_processor_with_the_instructions_computes_in_bfloat16(
    capabilities: dict[str, bool], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert choose_precision(RuntimeConfig(), CPU) == expected
    for asked in ("float32", "bfloat16"):
        assert choose_precision(RuntimeConfig(precision=asked), CPU) == asked


def test_this_processor_has_the_number_format_of_its_flags() -> None:
    if not CPU_FLAGS.exists():
        pytest.skip("the system has no /proc/cpuinfo")
    has = {"avx512_bf16", "amx_bf16"} & set(CPU_FLAGS.read_text().split())
    assert choose_precision(RuntimeConfig(), CPU) == ("bfloat16" if has else "float32")


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


def test_number_format_and_device_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    for capabilities, expected in (
        ({"avx512_bf16": True}, "bfloat16 on 2 threads of a CPU with AVX512-BF16"),
        ({"avx512_bf16": True, "amx_bf16": True}, "bfloat16 on 2 threads of a CPU with AVX512-BF16 and AMX"),
        ({}, "bfloat16 on 2 threads of a CPU without instructions for bfloat16"),
    ):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda known=capabilities: known)
        assert describe_arithmetic(RuntimeConfig(), CPU, "bfloat16") == expected
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA L4")
    for capability, precision, expected in (
        ((8, 9), "bfloat16", "bfloat16 on NVIDIA L4"),
        ((8, 9), "float32", "float32 (TF32 in convolutions) on NVIDIA L4"),
        ((7, 5), "float32", "float32 on NVIDIA L4"),
    ):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device, known=capability: known)
        assert describe_arithmetic(RuntimeConfig(), GPU, precision) == expected
    exact = describe_arithmetic(RuntimeConfig(deterministic=True), GPU, "bfloat16")
    assert exact == "bfloat16 on NVIDIA L4, by deterministic algorithms"


def test_a_run_tells_its_number_format_and_device(
    config: Callable[..., PretrainConfig], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(monitor, "POLL_SECONDS", 0.01)
    with caplog.at_level(logging.INFO, logger=monitor.logger.name):
        assert train(config("run", runtime__precision="float32")).state == "finished"
    assert caplog.messages.count(f"computing in {read_arithmetic(config('run').output)}") == 1


def kernel_settings() -> tuple[bool, ...]:
    cudnn, deterministic = torch.backends.cudnn, torch.utils.deterministic
    algorithms = torch.are_deterministic_algorithms_enabled()
    return algorithms, cudnn.benchmark, cudnn.deterministic, deterministic.fill_uninitialized_memory


def test_kernels_of_a_gpu_are_chosen_by_speed_or_for_equal_bits_while_it_trains(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    before = kernel_settings()
    try:
        with chosen_kernels(RuntimeConfig(deterministic=True), CPU):
            assert kernel_settings() == before
        with chosen_kernels(RuntimeConfig(), GPU):
            assert kernel_settings() == (False, True, False, before[-1])
            assert "CUBLAS_WORKSPACE_CONFIG" not in os.environ
            with pytest.raises(OSError), chosen_kernels(RuntimeConfig(deterministic=True), GPU):
                assert kernel_settings() == (True, False, True, False)
                assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
                raise OSError
            assert kernel_settings() == (False, True, False, before[-1])
        assert kernel_settings() == before
    finally:
        os.environ.pop("CUBLAS_WORKSPACE_CONFIG", None)


def test_the_workspace_of_equal_bits_is_set_before_clips_are_labelled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    try:
        InProcess().session(RuntimeConfig(), {}, "", StartTimes())
        assert "CUBLAS_WORKSPACE_CONFIG" not in os.environ
        InProcess().session(RuntimeConfig(deterministic=True), {}, "", StartTimes())
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    finally:
        os.environ.pop("CUBLAS_WORKSPACE_CONFIG", None)


@pytest.mark.skipif(torch.cuda.is_available(), reason="torch sees a GPU")
@pytest.mark.parametrize("driver", ["NVRM version: NVIDIA UNIX x86_64 Kernel Module  470.223.02  Sat", ""])
def test_a_gpu_that_is_asked_for_and_cannot_be_used_is_refused_with_the_reason(
    driver: str, config: Callable[..., PretrainConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "version"
    if driver:
        file.write_text(driver)
    monkeypatch.setattr(nvidia, "_DRIVER", file)
    found = "470.223.02" if driver else "none"
    with pytest.raises(ValueError, match=f"gpus_per_worker=1 asks for a GPU, but torch sees none: .*driver {found}"):
        check(config("run", runtime__gpus_per_worker=1.0))
    check(config("run"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="torch sees a GPU")
def test_a_driver_that_torch_cannot_use_is_warned_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(nvidia, "_DRIVER", tmp_path / "version")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    device.warn_of_idle_gpu()
    assert not caplog.messages
    (tmp_path / "version").write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module  470.223.02  Sat")
    device.warn_of_idle_gpu()
    assert "training on the CPU, although this machine has an NVIDIA driver" in caplog.text


@pytest.mark.skipif(torch.cuda.is_available(), reason="torch sees a GPU")
def test_a_training_on_the_machine_of_a_jobs_entrypoint_says_where_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(nvidia, "_DRIVER", tmp_path / "version")
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    monkeypatch.delitem(sys.modules, "ray", raising=False)
    device.warn_of_idle_gpu()
    (message,) = caplog.messages
    assert f"on the CPUs of {socket.gethostname()}, and not on the cluster of RAY_ADDRESS" in message
    assert "--entrypoint-num-gpus 1" in message


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


def test_bfloat16_learns_what_float32_does(config: Callable[..., PretrainConfig]) -> None:
    losses = []
    for precision in ("float32", "bfloat16"):
        job = config(precision, runtime__precision=precision, epochs=3)
        assert train(job).state == "finished"
        losses.append([entry["loss"] for entry in history(Path(job.output))])
    assert losses[0] != losses[1]
    # Later labels are clusters of learnt vectors, and rounding moves them: losses differ by up to 3.4 % by processor.
    assert losses[1][:2] == pytest.approx(losses[0][:2], rel=0.03)
    assert losses[1] == pytest.approx(losses[0], rel=0.08)
