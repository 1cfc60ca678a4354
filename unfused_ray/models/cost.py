"""Costs of an encoder: parameters and multiply–adds, counted in the same way for all, without heads and probes.

PyTorch's counter is imported only where it counts: it imports Triton, which crashes a process that has imported
TensorFlow before, and an exported encoder should load in such a process too.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from unfused_ray.config import Cut, EncoderConfig, FrontEndConfig
from unfused_ray.models.encoder import AudioNTT2020

REFERENCE_PARAMETERS = 5_321_856
"""Parameters of the whole AudioNTT2020, which is DeLoRes-M's encoder in UnFuSeD's comparison."""
MIN_SAVING = 0.4
"""Share of these parameters that a student must do without (UnFuSeD, arXiv 2303.05668: 40 % fewer)."""
_SECONDS = 10


class Operations(TorchDispatchMode):
    """Counts the floating point operations of matrix products and convolutions, forward and backward.

    PyTorch's own counting mode also attributes them to modules, and fails if a module is called without gradient.
    """

    def __init__(self) -> None:
        from torch.utils.flop_counter import flop_registry

        super().__init__()
        self.count = 0
        self._counts = flop_registry

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Count one operator."""
        out = func(*args, **(kwargs or {}))
        if count := self._counts.get(func.overloadpacket):
            self.count += count(*args, **(kwargs or {}), out_val=out)
        return out


def num_parameters(encoder: AudioNTT2020) -> int:
    """Return the number of trainable parameters."""
    return sum(parameter.numel() for parameter in encoder.parameters())


@torch.no_grad()
def multiply_adds(encoder: AudioNTT2020, front_end: FrontEndConfig) -> float:
    """Return the multiply–adds of convolutions and matrix products for a second of audio, averaged over ten seconds."""
    frames = front_end.num_frames(_SECONDS * front_end.sample_rate)
    log_mel = torch.zeros(1, encoder.num_mels, frames, device=next(encoder.parameters()).device)
    was_training = encoder.training
    with torch.inference_mode(False), Operations() as operations:  # inference mode would hide convolutions
        encoder.eval()(log_mel)
    encoder.train(was_training)
    return operations.count / 2 / _SECONDS


def cost_of(config: EncoderConfig, front_end: FrontEndConfig) -> tuple[int, float]:
    """Return parameters, and multiply–adds for a second of audio, of a shape, without memory for its weights."""
    with torch.device("meta"):
        encoder = AudioNTT2020(config, front_end.num_mels)
    return num_parameters(encoder), multiply_adds(encoder, front_end)


def refuse_large_student(count: int, cut: Cut, name: str) -> None:
    """Check that a network is small enough to be called a student.

    Args:
        count: number of its parameters.
        cut: its last layer.
        name: name of the network in the error.

    Raises:
        ValueError: it has more than 60 % of the reference's parameters.
    """
    most = int((1 - MIN_SAVING) * REFERENCE_PARAMETERS)
    if count > most:
        raise ValueError(
            f"{name}: the network up to {cut} has {count:,} parameters, a student at most {most:,} "
            f"({MIN_SAVING:.0%} fewer than the whole encoder's {REFERENCE_PARAMETERS:,}): cut it at fc1 or a block, or "
            "make it narrower"
        )
