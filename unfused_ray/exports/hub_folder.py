"""Makes the folder of a portable network for the Hugging Face hub: weights, configuration and code; no card yet."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib import resources
from typing import Any

import torch

from unfused_ray.exports.torch_folder import CODE, CONFIG, WEIGHTS, code, weights
from unfused_ray.models.portable import PortableEncoder

CARD = "README.md"
FILES = ("configuration_unfused.py", "modeling_unfused.py", "unfused_encoder.py")
"""Files of code that are the same in every folder for the hub."""


def files(network: PortableEncoder, settings: Mapping[str, Any]) -> dict[str, bytes]:
    """Return all files except the card, by name.

    ``AutoModel`` and ``PyTorchModelHubMixin`` read the same weights and configuration: both keep the network as
    ``encoder``.
    """
    config = {
        "architectures": ["UnfusedModel"],
        "model_type": "unfused-audio",
        "auto_map": {
            "AutoConfig": "configuration_unfused.UnfusedConfig",
            "AutoModel": "modeling_unfused.UnfusedModel",
        },
        "torch_dtype": "float32",
        "encoder": dict(settings),
    }
    folder = resources.files(__package__) / "hub_files"
    return {
        **{name: (folder / name).read_bytes() for name in FILES},
        CODE: code(),
        CONFIG: json.dumps(config, indent=2).encode(),
        WEIGHTS: weights(torch.nn.ModuleDict({"encoder": network})),
    }
