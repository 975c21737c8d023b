"""The law of equal bits: however the engine is compiled, training ends in the same weights."""

from __future__ import annotations

import numpy as np
import pytest

from tests.firmware.conftest import CompileShared
from tests.firmware.engine.conftest import INCLUDE, SOURCES
from tests.firmware.engine.layers import F32, Bytes, Gradients, Kernels, Layer
from tests.firmware.engine.training import train

STEPS = 120
Trained = tuple[list[F32], list[float]]


@pytest.fixture(scope="module")
def trained(kernels: Kernels) -> Trained:
    return train(kernels, STEPS, seed=1)


@pytest.mark.parametrize(
    "flags",
    [
        ("-O0",),
        ("-Os",),
        ("-O3", "-march=native"),
        ("-O2", "-DENGINE_BLOCK=0"),  # the loop that AVR runs, and the plainest one
        ("-O3", "-march=native", "-DENGINE_BLOCK=32"),
        ("-O2", "-DENGINE_SSE=0"),  # convolutions as AVR has them, with blocks
        ("-O2", "-DENGINE_SSE=0", "-DENGINE_TILE=8"),  # their way back by pixel, as on the other chips
        ("-Os", "-DENGINE_SSE=0", "-DENGINE_TILE=3"),  # with a last tile that is not full
    ],
    ids=" ".join,
)
def test_every_build_trains_to_the_same_bits(
    compile_shared: CompileShared, trained: Trained, flags: tuple[str, ...]
) -> None:
    weights, losses = train(Kernels(compile_shared(SOURCES, (*flags, INCLUDE))), STEPS, seed=1)
    assert losses == trained[1]
    for actual, expected in zip(weights, trained[0], strict=True):
        np.testing.assert_array_equal(actual.view(np.uint32), expected.view(np.uint32))


@pytest.mark.parametrize("slope", [0.0, 0.1])
@pytest.mark.parametrize(
    "channels, out, kernel",
    [
        (11, 7, (3, 2)),
        (11, 8, (3, 2)),
        (11, 19, (3, 2)),
        (1, 2, (3, 3)),
        (3, 4, (2, 5)),
        (2, 12, (3, 3)),
        (5, 1, (1, 4)),
    ],
)
def test_every_form_of_a_convolution_leaves_the_same_bits(
    compile_shared: CompileShared, channels: int, out: int, kernel: tuple[int, int], slope: float
) -> None:
    """With zeros among the inputs, sums of minus zero, and more channels stored than used."""
    rng = np.random.default_rng(out)
    layer = Layer("conv2d", (5, 15, channels), out, kernel, (1, 2), "same", slope, (channels + 1, out + 3))
    forms = (("-DENGINE_SSE=0", "-DENGINE_TILE=0"), ("-DENGINE_SSE=0", "-DENGINE_TILE=8"), ())
    values, flow, weight, gradient, bias = (
        (rng.normal(size=shape) * rng.choice([1, 0, -0.0], shape, p=[0.7, 0.2, 0.1])).astype(np.float32)
        for shape in (layer.size, layer.out_shape, layer.weight_shape, layer.weight_shape, out)
    )
    sample = Bytes((rng.integers(0, 256, layer.size) * (rng.random(layer.size) < 0.5)).astype(np.uint8), 0.01, 0.0)
    left = []
    for form in forms:
        kernels = Kernels(compile_shared(SOURCES, ("-O2", *form, INCLUDE)))
        before = Gradients(gradient, bias)
        arrays = [kernels.forward(layer, x, weight, bias) for x in (values, sample)]
        ways = [kernels.backward_first(layer, x, before, -flow, 0.3) for x in (values, sample)]
        ways += [kernels.backward(layer, values, weight, b, -flow, 0.3) for b in (before, Gradients(None, None))]
        arrays += [a for way in ways for a in (way.input, way.weight, way.bias) if a is not None]
        left.append([array.tobytes() for array in arrays])
    assert len(left[0]) == 10 and left[0] == left[1] == left[2]


def test_training_learns(trained: Trained) -> None:
    losses = np.array(trained[1])
    assert np.isfinite(losses).all() and losses[-20:].mean() < 0.7 * losses[:20].mean()


def test_another_seed_gives_other_bits(kernels: Kernels, trained: Trained) -> None:
    assert train(kernels, 2, seed=2)[1] != trained[1][:4]
