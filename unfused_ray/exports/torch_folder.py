"""Makes the folder of a portable network that needs only torch and safetensors, and a program of torch.export."""

from __future__ import annotations

import inspect
import io
import json
from collections.abc import Mapping
from typing import Any

import safetensors.torch
import torch

from unfused_ray.models import portable
from unfused_ray.models.portable import PortableEncoder

WEIGHTS = "model.safetensors"
CONFIG = "config.json"
CODE = "portable.py"
PROGRAM = "model.pt2"


def files(network: PortableEncoder, settings: Mapping[str, Any]) -> dict[str, bytes]:
    """Return the weights, the network's arguments, and its code, by file name."""
    return {
        CODE: code(),
        CONFIG: json.dumps(settings, indent=2).encode(),
        WEIGHTS: weights(network),
    }


def weights(network: torch.nn.Module) -> bytes:
    """Return the weights of a network in the hub's format."""
    tensors = {name: value.contiguous() for name, value in network.state_dict().items()}
    return safetensors.torch.save(tensors, {"format": "pt"})


def code() -> bytes:
    """Return the source of the module of :class:`PortableEncoder`, unchanged."""
    return inspect.getsource(portable).encode()


def program(network: PortableEncoder) -> bytes:
    """Return the network as a program of ``torch.export``, for any batch size and any length of at least one sample."""
    dynamic = torch.export.Dim.DYNAMIC
    example = torch.zeros(2, 3)  # small, because it is saved too
    exported = torch.export.export(network, (example,), dynamic_shapes={"wave": {0: dynamic, 1: dynamic}})
    for node in exported.graph.nodes:
        node.meta.pop("stack_trace", None)  # source lines on this machine, with their paths
    file = io.BytesIO()
    torch.export.save(exported, file)
    return file.getvalue()
