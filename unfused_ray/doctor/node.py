"""Reports on one node, in a Ray task that imports little and changes nothing."""

from __future__ import annotations

import io
import os
import platform
import shutil
import time
import uuid
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from unfused_ray import __version__, extras, storage
from unfused_ray.audio.decode import AudioError, decode
from unfused_ray.machine.nvidia import cuda_version, driver_version, why_no_gpu
from unfused_ray.runs.environment import code_digest

_SHARED_MEMORY = Path("/dev/shm")
_CODECS = (("WAV", "PCM_16"), ("FLAC", "PCM_16"), ("OGG", "VORBIS"), ("OGG", "OPUS"), ("MP3", "MPEG_LAYER_III"))
_RATE = 16000


@dataclass(frozen=True)
class NodeReport:
    """The facts found on one node."""

    versions: dict[str, str]
    """Versions of Python and packages, and a digest of this project's code, of which a node may have an older copy."""
    token: bool
    """True if Ray's processes on the node require a token."""
    shared_memory: int | None
    """Size of /dev/shm in bytes; None if the system has none."""
    codecs: dict[str, str]
    """Formats that cannot be decoded, with the reason."""
    storage: str
    """Reason why the output folder cannot be written; '' if it can."""
    storage_seconds: float
    """Seconds for writing, reading and deleting an object there."""
    faiss: dict[str, str]
    """Installed distributions of the module faiss, with their versions."""
    torch_gpus: int | None
    """Number of GPUs that torch sees; None if GPUs were not checked."""
    faiss_gpus: int | None
    """Number of GPUs that faiss sees; None without faiss for GPUs, or if torch sees none, when faiss may crash."""
    driver: str
    """Version of NVIDIA's driver; '' if none is loaded, or GPUs were not checked."""
    cuda: str
    """CUDA version that torch was built with; '' without CUDA, or if GPUs were not checked."""
    no_gpu: str
    """Reason why torch sees no GPU; '' if it sees one, or GPUs were not checked."""


def look(output: str, gpus: bool) -> NodeReport:
    """Report on the node that this runs on.

    Args:
        output: path or URI of the run's folder, which need not exist yet.
        gpus: whether to check GPUs; only then torch is imported, which takes a second.
    """
    start = time.perf_counter()
    problem = _write(output)
    seconds = time.perf_counter() - start
    return NodeReport(
        versions=versions(),
        token=os.environ.get("RAY_AUTH_MODE", "").lower() == "token",
        shared_memory=shutil.disk_usage(_SHARED_MEMORY).total if _SHARED_MEMORY.is_dir() else None,
        codecs=_undecodable(),
        storage=problem,
        storage_seconds=seconds,
        faiss=extras.installed_faiss(),
        torch_gpus=_torch_gpus() if gpus else None,
        faiss_gpus=_faiss_gpus() if gpus and _torch_gpus() else None,
        driver=driver_version() if gpus else "",
        cuda=cuda_version() if gpus else "",
        no_gpu=why_no_gpu() if gpus else "",
    )


def _write(output: str) -> str:
    """Write, read and delete an object beside ``output``, which is not made, or in it if it is a whole bucket; return
    the reason for a failure, or ''."""
    folder = storage.parent(output)
    while storage.is_local(folder) and not storage.exists(folder):
        folder = storage.parent(folder)
    name = f".doctor-{uuid.uuid4().hex}"
    probe, data = storage.join(folder, name), name.encode()
    try:
        storage.write_bytes(probe, data)
        read = storage.read_bytes(probe)
        storage.delete(probe)
    except (OSError, ValueError) as error:
        return str(error)
    return "" if read == data else f"{probe} was not read back as it was written"


def versions() -> dict[str, str]:
    """Collect the versions for a :class:`NodeReport`."""
    installed = {name: extras.package_version(name) or "not installed" for name in ("ray", "torch")}
    own = {"unfused-ray": __version__, "unfused-ray's code": code_digest()}
    return {"python": platform.python_version(), **installed, **own}


def _undecodable() -> dict[str, str]:
    wave = (0.5 * np.sin(np.arange(_RATE // 10) * 0.2)).astype(np.float32)
    problems = {}
    for container, codec in _CODECS:
        encoded = io.BytesIO()
        try:
            soundfile.write(encoded, wave, _RATE, format=container, subtype=codec)
            encoded.seek(0)
            if not sum(len(piece) for piece in decode(encoded, _RATE, _RATE)):
                problems[f"{container} {codec}"] = "nothing was decoded"
        except (AudioError, soundfile.LibsndfileError, ValueError) as error:
            problems[f"{container} {codec}"] = str(error)
    return problems


def _torch_gpus() -> int:
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def _faiss_gpus() -> int | None:
    if not any(name.startswith("faiss-gpu") for name in extras.installed_faiss()):
        return None
    import faiss

    gpus: int = faiss.get_num_gpus()
    return gpus
