"""Activation, update, and what a NaN does on its way through a layer."""

from __future__ import annotations

import numpy as np
import pytest

from tests.firmware.engine.layers import Gradients, Kernels, Kind, Layer


@pytest.mark.parametrize("slope", [0.0, 0.1, 0.3])
@pytest.mark.parametrize("size", [1, 3, 4, 5, 67])
def test_activate(kernels: Kernels, slope: float, size: int) -> None:
    x = np.random.default_rng(size).normal(size=size).astype(np.float32)
    np.testing.assert_array_equal(kernels.activate(x, slope), np.where(x < 0, np.float32(slope) * x, x))


@pytest.mark.parametrize("size", [1, 3, 4, 5, 67])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_update_is_keras_sgd_with_heavy_ball_momentum(kernels: Kernels, size: int, momentum: float) -> None:
    import keras

    rng = np.random.default_rng(size)
    weight, buffer = rng.normal(size=size).astype(np.float32), np.zeros(size, np.float32)
    variable = keras.Variable(weight)
    sgd = keras.optimizers.SGD(learning_rate=0.05, momentum=momentum)
    for _ in range(4):
        gradient = rng.normal(size=size).astype(np.float32)
        buffer += gradient
        kernels.update(weight, buffer, 0.05, momentum)
        sgd.apply([gradient], [variable])
    np.testing.assert_allclose(weight, np.asarray(variable), rtol=0, atol=1e-6)
    assert momentum or not buffer.any()


def test_an_update_without_momentum_clears_a_nan_from_the_buffer_not_from_the_weight(kernels: Kernels) -> None:
    weight, gradient = np.ones(5, np.float32), np.full(5, np.nan, np.float32)
    kernels.update(weight, gradient, 0.1, 0.0)
    assert np.isnan(weight).all() and not gradient.any()


@pytest.mark.parametrize("x, finite", [(0, True), (-3e38, True), (1e-45, True), (np.inf, False), (np.nan, False)])
def test_is_finite(kernels: Kernels, x: float, finite: bool) -> None:
    import ctypes

    function = kernels.library.engine_is_finite
    function.restype = ctypes.c_bool
    assert function(ctypes.c_float(x)) is finite


@pytest.mark.parametrize("place", range(9))
def test_max_pool_does_not_lose_a_nan(kernels: Kernels, place: int) -> None:
    x = np.arange(9, dtype=np.float32).reshape(3, 3, 1)
    x.flat[place] = np.nan
    out, argmax = kernels.max_pool(Layer("max_pool", (3, 3, 1), kernel=(3, 3)), x)
    assert np.isnan(out).all() and argmax.item() == 0xF0 | place  # four of eight bits


@pytest.mark.parametrize("kind", ["dense", "conv2d", "depthwise"])
@pytest.mark.parametrize("slope", [0.0, 0.1])
def test_layers_do_not_lose_a_nan(kernels: Kernels, kind: Kind, slope: float) -> None:
    layer = Layer(kind, (1, 1, 6), 6, slope=slope)
    x, weight, bias = np.ones(layer.size, np.float32), np.ones(layer.weight_shape, np.float32), np.zeros(6, np.float32)
    x.flat[3] = np.nan
    out = kernels.forward(layer, kernels.activate(x, slope), weight, bias)
    assert np.isnan(out.flat[3])
    zeros = Gradients(np.zeros_like(weight), np.zeros_like(bias))
    after = kernels.backward(layer, np.ones_like(x), weight, zeros, np.full_like(out, np.nan), 1.0)
    for gradient in (after.input, after.weight, after.bias):
        assert gradient is not None and np.isnan(gradient).all()


def test_a_dead_relu_passes_nothing_on(kernels: Kernels) -> None:
    layer = Layer("dense", (1, 1, 2), 3, slope=0.0)
    zeros = Gradients(np.zeros((1, 2, 3), np.float32), np.zeros(3, np.float32))
    weight, ones = np.ones((1, 2, 3), np.float32), np.ones((1, 1, 3), np.float32)
    after = kernels.backward(layer, np.array([[[0, 2]]], np.float32), weight, zeros, ones, 1.0)
    np.testing.assert_array_equal(after.input, [[[0, 3]]])
    np.testing.assert_array_equal(after.weight, [[[0, 0, 0], [2, 2, 2]]])
