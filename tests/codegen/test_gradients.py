"""Random models: slices, Keras and the compiled header agree, forward and in every gradient."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from codegen.graph import Graph
from codegen.header import model_header
from codegen.keras_reader import read_model
from codegen.planner import Training, plan
from codegen.tiers import SubModel, Tier, channel_order, channels, hidden_layers, sub_model
from codegen.weights import pack, unpack
from tests.codegen.support import Array, Compiled, Sample, Step, board, build_keras, random_weights, step

TOLERANCE = 1e-5
RANGE = (-0.5, 1.5)
FUSED, SUMMED = Training(batch=1, input_range=RANGE), Training(batch=8, input_range=RANGE)


@dataclass(frozen=True)
class Case:
    """A model, which layers train, two nested tiers and a sample."""

    shape: tuple[int, ...]
    steps: tuple[Step, ...]
    frozen: int  # bits: one a layer with weights
    widths: tuple[float, float]
    rolled: int
    seed: int


ACTIVATIONS = st.sampled_from([None, "linear", "relu", "leaky_relu", "layer"])


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Draw a model of two to five layers that compute, of all kinds."""
    dimensions = draw(st.sampled_from([2, 2, 2, 1, 1, 0]))
    size = tuple(draw(st.integers(3, 7)) for _ in range(dimensions))
    shape = (*size, draw(st.integers(1, 3))) if dimensions else (draw(st.integers(2, 12)),)
    steps: list[Step] = []
    for index in range(draw(st.integers(1, 3)) if dimensions else 0):
        kinds = ["Conv", "Conv"] + ["Max", "Average"] * (index > 0) + ["Depthwise"] * (dimensions == 2)
        size = draw(windows(steps, draw(st.sampled_from(kinds)), size))
    pooled = bool(steps) and draw(st.booleans())
    if pooled:
        steps.append(step(f"Global{draw(st.sampled_from(['Max', 'Average']))}Pooling{dimensions}D"))
    elif dimensions:
        steps.append(step("Flatten"))
    if draw(st.booleans()):
        steps.append(step("Dense", units=draw(st.integers(2, 6)), use_bias=draw(st.booleans())))
        activate(draw, steps)
    steps.append(step("Dense", units=draw(st.integers(2, 4)), use_bias=draw(st.booleans())))
    if draw(st.booleans()):
        steps.append(step("Softmax"))
    wide = draw(st.sampled_from([1.0, 0.7, 0.5]))
    frozen = draw(st.sampled_from([0, 0, 1, 2, 3, 5]))
    return Case(shape, tuple(steps), frozen, (wide, wide / 2), draw(st.integers(0, 3)), draw(st.integers(0, 999)))


@st.composite
def windows(draw: st.DrawFn, steps: list[Step], kind: str, size: tuple[int, ...]) -> tuple[int, ...]:
    """Append a convolution or a pooling layer; return the size of what comes out of it."""
    padding = draw(st.sampled_from(["same", "valid"]))
    kernel = tuple(draw(st.integers(1, 3 if padding == "same" else min(3, side))) for side in size)
    stride = (draw(st.integers(1, 3)),) * len(size)  # Keras has only equal strides in depthwise convolutions
    common = {"strides": stride, "padding": padding}
    if kind == "Conv":
        bias = draw(st.booleans())
        filters = draw(st.integers(2, 6))
        steps.append(step(f"Conv{len(size)}D", filters=filters, kernel_size=kernel, use_bias=bias, **common))
    elif kind == "Depthwise":
        steps.append(step("DepthwiseConv2D", kernel_size=kernel, use_bias=draw(st.booleans()), **common))
    else:
        steps.append(step(f"{kind}Pooling{len(size)}D", pool_size=kernel, **common))
    activate(draw, steps)
    reach = [1 if padding == "same" else taps for taps in kernel]
    return tuple((side - taps) // jump + 1 for side, taps, jump in zip(size, reach, stride, strict=True))


def activate(draw: st.DrawFn, steps: list[Step]) -> None:
    """Perhaps put an activation after the last layer, in one of the ways that Keras knows."""
    activation = draw(ACTIVATIONS)
    if activation == "layer":
        steps.append(step("LeakyReLU", negative_slope=draw(st.sampled_from([0.1, 0.3]))))
    elif activation is not None and "Pooling" in steps[-1].kind:
        steps.append(step("Activation", activation=activation))
    elif activation is not None:
        steps[-1] = Step(steps[-1].kind, (*steps[-1].arguments, ("activation", activation)))


def read(case: Case) -> tuple[Graph, list[Array], Any]:
    """Return the global graph, its weights, and the Keras model that holds them."""
    model = build_keras(case.shape, case.steps)
    weights = random_weights(model, np.random.default_rng(case.seed))
    names = [layer.name for layer in model.layers if layer.get_weights()]
    trained = [name for index, name in enumerate(names) if not case.frozen >> index & 1]
    return read_model(model, trained or names[-1:]), weights, model


def close(found: Array | float, expected: Array | float) -> bool:
    """Whether the largest difference is small against the largest value."""
    return bool(np.max(np.abs(np.subtract(found, expected))) <= TOLERANCE * np.max(np.abs(expected)))


def reference(
    case: Case, sub: SubModel, weights: Sequence[Array], x: Array, label: int
) -> tuple[Array, float, list[Array]]:
    """Return Keras's output, loss and trainable gradients on the sliced weights, in float64."""
    import tensorflow as tf

    model = build_keras(case.shape, case.steps, [layer.out_shape[2] for layer in hidden_layers(sub.graph)])
    model.set_weights(sub.cut(weights))
    with tf.GradientTape() as tape:
        output = model(x, training=False)[0]
        loss = -tf.math.log(output[label]) if sub.graph.softmax else tf.reduce_logsumexp(output) - output[label]
    gradients = tape.gradient(loss, [variable.value for variable in model.weights], unconnected_gradients="zero")
    kept = [g.numpy() for t, g in zip(sub.graph.tensors, gradients, strict=True) if t.trainable]
    return output.numpy(), float(loss), kept


def visible(gradients: Sequence[Array]) -> float:
    """Return a scale at which every gradient is larger than a weight's rounding when it is taken off the weights."""
    sizes = [float(np.max(np.abs(gradient))) for gradient in gradients]
    return 16.0 / min(size for size in (*sizes, 1.0) if size > 0)


def masked(sub: SubModel, weights: Sequence[Array]) -> list[Array]:
    """Return the global weights with zeros wherever the sub-model has nothing."""
    kept = []
    for weight, axes in zip(weights, sub.slices, strict=True):
        blank = np.zeros_like(weight)
        blank[np.ix_(*axes)] = weight[np.ix_(*axes)]
        kept.append(blank)
    return kept


def within(own: SubModel, narrow: SubModel, gradients: Sequence[Array]) -> list[Array]:
    """Return the narrower width's gradients where they lie in the tensors of the node's own width."""
    inner = sub_model(own.graph, Tier("inner", channels=channels(narrow.graph, Tier("whole", 1.0))))
    spread = []
    trainable = [pair for pair in zip(own.graph.tensors, inner.slices, strict=True) if pair[0].trainable]
    for (tensor, axes), gradient in zip(trainable, gradients, strict=True):
        blank = np.zeros(tensor.shape)
        blank[np.ix_(*axes)] = gradient
        spread.append(blank)
    return spread


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """New folders, one after the other."""
    root = tmp_path_factory.mktemp("compiled")
    return (root / str(index) for index in range(10**6))


@settings(max_examples=15, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
@given(case=cases())
def test_slices_keras_and_c_agree(engine: list[Path], folders: Any, case: Case) -> None:
    graph, weights, keras_model = read(case)
    tiers = [Tier("wide", case.widths[0]), Tier("narrow", case.widths[1])]
    order = channel_order(graph, "rolling", case.rolled, weights)
    subs = [sub_model(graph, tier, order) for tier in tiers]
    own = subs[0]
    pixels = np.random.default_rng(case.seed + 1).integers(0, 256, graph.features, dtype=np.uint8)
    scale = np.float32(SUMMED.input_scale)
    x = (pixels.astype(np.float32) * scale + np.float32(RANGE[0])).astype(np.float64).reshape(1, *case.shape)
    label = case.seed % graph.classes
    sample = Sample(pixels.tobytes(), scale, RANGE[0])

    for training in (SUMMED, FUSED):
        planned = plan(board(), graph, tiers, tiers[0], training)
        compiled = Compiled(model_header(planned, weights), engine, next(folders))
        for width in range(len(planned.widths)):
            output, loss, gradients = reference(case, subs[width], weights, x, label)
            if training is SUMMED:
                keras_model.set_weights(masked(subs[width], weights))
                assert close(keras_model(x, training=False)[0], output)
            held = compiled.floats("model_weights", own.graph.parameters)
            held[:] = np.frombuffer(pack(planned, own.cut(weights)), dtype="<f4")
            before = held.copy()
            logits = compiled.forward(width, sample, graph.classes)
            assert close(np.exp(logits) / np.exp(logits).sum() if graph.softmax else logits, output)
            factor = 1.0 if training is SUMMED else visible(gradients)
            assert close(compiled.backprop(width, sample, label, factor), loss)
            if training is SUMMED:
                summed = compiled.floats("model_gradients", own.graph.parameters)
                taken = summed.copy()
                summed[:] = 0
            else:
                taken = (before - held) / factor
            for found, expected in zip(
                unpack(planned, taken.astype("<f4").tobytes()), within(own, subs[width], gradients), strict=True
            ):
                assert close(found, expected)
                assert not found[expected == 0].any() or width == 0
