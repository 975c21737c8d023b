"""Random and extreme cases for the fixed-point kernels, and the check that both implementations agree to the bit."""

from __future__ import annotations

import copy
import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args

from hypothesis import strategies as st

from tests.firmware.engine.fixed_numbers import LINEAR, Sample, Values, Weights
from tests.firmware.engine.layers import Kind, Layer

Spread = Literal["any", "small", "largest", "extreme", "sparse", "zero"]


def numbers(rng: random.Random, spread: Spread, count: int, limit: int) -> list[int]:
    """Return `count` numbers within ±limit."""
    draw: dict[Spread, Callable[[], int]] = {
        "any": lambda: rng.randint(-limit, limit),
        "small": lambda: rng.randint(-3, 3),
        "largest": lambda: limit,
        "extreme": lambda: rng.choice([-limit, limit]),
        "sparse": lambda: rng.choice([0, 0, 0, rng.randint(-limit, limit)]),
        "zero": lambda: 0,
    }
    return [draw[spread]() for _ in range(count)]


@dataclass(frozen=True)
class Case:
    """One layer with everything that its kernels read."""

    layer: Layer
    seed: int
    spreads: tuple[Spread, Spread, Spread] = ("any", "any", "any")  # of input, weights, output gradient
    exponents: tuple[int, int, int, int] = (-7, -13, -13, -20)  # of input, kernel, bias, output gradient
    slope: int = 6554
    shift: int = 0
    biased: bool = True
    frozen: bool = False

    def inputs(self) -> tuple[Values, Weights, Values, Sample]:
        rng, layer = random.Random(self.seed), self.layer
        x = Values(self.exponents[0], numbers(rng, self.spreads[0], math.prod(layer.size), 127))
        if self.slope == 0:  # a ReLU made it
            x.at = [max(0, value) for value in x.at]
        kernel = numbers(rng, self.spreads[1], math.prod(layer.weight_shape), 32767)
        bias = numbers(rng, self.spreads[1], layer.channels, 32767) if self.biased else None
        weights = Weights(kernel, bias, self.exponents[1], self.exponents[2], self.frozen)
        gradient = Values(self.exponents[3], numbers(rng, self.spreads[2], math.prod(layer.out_shape), 127))
        octets = [abs(value) * 2 for value in numbers(rng, self.spreads[0], math.prod(layer.size), 127)]
        return x, weights, gradient, Sample(octets, numbers(rng, self.spreads[0], 256, 127), self.exponents[0])


def everything(machine: Any, case: Case) -> list[object]:
    """Run every kernel that the layer has; return all that they leave behind."""
    layer, (x, weights, gradient, sample) = case.layer, case.inputs()
    left: list[object] = []

    def keep(*results: object) -> None:
        left.append(copy.deepcopy((results, weights, machine.state, machine.saturated)))

    machine.seed(case.seed)
    machine.saturated = 0
    if layer.weighted:
        keep(machine.forward(layer, x, weights, case.slope, case.shift))
        if layer.kind == "dense":
            keep(machine.dense_logits(layer, x, weights))
        else:
            keep(machine.forward(layer, sample, weights, case.slope, case.shift))
        keep(machine.backward(layer, x, weights, gradient, case.slope, case.shift))
        if not case.frozen:
            keep(machine.backward_first(layer, x, weights, gradient))
            if layer.kind != "dense":
                keep(machine.backward_first(layer, sample, weights, gradient))
    else:
        out, places = machine.pool(layer, x)
        keep(out, places if layer.kind == "max_pool" else None)
        keep(machine.pool_backward(layer, x, gradient, places, case.slope, case.shift))
    keep(machine.activate(gradient, case.slope), machine.logits(gradient), machine.values_of(sample))
    return left


@st.composite
def layers(draw: st.DrawFn) -> Layer:
    kind: Kind = draw(st.sampled_from(get_args(Kind)))
    padding: Literal["same", "valid"] = draw(st.sampled_from(["same", "valid"]))
    kernel = draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
    stride = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    least = (1, 1) if padding == "same" or kind == "dense" else kernel
    size = draw(st.tuples(st.integers(least[0], 6), st.integers(least[1], 6), st.integers(1, 4)))
    out = size[2] * draw(st.integers(1, 3)) if kind == "depthwise" else draw(st.integers(1, 9))
    wider = draw(st.integers(0, 2))
    stored = (size[2] + wider, (size[2] + wider) * out // size[2] if kind == "depthwise" else out + wider)
    return Layer(kind, size, out, kernel, stride, padding, stored=stored)


exponents = st.one_of(
    st.tuples(st.integers(-20, 4), st.integers(-14, 0), st.integers(-14, 0), st.integers(-40, -5)),
    st.tuples(st.integers(-100, 100), st.integers(-40, 40), st.integers(-40, 40), st.integers(-100, 100)),
)

cases = st.builds(
    Case,
    layer=layers(),
    seed=st.integers(0, 2**32 - 1),
    spreads=st.tuples(*[st.sampled_from(get_args(Spread))] * 3),
    exponents=exponents,
    slope=st.sampled_from([0, 1, 6554, 32768, 65534, LINEAR]),
    shift=st.one_of(st.integers(0, 3), st.integers(0, 24)),
    biased=st.booleans(),
    frozen=st.booleans(),
)
