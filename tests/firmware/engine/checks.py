"""One layer, forward and every backward, against an oracle in double precision."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from tests.firmware.engine.layers import F32, F64, Bytes, Expected, Gradients, Kernels, Layer

SCALE = -0.25
TOLERANCE = 1e-5  # of the largest element


Oracle = Callable[[Layer, F64, F64 | None, F64 | None, F64], Expected]


def close(actual: F32 | F64, expected: F32 | F64) -> None:
    largest = float(np.abs(expected).max(initial=1.0))
    np.testing.assert_allclose(actual, expected, rtol=0, atol=TOLERANCE * largest)


def check_layer(kernels: Kernels, layer: Layer, oracle: Oracle, seed: int = 0) -> None:
    """Compare every kernel that `layer` has, with random weights, gradients and inputs."""
    rng = np.random.default_rng(seed)
    z = rng.normal(size=layer.size)
    if layer.kind == "max_pool":
        z = np.round(2 * z) / 2  # ties
    z *= rng.random(layer.size) < 0.9  # exact zeros, where an activation's derivative is a matter of convention
    x = np.where(z > 0, z, layer.slope * z).astype(np.float32)
    out_gradient = rng.normal(size=layer.out_shape).astype(np.float32)
    if not layer.weighted:
        _check_pool(kernels, layer, oracle, x, out_gradient)
        return
    weight = (rng.normal(size=layer.weight_shape) / 3).astype(np.float32)
    bias = rng.normal(size=layer.out).astype(np.float32)
    before = Gradients(rng.normal(size=weight.shape).astype(np.float32), rng.normal(size=bias.shape).astype(np.float32))
    expected = oracle(layer, *map(_f64, (x, weight[layer.used], bias, out_gradient)))
    close(kernels.forward(layer, x, weight, bias), expected.out)
    close(kernels.forward(layer, x, weight, None), expected.out - bias)

    after = kernels.backward(layer, x, weight, before, out_gradient, SCALE)
    close(_some(after.input), expected.input)
    _check_gradients(layer, before, after, expected)
    frozen = kernels.backward(layer, x, weight, Gradients(None, None), out_gradient, SCALE)
    np.testing.assert_array_equal(frozen.input, after.input)
    first = kernels.backward_first(layer, x, before, out_gradient, SCALE)
    np.testing.assert_array_equal(first.weight, after.weight)
    np.testing.assert_array_equal(first.bias, after.bias)
    if layer.kind == "dense":
        fused = kernels.backward(layer, x, weight, Gradients(None, before.bias), out_gradient, SCALE, fused=True)
        np.testing.assert_array_equal(fused.input, after.input)
        _check_gradients(layer, Gradients(weight, before.bias), fused, expected)

    _check_sample(kernels, layer, oracle, rng, weight, bias, before, out_gradient)


def _check_sample(
    kernels: Kernels,
    layer: Layer,
    oracle: Oracle,
    rng: np.random.Generator,
    weight: F32,
    bias: F32,
    before: Gradients,
    out_gradient: F32,
) -> None:
    layer = replace(layer, slope=1.0)  # a sample has been through no activation
    values = (rng.integers(0, 256, layer.size) * (rng.random(layer.size) < 0.5)).astype(np.uint8)
    for sample in (Bytes(values, 1 / 255, 0.0), Bytes(values, 2 / 255, -1.0)):
        expected = oracle(layer, *map(_f64, (sample.floats(), weight[layer.used], bias, out_gradient)))
        out = kernels.forward(layer, sample, weight, bias)
        close(out, expected.out)
        np.testing.assert_array_equal(out, kernels.forward(layer, sample.floats(), weight, bias))
        after = kernels.backward_first(layer, sample, before, out_gradient, SCALE)
        _check_gradients(layer, before, after, expected)


def _check_pool(kernels: Kernels, layer: Layer, oracle: Oracle, x: F32, out_gradient: F32) -> None:
    expected = oracle(layer, _f64(x), None, None, _f64(out_gradient))
    if layer.kind == "max_pool":
        out, argmax = kernels.max_pool(layer, x)
        np.testing.assert_array_equal(out, expected.out)
        close(kernels.pool_backward(layer, x, out_gradient, argmax), expected.input)
    else:
        close(kernels.forward(layer, x), expected.out)
        close(kernels.pool_backward(layer, x, out_gradient), expected.input)


def _check_gradients(layer: Layer, before: Gradients, after: Gradients, expected: Expected) -> None:
    """They were added to what was there, times the scale; weights past the width in use were not touched."""
    change = _f64(_some(after.weight)) - _f64(_some(before.weight))
    close(change[layer.used], SCALE * expected.weight)
    change[layer.used] = 0
    assert not change.any()
    close(_some(after.bias), _some(before.bias) + SCALE * expected.bias)


def _some(array: F32 | None) -> F32:
    assert array is not None
    return array


def _f64(array: F32) -> F64:
    return array.astype(np.float64)
