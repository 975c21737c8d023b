"""The law of equal bits: however the engine is compiled, training ends in the same weights."""

from __future__ import annotations

import numpy as np
import pytest

from tests.firmware.conftest import CompileShared
from tests.firmware.engine.conftest import INCLUDE, SOURCES
from tests.firmware.engine.layers import F32, Gradients, Kernels, Layer
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
        ("-O2", "-DENGINE_TILE=0"),  # the convolution's way back, by element as on x86 and AVR
        ("-O2", "-DENGINE_TILE=8"),  # and by pixel as on the other chips
        ("-Os", "-DENGINE_TILE=3"),  # with a last tile that is not full
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
@pytest.mark.parametrize("out", [7, 8, 19])
def test_both_ways_back_through_a_convolution_leave_the_same_bits(
    compile_shared: CompileShared, out: int, slope: float
) -> None:
    """With dead inputs, gradients of minus zero, and more channels stored than used."""
    rng = np.random.default_rng(out)
    layer = Layer("conv2d", (5, 6, 11), out, (3, 2), (1, 2), "same", slope, (12, out + 3))
    x, flow = (np.maximum(rng.normal(size=shape), 0).astype(np.float32) for shape in (layer.size, layer.out_shape))
    weight, gradient = (rng.normal(size=layer.weight_shape).astype(np.float32) for _ in range(2))
    ways = [Kernels(compile_shared(SOURCES, ("-O2", f"-DENGINE_TILE={tile}", INCLUDE))) for tile in (0, 8)]
    for before in (Gradients(gradient, np.zeros(out, np.float32)), Gradients(None, None)):
        one, other = (kernels.backward(layer, x, weight, before, -flow, 0.3) for kernels in ways)
        for expected, actual in ((one.input, other.input), (one.weight, other.weight), (one.bias, other.bias)):
            assert (actual is None) == (expected is None)
            assert actual is None or expected is None or actual.tobytes() == expected.tobytes()


def test_training_learns(trained: Trained) -> None:
    losses = np.array(trained[1])
    assert np.isfinite(losses).all() and losses[-20:].mean() < 0.7 * losses[:20].mean()


def test_another_seed_gives_other_bits(kernels: Kernels, trained: Trained) -> None:
    assert train(kernels, 2, seed=2)[1] != trained[1][:4]
