"""Makes an ONNX file of a portable network, and one with 8-bit weights."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from unfused_ray.models.portable import PortableEncoder

OPSET = 18
FILE = "model.onnx"
INT8_FILE = "model-int8.onnx"
_INPUT, _OUTPUTS = "wave", ("vectors", "frames")
_EXACT = ("both_b", "conv.0.0.weight")
"""Weights that are never rounded: those of the Fourier transform, and of the first convolution, whose rounding changes
the vectors more than that of all others together (docs/log.md). They are small."""


def build(network: PortableEncoder) -> Any:
    """Return the network as an ONNX model: ``wave`` → ``vectors`` and ``frames``, for any batch size and length."""
    example = torch.zeros(2, 2 * network.shortest)
    registration = logging.getLogger("torch.onnx._internal.exporter._registration")
    before, registration.level = registration.level, logging.ERROR  # it reports on torchvision, which is not used
    try:
        program = torch.onnx.export(
            network,
            (example,),
            dynamo=True,
            opset_version=OPSET,
            input_names=[_INPUT],
            output_names=_OUTPUTS,
            dynamic_shapes={_INPUT: {0: "batch", 1: "samples"}},
            verbose=False,
        )
    finally:
        registration.level = before
    assert program is not None
    model = program.model_proto
    model.graph.output[1].type.tensor_type.shape.dim[1].dim_param = "frames"
    del model.graph.value_info[:]  # shapes of intermediate values, which runtimes infer themselves
    for node in model.graph.node:
        del node.metadata_props[:]  # source lines on this machine, with their paths
    return model


def with_metadata(model: Any, metadata: Mapping[str, str]) -> bytes:
    """Return the file of an ONNX model with these metadata."""
    del model.metadata_props[:]
    for name, value in metadata.items():
        model.metadata_props.add(key=name, value=value)
    return model.SerializeToString()


def with_int8_weights(model: Any) -> Any:
    """Return a copy whose filters, convolutions and layers per frame have 8-bit weights, with one scale per output.

    It computes in float32, like the model, after multiplying the weights by their scales.
    """
    import onnx

    small = onnx.ModelProto()
    small.CopyFrom(model)
    graph = small.graph
    weights = {weight.name: weight for weight in graph.initializer}
    axes = {"Conv": 0, "MatMul": 1}  # axis of the outputs
    scaling = []
    for node in graph.node:
        name = node.input[1] if node.op_type in axes else ""
        if name not in weights or name in _EXACT:
            continue
        axis, values = axes[node.op_type], onnx.numpy_helper.to_array(weights[name])
        others = tuple(dim for dim in range(values.ndim) if dim != axis)
        scale = np.abs(values).max(axis=others, keepdims=True).clip(1e-12) / 127
        graph.initializer.remove(weights[name])
        graph.initializer.append(onnx.numpy_helper.from_array(np.rint(values / scale).astype(np.int8), f"{name}_int8"))
        graph.initializer.append(onnx.numpy_helper.from_array(scale.ravel(), f"{name}_scale"))
        inputs = [f"{name}_int8", f"{name}_scale"]
        scaling.append(onnx.helper.make_node("DequantizeLinear", inputs, [name], axis=axis))
    nodes = [*scaling, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    onnx.checker.check_model(small)
    return small
