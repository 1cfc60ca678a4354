"""The precision of float32 products on a GPU."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def ieee_float32() -> Iterator[None]:
    """Compute float32 convolutions and matrix products in IEEE float32 within this block; processors always do.

    By torch's defaults a GPU's convolutions round their factors to the 10 bits of TF32, so that vectors would differ
    from a processor's in the third digit. The settings are the process's: other threads also compute slower and more
    exactly on a GPU meanwhile. Within the block torch refuses the older names of these settings (``cudnn.allow_tf32``).
    """
    backends = torch.backends
    if hasattr(backends.cudnn, "conv"):
        operations, name = (backends.cudnn.conv, backends.cuda.matmul), "fp32_precision"
    else:  # for torch 2.8
        operations, name = (backends.cudnn, backends.cuda.matmul), "allow_tf32"
    before = [getattr(operation, name) for operation in operations]
    for operation in operations:
        setattr(operation, name, "ieee" if name == "fp32_precision" else False)
    try:
        yield
    finally:
        for operation, value in zip(operations, before, strict=True):
            setattr(operation, name, value)
