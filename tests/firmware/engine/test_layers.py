"""Every layer kernel against Keras and tf.GradientTape, then over random shapes against plain numpy."""

from __future__ import annotations

from typing import Any, Literal, get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.firmware.engine import reference
from tests.firmware.engine.checks import check_layer
from tests.firmware.engine.layers import F64, Expected, Kernels, Kind, Layer
from tests.firmware.engine.table import LAYERS


def keras_layer(layer: Layer) -> Any:
    import keras

    window = {"strides": layer.stride, "padding": layer.padding, "dtype": "float64"}
    if layer.kind == "dense":
        return keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(layer.out, dtype="float64")])
    if layer.kind == "conv2d":
        return keras.layers.Conv2D(layer.out, layer.kernel, **window)
    if layer.kind == "depthwise":
        return keras.layers.DepthwiseConv2D(layer.kernel, depth_multiplier=layer.out // layer.size[2], **window)
    pool = keras.layers.MaxPooling2D if layer.kind == "max_pool" else keras.layers.AveragePooling2D
    return pool(layer.kernel, **window)


def keras_oracle(layer: Layer, x: F64, weight: F64 | None, bias: F64 | None, out_gradient: F64) -> Expected:
    import keras
    import tensorflow as tf

    before = np.where(x > 0, x, x / layer.slope if layer.slope else -1.0)
    z = tf.Variable(before[None])
    built = keras_layer(layer)
    built.build(z.shape)
    if weight is not None:
        kernel, offset = built.trainable_variables
        kernel.assign(weight.reshape(kernel.shape))
        offset.assign(bias)
    with tf.GradientTape() as tape:
        out = built(keras.layers.LeakyReLU(negative_slope=layer.slope, dtype="float64")(z))
        total = tf.reduce_sum(out * out_gradient.reshape(out.shape))
    values = [z, *(variable.value for variable in built.trainable_variables)]
    gradients = [np.asarray(gradient) for gradient in tape.gradient(total, values)]
    none = np.zeros(())
    return Expected(
        np.asarray(out).reshape(layer.out_shape),
        gradients[0][0],
        none if weight is None else gradients[1].reshape(weight.shape),
        none if weight is None else gradients[2],
    )


@pytest.mark.parametrize("layer", LAYERS, ids=str)
def test_agrees_with_keras(kernels: Kernels, layer: Layer) -> None:
    check_layer(kernels, layer, keras_oracle)


@st.composite
def random_layers(draw: st.DrawFn) -> Layer:
    kind: Kind = draw(st.sampled_from(get_args(Kind)))
    padding: Literal["same", "valid"] = draw(st.sampled_from(["same", "valid"]))
    kernel = draw(st.tuples(st.integers(1, 5), st.integers(1, 5)))
    stride = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    least = (1, 1) if padding == "same" or kind == "dense" else kernel
    size = draw(st.tuples(st.integers(least[0], 8), st.integers(least[1], 8), st.integers(1, 9)))
    out = size[2] * draw(st.integers(1, 3)) if kind == "depthwise" else draw(st.integers(1, 35))
    wider = draw(st.integers(0, 3))
    stored = (size[2] + wider, (size[2] + wider) * out // size[2] if kind == "depthwise" else out + wider)
    slope = draw(st.sampled_from([0.0, 0.1, 1.0]))
    return Layer(kind, size, out, kernel, stride, padding, slope, stored)


@settings(max_examples=150, deadline=None)
@given(layer=random_layers(), seed=st.integers(0, 1000))
def test_agrees_with_numpy(kernels: Kernels, layer: Layer, seed: int) -> None:
    check_layer(kernels, layer, reference.oracle, seed)
