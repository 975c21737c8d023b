"""A small network with every kind of layer, trained at two widths by calling the kernels one after the other."""

from __future__ import annotations

import numpy as np

from tests.firmware.engine.layers import F32, U8, Bytes, Gradients, Kernels, Layer

SLOPE = 0.1
CLASSES = 5


def network(half: bool) -> list[Layer]:
    """Return the layers at full width or with half of the hidden channels; in the same stored weights."""
    a, b = (3, 5) if half else (6, 10)
    return [
        Layer("conv2d", (12, 12, 1), a, (3, 3), (1, 1), "same", stored=(1, 6)),
        Layer("max_pool", (12, 12, a), kernel=(3, 3), stride=(2, 2), padding="same", slope=SLOPE),
        Layer("depthwise", (6, 6, a), a, (3, 3), padding="same", stored=(6, 6)),
        Layer("conv2d", (6, 6, a), b, (3, 3), (1, 1), "same", slope=SLOPE, stored=(6, 10)),
        Layer("average_pool", (6, 6, b), kernel=(2, 2), stride=(2, 2), slope=SLOPE),
        Layer("dense", (3, 3, b), CLASSES, stored=(10, CLASSES)),
    ]


def train(kernels: Kernels, steps: int, seed: int) -> tuple[list[F32], list[float]]:
    """Train on random samples in batches of two, at both widths; return the weights and the loss of every pass."""
    rng = np.random.default_rng(seed)
    shapes = [layer.weight_shape for layer in network(False) if layer.weighted]
    outs = [layer.kept[1] for layer in network(False) if layer.weighted]
    weights = [(rng.normal(size=shape) / 4).astype(np.float32) for shape in shapes]
    biases = [np.zeros(out, np.float32) for out in outs]
    gradients = [Gradients(np.zeros_like(w), np.zeros_like(b)) for w, b in zip(weights, biases, strict=True)]
    losses = []
    for step in range(steps):
        label = int(rng.integers(CLASSES))
        values = (rng.integers(0, 100, (12, 12, 1)) * (rng.random((12, 12, 1)) < 0.6)).astype(np.uint8)
        values[:, 2 * label : 2 * label + 3] += 150  # a bright bar says which class it is
        for half in (False, True):
            sample = Bytes(values, 1 / 255, -0.1 if step % 3 == 0 else 0.0)
            losses.append(_pass(kernels, network(half), sample, label, weights, biases, gradients))
        if step % 2:
            for w, b, g in zip(weights, biases, gradients, strict=True):
                assert g.weight is not None and g.bias is not None
                kernels.update(w, g.weight, 0.02, 0.5)
                kernels.update(b, g.bias, 0.02, 0.5)
    return weights + biases, losses


def _pass(
    kernels: Kernels,
    layers: list[Layer],
    sample: Bytes,
    label: int,
    weights: list[F32],
    biases: list[F32],
    gradients: list[Gradients],
) -> float:
    x: F32 | Bytes = sample
    inputs: list[F32 | Bytes] = []
    argmax: U8 | None = None
    index = -1
    for layer, following in zip(layers, [*layers[1:], None], strict=True):
        inputs.append(x)
        if layer.weighted:
            index += 1
            x = kernels.forward(layer, x, weights[index], biases[index])
        elif layer.kind == "max_pool":
            assert not isinstance(x, Bytes)
            x, argmax = kernels.max_pool(layer, x)
        else:
            x = kernels.forward(layer, x)
        if following is not None and following.slope != 1:
            x = kernels.activate(x, following.slope)
    assert not isinstance(x, Bytes)
    loss, flow = kernels.cross_entropy(x.reshape(-1), label)
    for layer, given in zip(reversed(layers), reversed(inputs), strict=True):
        if isinstance(given, Bytes):
            gradients[0] = kernels.backward_first(layer, given, gradients[0], flow, 1.0)
        elif layer.weighted:
            after = kernels.backward(layer, given, weights[index], gradients[index], flow, 1.0)
            assert after.input is not None
            gradients[index], flow = Gradients(after.weight, after.bias), after.input
            index -= 1
        else:
            flow = kernels.pool_backward(layer, given, flow, argmax if layer.kind == "max_pool" else None)
    return loss
