"""The law of equal bits: however the engine is compiled, training ends in the same weights."""

from __future__ import annotations

import numpy as np
import pytest

from tests.firmware.conftest import CompileShared
from tests.firmware.engine.conftest import INCLUDE, SOURCES
from tests.firmware.engine.layers import F32, Kernels
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


def test_training_learns(trained: Trained) -> None:
    losses = np.array(trained[1])
    assert np.isfinite(losses).all() and losses[-20:].mean() < 0.7 * losses[:20].mean()


def test_another_seed_gives_other_bits(kernels: Kernels, trained: Trained) -> None:
    assert train(kernels, 2, seed=2)[1] != trained[1][:4]
