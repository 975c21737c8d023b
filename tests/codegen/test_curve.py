"""Fifty steps of SGD in C and in Keras's float64: the same losses."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from codegen.header import model_header
from codegen.keras_reader import read_model
from codegen.planner import Plan, Training, plan
from codegen.tiers import SubModel, Tier, channels, hidden_layers, sub_model
from tests.codegen.support import Array, Compiled, Sample, board, build_keras, random_weights, step

STEPS, BATCH, RATE, MOMENTUM = 50, 4, 0.1, 0.5
SHAPE = (6, 6, 1)
LAYERS = (
    step("Conv2D", filters=4, kernel_size=3, padding="same"),
    step("LeakyReLU", negative_slope=0.1),
    step("DepthwiseConv2D", kernel_size=3, strides=2, padding="same"),
    step("Conv2D", filters=6, kernel_size=1, activation="relu"),
    step("MaxPooling2D", pool_size=2, strides=1),
    step("Flatten"),
    step("Dense", units=3),
    step("Softmax"),
)
WIDE, NARROW = Tier("wide", 1.0), Tier("narrow", 0.5)


class Reference:
    """Keras at one width, in float64; reads the weights of the own width and gives gradients for them."""

    def __init__(self, sub: SubModel) -> None:
        import tensorflow as tf

        self.sub = sub
        self.model = build_keras(SHAPE, LAYERS, [layer.out_shape[2] for layer in hidden_layers(sub.graph)])

        @tf.function(reduce_retracing=True)  # type: ignore[untyped-decorator]
        def gradients(x: Any, labels: Any) -> Any:
            with tf.GradientTape() as tape:
                chosen = tf.gather(self.model(x, training=True), labels, batch_dims=1)
                loss = -tf.reduce_sum(tf.math.log(chosen))
            return loss, tape.gradient(loss, [variable.value for variable in self.model.weights])

        self._gradients = gradients

    def gradients(self, weights: list[Array], x: Array, labels: Array) -> tuple[float, list[Array]]:
        """Return the summed loss, and its gradients where they lie in the own width."""
        self.model.set_weights([w[np.ix_(*axes)] for w, axes in zip(weights, self.sub.slices, strict=True)])
        loss, found = self._gradients(x, labels)
        spread = [np.zeros_like(weight) for weight in weights]
        for blank, axes, gradient in zip(spread, self.sub.slices, found, strict=True):
            blank[np.ix_(*axes)] = gradient.numpy()
        return float(loss), spread


def batches() -> Iterator[tuple[Array, Array]]:
    """Yield the pixels and labels of each step."""
    generator = np.random.default_rng(5)
    for _ in range(STEPS):
        labels = generator.integers(0, 3, BATCH)
        pixels = generator.integers(0, 100, (BATCH, *SHAPE))
        pixels[np.arange(BATCH), 2 * labels] += 150  # a bright row tells the label
        yield pixels.astype(np.uint8), labels


def in_keras(references: list[Reference], weights: list[Array], summed: bool) -> list[float]:
    """Return the loss of each step, summed over samples and widths."""
    velocity = [np.zeros_like(weight) for weight in weights]
    curve = []
    for pixels, labels in batches():
        x, total = pixels * np.float64(np.float32(1 / 255)), 0.0
        parts = [slice(None)] if summed else [slice(index, index + 1) for index in range(BATCH)]
        for part in parts:
            for reference in references:
                loss, gradients = reference.gradients(weights, x[part], labels[part])
                total += loss
                velocity = [v + g for v, g in zip(velocity, gradients, strict=True)]
                if not summed:
                    weights = [w - RATE / BATCH * v for w, v in zip(weights, velocity, strict=True)]
                    velocity = [v * 0 for v in velocity]
        if summed:
            weights = [w - RATE / BATCH * v for w, v in zip(weights, velocity, strict=True)]
            velocity = [v * MOMENTUM for v in velocity]
        curve.append(total)
    return curve


def in_c(compiled: Compiled, planned: Plan) -> list[float]:
    """Return the same from the generated code."""
    curve = []
    for pixels, labels in batches():
        total = 0.0
        for image, label in zip(pixels, labels, strict=True):
            sample = Sample(image.tobytes(), 1 / 255, 0.0)
            for width in range(len(planned.widths)):
                total += compiled.backprop(width, sample, int(label), 1.0 if planned.accumulates else RATE / BATCH)
        if planned.accumulates:
            compiled.update(RATE / BATCH, MOMENTUM)
        curve.append(total)
    return curve


@pytest.mark.parametrize("summed", [True, False])
def test_loss_curve_is_keras(engine: list[Path], tmp_path: Path, summed: bool) -> None:
    model = build_keras(SHAPE, LAYERS)
    weights = random_weights(model, np.random.default_rng(3))
    graph = read_model(model)
    training = Training(BATCH, MOMENTUM) if summed else Training(1)
    planned = plan(board(), graph, [WIDE, NARROW], WIDE, training)
    assert channels(graph, NARROW) == (2, 3)
    compiled = Compiled(model_header(planned, weights), engine, tmp_path / "c")
    compiled.floats("model_weights", graph.parameters)[:] = np.concatenate([weight.ravel() for weight in weights])

    references = [Reference(sub_model(graph, tier)) for tier in (WIDE, NARROW)]
    expected = in_keras(references, [weight.astype(np.float64) for weight in weights], summed)
    assert np.mean(expected[-5:]) < expected[0] / 2
    assert np.max(np.abs(np.subtract(in_c(compiled, planned), expected))) <= 1e-5 * np.max(expected)
