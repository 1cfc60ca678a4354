"""Reports on one node: a Ray task that imports little and changes nothing."""

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
    """Findings on one node."""

    versions: dict[str, str]
    """Versions of Python and packages, and a digest of this project's code: a copy of it may be older."""
    token: bool
    """True if Ray's processes here ask for a token."""
    shared_memory: int | None
    """Bytes of /dev/shm; None where the system has none."""
    codecs: dict[str, str]
    """Formats that cannot be decoded, and why."""
    storage: str
    """Why the output folder cannot be written; '' where it can."""
    storage_seconds: float
    """Taken by writing, reading back and deleting an object there."""
    faiss: dict[str, str]
    """Distributions of the module faiss that are installed, with their versions."""
    torch_gpus: int | None
    """GPUs that torch sees; None where none was looked for."""
    faiss_gpus: int | None
    """GPUs that faiss sees; None where torch sees none, on which faiss may crash, or no faiss for GPUs is installed."""
    driver: str
    """Version of NVIDIA's driver; '' if none is loaded, or none was looked for."""
    cuda: str
    """Version of CUDA that torch was built with; '' if without, or if no GPU was looked for."""
    no_gpu: str
    """Why torch sees no GPU; '' if it sees one, or none was looked for."""


def look(output: str, gpus: bool) -> NodeReport:
    """Look at the node that this runs on.

    Args:
        output: folder of the run, by path or URI, which need not exist yet.
        gpus: whether to look for GPUs; torch is imported only then, which takes a second.
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
    """Write, read and delete an object beside ``output``, which is not made; returns why that cannot be done, or ''."""
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
    """Collect the versions that a :class:`NodeReport` has."""
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
