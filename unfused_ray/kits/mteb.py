"""MTEB's audio tasks (MAEB): an encoder for ``mteb.evaluate``.

::

    import mteb
    from unfused_ray.kits.mteb import UnfusedModel

    mteb.evaluate(UnfusedModel("runs/student"), mteb.get_tasks(modalities=["audio"]))

Source: ``mteb.models.abs_encoder``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from mteb.models import ModelMeta
from mteb.models.abs_encoder import AbsEncoder
from mteb.models.model_meta import ScoringFunction

from unfused_ray.models.cost import num_parameters
from unfused_ray.models.export import load_encoder, read_description


class UnfusedModel(AbsEncoder):
    """One vector per clip, each clip in a pass of its own: nothing is padded.

    Args:
        model_name: folder of a run or of its export, by path or URI.
        revision: revision of the results that MTEB stores; by default the SHA-256 of the weights, so that results of
            another network from a folder of the same name are not mixed up with them.
        device: torch's name of a device.

    Raises:
        FileNotFoundError, ValueError: there is no encoder.
    """

    def __init__(self, model_name: str, revision: str | None = None, device: str | None = None, **_: Any) -> None:
        self.model = load_encoder(model_name).to(device or "cpu")
        self.mteb_model_meta = ModelMeta.create_empty(
            {
                "name": f"unfused-ray/{model_name.rstrip('/').rpartition('/')[2]}",
                "revision": revision or read_description(model_name)["sha256"],
                "n_parameters": num_parameters(self.model.encoder),
                "embed_dim": self.model.output_dim,
                "framework": ["PyTorch"],
                "modalities": ["audio"],
                "similarity_fn_name": ScoringFunction.COSINE,
            }
        )

    def encode(self, inputs: Any, **_: Any) -> np.ndarray:
        """Embed the clips of a data loader with this project's own resampling: (N, output_dim) float32."""
        inputs.collate_fn = list  # MTEB's own collate function resamples with torchaudio
        vectors = [self._embed(row["audio"]) for rows in inputs for row in rows]
        return np.concatenate(vectors)

    def _embed(self, audio: Any) -> np.ndarray:
        wave = np.asarray(audio["array"])
        return self.model.embed(wave if wave.ndim == 1 else wave.mean(axis=0), audio["sampling_rate"]).cpu().numpy()
