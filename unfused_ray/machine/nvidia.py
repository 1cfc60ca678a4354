"""NVIDIA's driver and CUDA as this process finds them, and the reason that torch sees no GPU."""

from __future__ import annotations

import os
import re
from pathlib import Path

_DRIVER = Path("/proc/driver/nvidia/version")


def driver_version() -> str:
    """Return the version of NVIDIA's driver; '' if none is loaded."""
    if not _DRIVER.exists():
        return ""
    found = re.search(r"Kernel Module.*?\s(\d+\.[\d.]+)", _DRIVER.read_text())  # "Open Kernel Module for x86_64", too
    return found[1] if found else "unknown"


def cuda_version() -> str:
    """Return the version of CUDA that torch is built with; '' if it is built without."""
    import torch  # here, because not every import of this room needs it

    return torch.version.cuda or ""


def why_no_gpu() -> str:
    """Return the reason that torch sees no GPU in this process; '' if it sees one."""
    import torch

    if torch.cuda.is_available():
        return ""
    if not cuda_version():
        return f"torch {torch.__version__} is built without CUDA"
    if not driver_version():
        return "no driver of NVIDIA is loaded"
    if "CUDA_VISIBLE_DEVICES" in os.environ and not os.environ["CUDA_VISIBLE_DEVICES"]:
        return "CUDA_VISIBLE_DEVICES is empty: no GPU was reserved for this process, or it was set so"
    try:
        torch.cuda.init()
    except (RuntimeError, AssertionError) as error:  # for example, the driver is older than torch's CUDA
        return str(error).strip().splitlines()[0]
    return "CUDA finds no device"
