"""Measures the card alone: memory, copies from the host, matrix products, launches."""

from __future__ import annotations

from functools import partial

import torch

from benchmarks.gpu.timing import seconds, wait
from benchmarks.measure import Figure, figure

ROUNDS = 5


def measure(device: torch.device, small: bool) -> list[Figure]:
    """Return figures of the device alone; needs torch."""
    size, num_bytes = (256, 1 << 20) if small else (8192, 1 << 30)
    source = torch.ones(num_bytes // 4, device=device)
    target = torch.empty_like(source)
    host = torch.ones(num_bytes // 16, pin_memory=device.type == "cuda")
    copies = seconds(lambda: target.copy_(source), device, ROUNDS)
    uploads = seconds(lambda: target[: host.numel()].copy_(host, non_blocking=True), device, ROUNDS)
    figures = [
        figure("memory: bytes read and written", [2 * num_bytes / taken / 1e9 for taken in copies], "GB/s"),
        figure("copy from the host", [host.nbytes / taken / 1e9 for taken in uploads], "GB/s"),
    ]
    for dtype in (torch.float32, torch.bfloat16):
        square = torch.ones(size, size, device=device, dtype=dtype)
        rates = [2 * size**3 / taken / 1e12 for taken in seconds(partial(torch.mm, square, square), device, ROUNDS)]
        figures.append(figure(f"matrix product, {str(dtype).removeprefix('torch.')}", rates, "TFLOP/s"))
    one = torch.ones(1, device=device)
    launches = seconds(lambda: one.add_(1), device, ROUNDS, repeats=100 if small else 2000)
    wait(device)
    return [*figures, figure("an operator on one number", [1e6 * taken for taken in launches], "µs")]
