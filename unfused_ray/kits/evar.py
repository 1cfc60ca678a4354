"""EVAR: an audio representation for its linear evaluation.

A module of the kit, ``evar/ar_unfused.py``, imports it::

    from unfused_ray.kits.evar import AR_Unfused

``lineareval.py`` must import that module (``import evar.ar_unfused``, beside the others at its top), because it looks
up the class by name. It needs a configuration::

    audio_repr: ar_unfused.AR_Unfused
    weight_file: runs/student
    sample_rate: 16000
    feature_d: 2048
    batch_size: 64
    lr_lineareval: 0.0003
    early_stop_epochs: 20

EVAR pads the clips of a task with silence to one length before it passes them on.

Source: EVAR (nttcslab/eval-audio-repr), ``lineareval.py`` and ``evar/ar_base.py``.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn

from unfused_ray.models.export import load_encoder


class AR_Unfused(nn.Module):  # noqa: N801 - as EVAR's are called
    """One vector per clip, with the front end and the statistics of the encoder's own training.

    Args:
        cfg: EVAR's configuration; ``weight_file`` is the folder of a run or of its export.

    Raises:
        FileNotFoundError, ValueError: there is no encoder, or EVAR's sample rate or vector size differs.
    """

    def __init__(self, cfg: Any) -> None:
        super().__init__()
        self.cfg = cfg
        self.model = load_encoder(cfg.weight_file)
        for field, ours in (("sample_rate", self.model.sampling_rate), ("feature_d", self.model.output_dim)):
            if (given := getattr(cfg, field)) != ours:
                raise ValueError(
                    f"{field}={given} in EVAR's configuration, but {cfg.weight_file} has {ours}: change it"
                )

    def precompute(self, device: Any, data_loader: Iterable[Any]) -> None:
        """Do nothing: the statistics are those of the training."""

    def encode_frames(self, batch_audio: Tensor) -> Tensor:
        """Return vectors over time: (B, samples) → (B, feature_d, T)."""
        return self.model.frames(batch_audio, self.model.sampling_rate, cover_end=True).vectors.transpose(1, 2)

    def forward(self, batch_audio: Tensor) -> Tensor:
        """Return vectors of clips: (B, samples) → (B, feature_d)."""
        return self.model(batch_audio)
