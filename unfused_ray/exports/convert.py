"""Makes the portable network of an encoder."""

from __future__ import annotations

from typing import Any

from unfused_ray.models.frozen import FrozenEncoder
from unfused_ray.models.portable import PortableEncoder


def settings(encoder: FrozenEncoder) -> dict[str, Any]:
    """Return the arguments of the :class:`PortableEncoder` that computes what an encoder does, as JSON values."""
    front_end, shape = encoder.log_mel.config, encoder.encoder.config
    return {
        "sample_rate": front_end.sample_rate,
        "shortest": encoder.shortest,
        "short_clips": encoder.crop.short_clips,
        "n_fft": front_end.n_fft,
        "hop": front_end.hop,
        "num_mels": front_end.num_mels,
        "floor": front_end.floor,
        "mean": encoder.log_mel.mean,
        "std": encoder.log_mel.std,
        "channels": shape.channels,
        "width": shape.width,
        "cut": shape.cut,
    }


def portable(encoder: FrozenEncoder) -> PortableEncoder:
    """Return the same network in plain operations, on the CPU.

    Raises:
        ValueError: the training crop is no longer than half a window of the front end.
    """
    network = PortableEncoder(**settings(encoder))
    log_mel = encoder.log_mel
    front_end = {"window": log_mel.window.float(), "filters": log_mel.filters[::2]}  # an encoder has each row twice
    network.load_state_dict({**network.state_dict(), **encoder.encoder.state_dict(), **front_end})
    return network.requires_grad_(False)
