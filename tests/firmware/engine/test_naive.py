"""The fast kernels equal the textbook's to the bit: any shape, stride and padding, any width of what is stored."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.firmware.conftest import CompileShared
from tests.firmware.engine.conftest import INCLUDE, SOURCES
from tests.firmware.engine.layers import F32, U8, Gradients, Kernels, Layer
from tests.firmware.engine.test_layers import random_layers

NAIVE = Path(__file__).with_name("naive.c")
FORMS = ((), ("-DENGINE_BLOCK=0",), ("-DENGINE_TILE=8",))  # this machine's, AVR's, the other chips'


@pytest.fixture(scope="module", params=FORMS, ids=lambda form: "".join(form) or "usual")
def fast(compile_shared: CompileShared, request: pytest.FixtureRequest) -> Kernels:
    return Kernels(compile_shared(SOURCES, ("-O2", *request.param, INCLUDE)))


@pytest.fixture(scope="module")
def naive(compile_shared: CompileShared) -> Kernels:
    return Kernels(compile_shared([NAIVE], ("-O1", INCLUDE)), "naive")


def results(kernels: Kernels, layer: Layer, seed: int) -> Iterator[F32 | U8 | None]:
    """Yield all that a layer's kernels make of random numbers, among them zeros of both signs."""
    rng = np.random.default_rng(seed)

    def some(shape: tuple[int, ...]) -> F32:
        return (rng.normal(size=shape) * (rng.random(shape) < 0.8)).astype(np.float32)

    x, d = some(layer.size), some(layer.out_shape)
    if layer.kind == "max_pool":
        x = (np.round(2 * x) / 2).astype(np.float32)  # ties
        out, argmax = kernels.max_pool(layer, x)
        yield from (out, argmax, kernels.pool_backward(layer, x, d, argmax))
    elif not layer.weighted:
        yield from (kernels.forward(layer, x), kernels.pool_backward(layer, x, d))
    else:
        weight, bias = some(layer.weight_shape), some((layer.out,))
        before = Gradients(some(layer.weight_shape), some((layer.out,)))
        yield kernels.forward(layer, x, weight, bias)
        yield kernels.forward(layer, x, weight, None)
        ways = [
            kernels.backward(layer, x, weight, before, d, -0.3),
            kernels.backward(layer, x, weight, Gradients(None, None), d, -0.3),  # frozen
            kernels.backward(layer, x, weight, Gradients(before.weight, None), d, -0.3),
            kernels.backward_first(layer, x, before, d, -0.3),
        ]
        if layer.kind == "dense":
            ways.append(kernels.backward(layer, x, weight, before, d, -0.3, fused=True))
        for after in ways:
            yield from (after.input, after.weight, after.bias)


@settings(max_examples=150, deadline=None)
@given(layer=random_layers(), seed=st.integers(0, 1000))
def test_fast_is_naive_to_the_bit(fast: Kernels, naive: Kernels, layer: Layer, seed: int) -> None:
    for found, expected in zip(results(fast, layer, seed), results(naive, layer, seed), strict=True):
        assert (found is None) == (expected is None)
        assert found is None or expected is None or found.tobytes() == expected.tobytes()
