"""Every fixed-point kernel against plain Python, to the bit: results, shifts, weights, what was held, the generator."""

from __future__ import annotations

from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.firmware.engine.fixed_cases import Case, Spread, cases, everything, numbers
from tests.firmware.engine.fixed_kernels import FixedKernels
from tests.firmware.engine.fixed_numbers import LINEAR, Target, Values, Weights, lost_bits
from tests.firmware.engine.fixed_reference import Reference
from tests.firmware.engine.layers import Kernels, Layer
from tests.firmware.engine.table import LAYERS

LONG = [  # sums of more than 256 and 512 products
    Layer("dense", (1, 1, 257), 3),
    Layer("dense", (1, 1, 700), 2, stored=(701, 3)),
    Layer("dense", (2, 3, 300), 2),
    Layer("dense", (1, 1, 2), 1100),
    Layer("conv2d", (3, 3, 70), 2, (3, 3), padding="same"),
    Layer("conv2d", (2, 3, 2), 71, (3, 3), (1, 2), "same", stored=(2, 72)),
    Layer("conv2d", (1, 4, 300), 3, (1, 2)),
    Layer("depthwise", (18, 18, 1), 1, (17, 17)),
    Layer("depthwise", (3, 3, 1), 40, (3, 3), padding="same"),
]


@pytest.fixture(scope="session")
def fixed(kernels: Kernels) -> FixedKernels:
    return FixedKernels(kernels.library)


def check(fixed: FixedKernels, case: Case) -> None:
    for actual, expected in zip(everything(fixed, case), everything(Reference(), case), strict=True):
        assert actual == expected


@settings(max_examples=200, deadline=None)
@given(case=cases)
def test_agrees_with_plain_python(fixed: FixedKernels, case: Case) -> None:
    check(fixed, case)


@pytest.mark.parametrize("layer", LAYERS, ids=str)
def test_agrees_on_the_shapes_of_the_float_engine(fixed: FixedKernels, layer: Layer) -> None:
    check(fixed, Case(layer, seed=3))


@pytest.mark.parametrize("layer", LONG, ids=str)
@pytest.mark.parametrize("spread", ["any", "largest", "extreme"])
def test_agrees_on_long_sums(fixed: FixedKernels, layer: Layer, spread: Spread) -> None:
    check(fixed, Case(layer, seed=1, spreads=(spread, spread, spread), slope=LINEAR))


@pytest.mark.parametrize("x, w", [(127, 32767), (127, -32768), (-127, -32768)])
@pytest.mark.parametrize("terms", [256, 512, 1000, 65535])
@pytest.mark.parametrize("forward", [True, False])
def test_the_largest_sum_fits_32_bits(fixed: FixedKernels, x: int, w: int, terms: int, forward: bool) -> None:
    """Every product and the bias at its end; the oracle asserts that no sum overflows."""
    layer = Layer("dense", (1, 1, terms), 1) if forward else Layer("dense", (1, 1, 1), terms)
    results = []
    for machine in (Reference(), fixed):
        machine.seed(1)
        weights = Weights([w] * terms, [w] * layer.out, -14, -14 + (14 - 7 if forward else 0))
        if forward:
            results.append(machine.forward(layer, Values(-7, [x] * terms), weights, LINEAR, 0))
        else:
            results.append(machine.backward(layer, Values(-7, [1]), weights, Values(-20, [x] * terms), LINEAR, 0))
    assert results[0] == results[1]
    exact = terms * x * w + (w * 2**14 if forward else 0)
    assert abs(exact >> lost_bits(terms)) < 2**31
    values, _ = results[1]
    assert values.at[0] * 2 ** (values.exponent + (21 if forward else 34)) == pytest.approx(exact, rel=1 / 64)


def test_a_bias_beside_tiny_inputs_is_not_cut_off(fixed: FixedKernels) -> None:
    for exponent in (-7, -20, -60, -100):
        out, _ = fixed.forward(
            Layer("dense", (1, 1, 1), 1), Values(exponent, [1]), Weights([1], [32767], -13, -13), LINEAR, 0
        )
        assert out.at[0] * 2.0**out.exponent == pytest.approx(4, rel=1 / 64)


@pytest.mark.parametrize("exponent, held", [(-100, -100), (100, 100)])
def test_an_exponent_does_not_wrap_round(fixed: FixedKernels, exponent: int, held: int) -> None:
    weights = Weights([1], None, 40 if held > 0 else -40, 0)
    out, _ = fixed.forward(Layer("dense", (1, 1, 1), 1), Values(exponent, [1]), weights, LINEAR, 0)
    assert out.exponent == held


@settings(max_examples=300, deadline=None)
@given(
    value=st.integers(-(2**31) + 2**16, 2**31 - 2**16), exponent=st.integers(-60, 60), seed=st.integers(0, 2**32 - 1)
)
def test_rounded_to_16_bits(fixed: FixedKernels, value: int, exponent: int, seed: int) -> None:
    results = []
    for machine in (Reference(), fixed):
        machine.seed(seed)
        machine.saturated = 0
        results.append((machine.rounded(value, exponent), machine.saturated, machine.state))
    assert results[0] == results[1]


@settings(max_examples=300, deadline=None)
@given(
    logits=st.lists(st.integers(-32768, 32767) | st.integers(-600, 600), min_size=1, max_size=12),
    spread=st.sampled_from(get_args(Spread)),
    soft=st.booleans(),
    adjusted=st.booleans(),
    temperature=st.integers(256, 4096),
    step=st.floats(2**-40, 2**20, width=32),
    seed=st.integers(0, 2**32 - 1),
)
def test_cross_entropy_agrees_with_plain_python(
    fixed: FixedKernels, logits: list[int], spread: Spread, soft: bool, adjusted: bool, temperature: int, step: float,
    seed: int,
) -> None:  # fmt: skip
    import random

    rng = random.Random(seed)
    cuts = sorted(rng.randint(0, 32768) for _ in logits[1:])
    shares = [b - a for a, b in zip([0, *cuts], [*cuts, 32768], strict=True)]
    adjustment = numbers(rng, spread, len(logits), 32767)
    target = Target(rng.randrange(len(logits)), shares if soft else None, adjustment if adjusted else None, temperature)
    results = []
    for machine in (Reference(), fixed):
        machine.seed(seed)
        results.append((machine.cross_entropy(list(logits), target, step), machine.state))
    assert results[0] == results[1]


def test_the_seed_is_never_the_state_that_stays(fixed: FixedKernels) -> None:
    for seed in (0, 0x00010001, 0xFFFFFFFF, 0x12345678):
        fixed.seed(seed)
        assert fixed.state != 0
        reference = Reference()
        reference.seed(seed)
        assert reference.state == fixed.state


def test_a_frozen_layer_is_only_read(fixed: FixedKernels) -> None:
    case = Case(Layer("conv2d", (4, 4, 2), 3, (3, 3)), seed=2, frozen=True)
    x, weights, gradient, _ = case.inputs()
    before = list(weights.kernel)
    fixed.backward(case.layer, x, weights, gradient, case.slope, 0)
    assert weights.kernel == before
