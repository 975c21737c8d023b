"""How many multiply-accumulates a layer, and a training step, take."""

from __future__ import annotations

import math

from codegen.graph import Graph, Layer


def step_macs(graph: Graph) -> int:
    """Return those of one sample: forward, then the gradients of weights and of inputs down to the first trainable
    layer."""
    first = graph.first_trainable
    return sum(
        layer_macs(layer) * (1 + (layer.trainable and index >= first) + (index > first))
        for index, layer in enumerate(graph.layers)
    )


def layer_macs(layer: Layer) -> int:
    """Return the multiply-accumulates of a layer's forward pass; padding costs nothing."""
    inputs, outputs = layer.in_shape[2], layer.out_shape[2]
    if layer.kind == "dense":
        return math.prod(layer.in_shape) * outputs
    taps = math.prod(
        sum(0 <= at * layer.stride[axis] - layer.pad[axis] + tap < layer.in_shape[axis]
            for at in range(layer.out_shape[axis]) for tap in range(layer.kernel[axis]))
        for axis in (0, 1)
    )  # fmt: skip
    return taps * outputs * (inputs if layer.kind == "conv2d" else 1)
