"""The forward pass of a block is one graph to torch.compile, so that a backend can capture it as one CUDA graph."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from support.steps import CONFIGS, steps_of

from benchmarks.gpu.learning import labels
from unfused_ray.methods.method import BlockOutput


@pytest.mark.slow
@pytest.mark.parametrize("name", CONFIGS)
def test_a_block_is_one_graph(name: str) -> None:
    # Without dropout: on a CPU it draws its mask in place, which ends a graph; on a GPU it is torch's own.
    step = steps_of(CONFIGS[name].replace({"encoder.dropout": 0.0}), torch.device("cpu"))
    method, size = step.learner.method, step.config.batch.block
    views = torch.randn(method.num_views, size, step.config.front_end.num_mels, 96)
    torch.compiler.reset()
    labels_HB = torch.from_numpy(np.array(labels(step.config, size, 8), np.int64).reshape(-1, size))
    expected = method(views, torch.ones(size), labels_HB)
    found = torch.compile(method, backend="eager", fullgraph=True)(views, torch.ones(size), labels_HB)  # or it raises
    values = [vars(output) if isinstance(output, BlockOutput) else output for output in (found, expected)]
    torch.testing.assert_close(*values)
