"""Stochastic rounding leaves the mean where it is; what is left of the error keeps its stated bounds."""

from __future__ import annotations

import ctypes
import math

import numpy as np
import pytest

from tests.firmware.engine import fixed_errors, reference
from tests.firmware.engine.fixed_cases import Case
from tests.firmware.engine.fixed_kernels import FixedKernels
from tests.firmware.engine.fixed_numbers import Numbers, Target, Values, Weights, sums_of
from tests.firmware.engine.layers import F64, Kernels, Layer

PERIOD = 65535
SLOPES = {6554: 6554 / 65536, 65535: 1.0, 0: 0.0}
SEEDS = 400

PATCH = [
    Layer("dense", (1, 1, 20), 7, stored=(21, 8)),
    Layer("conv2d", (5, 4, 3), 4, (3, 2), (2, 1), "same", stored=(4, 5)),
    Layer("depthwise", (5, 5, 3), 6, (3, 3), (2, 2), "same"),
    Layer("average_pool", (5, 5, 2), kernel=(3, 3), stride=(2, 2), padding="same"),
    Layer("max_pool", (5, 4, 2), kernel=(3, 3), padding="same"),
]


@pytest.fixture(scope="session")
def fixed(kernels: Kernels) -> FixedKernels:
    return FixedKernels(kernels.library)


def test_the_generator_meets_every_state_but_zero() -> None:
    numbers, met = Numbers(), set()
    for _ in range(PERIOD):
        met.add(numbers.random())
    assert met == set(range(1, PERIOD + 1)) and numbers.state == 1


@pytest.mark.parametrize("x, n", [(1, 1), (-1, 3), (77, 5), (-12345, 8), (12345, 16), (-1, 16), (123456789, 20)])
def test_rounding_over_all_states_is_unbiased_but_for_one_state(fixed: FixedKernels, x: int, n: int) -> None:
    """The state that is missing would have rounded down: the mean is high by 1 in 65535 of the fraction at most."""
    fixed.seed(1)
    total = sum(fixed.library.fixed_stochastic(ctypes.c_int32(x), ctypes.c_uint8(n)) for _ in range(PERIOD))
    kept = x >> max(0, n - 16)  # what lies below sixteen random bits is rounded down
    bits = min(n, 16)
    fraction = kept % (1 << bits)
    assert total == (kept >> bits) * PERIOD + (fraction << (16 - bits))
    assert abs(total / PERIOD - x / 2**n) <= 2**-15


@pytest.mark.parametrize("x, down", [(1, 1), (-127, 300), (5, -77), (100, 32767)])
def test_every_weight_of_a_row_is_stepped_without_bias(fixed: FixedKernels, x: int, down: int) -> None:
    fixed.seed(1)
    count, rows = 70, 2
    kernel, inputs, step = np.zeros((rows, count), np.int16), np.full(rows, x, np.int8), np.full(count, down, np.int16)
    total = np.zeros((rows, count), np.int64)
    for _ in range(PERIOD):
        kernel[:] = 0
        fixed.library.fixed_update_rows(
            kernel.ctypes.data_as(ctypes.c_void_p), inputs.ctypes.data_as(ctypes.c_void_p),
            step.ctypes.data_as(ctypes.c_void_p), ctypes.c_uint16(count), ctypes.c_uint16(rows), ctypes.c_ssize_t(0),
        )  # fmt: skip
        total += kernel
    assert np.abs(total / PERIOD - x * down / 256).max() <= 1 / PERIOD


def real(values: list[int], exponent: int, shape: tuple[int, ...]) -> F64:
    return np.array(values, np.float64).reshape(shape) * 2.0**exponent


def inputs(layer: Layer, seed: int, slope: int) -> tuple[Values, Weights, Values]:
    """Return tensors as they are while training: a gradient far below the weights' last place."""
    case = Case(layer, seed, exponents=(-6, -13, -14, -20), slope=slope)
    x, weights, gradient, _ = case.inputs()
    return x, weights, gradient


def mean_agrees(samples: list[F64], exact: F64, place: float, floor: float = 0.0) -> None:
    """The mean is within 5 standard errors of `exact`, ten rare steps of a last place, and `floor`."""
    stack = np.array(samples)
    error = np.abs(stack.mean(axis=0) - exact)
    allowed = 5 * stack.std(axis=0) / math.sqrt(len(samples)) + 10 * place / len(samples) + floor
    assert (error <= allowed).all(), (error - allowed).max()


@pytest.mark.parametrize("layer", PATCH, ids=str)
@pytest.mark.parametrize("slope", SLOPES)
def test_the_mean_gradient_over_seeds_is_the_real_one(fixed: FixedKernels, layer: Layer, slope: int) -> None:
    x, weights, gradient = inputs(layer, 5, slope)
    exponents = (weights.kernel_exponent, weights.bias_exponent)
    kernel = real(weights.kernel, exponents[0], layer.weight_shape) if layer.weighted else None
    flow = real(gradient.at, gradient.exponent, layer.out_shape)
    scaled = Layer(**{**vars(layer), "slope": SLOPES[slope]})
    exact = reference.oracle(
        scaled, real(x.at, x.exponent, layer.size), None if kernel is None else kernel[layer.used], None, flow
    )
    flows, kernels, biases, shift = [], [], [], 0
    for seed in range(SEEDS + 1):
        fixed.seed(seed * 2654435761 % 2**32)
        if layer.weighted:
            after = Weights(list(weights.kernel), list(weights.bias or []), *exponents)
            back, following = fixed.backward(layer, x, after, gradient, slope, shift)
            steps = np.subtract(after.kernel, weights.kernel).tolist()
            kernels.append(real(steps, exponents[0], layer.weight_shape))
            assert after.bias is not None and weights.bias is not None
            steps = np.subtract(after.bias, weights.bias).tolist()
            biases.append(real(steps, exponents[1], (layer.out,)))
        else:
            _, places = fixed.pool(layer, x)
            back, following = fixed.pool_backward(layer, x, gradient, places, slope, shift)
        flows.append(real(back.at, back.exponent, layer.size))
        shift = following if seed == 0 else shift  # the first pass finds the shift
    rounded_down = 2.0 ** (gradient.exponent + (exponents[0] if layer.weighted else -22))  # by slope, by share
    mean_agrees(flows[1:], exact.input, 2.0**back.exponent, len(gradient.at) * rounded_down)
    if layer.weighted:
        full = np.zeros(layer.weight_shape)
        full[layer.used] = -exact.weight
        mean_agrees(kernels[1:], full, 2.0 ** exponents[0])
        mean_agrees(biases[1:], -exact.bias, 2.0 ** exponents[1])


@pytest.mark.parametrize("layer", PATCH[:3], ids=str)
@pytest.mark.parametrize("slope", SLOPES)
def test_forward_keeps_its_error_bound(fixed: FixedKernels, layer: Layer, slope: int) -> None:
    grown = 0
    for seed in range(60):
        x, weights, _ = inputs(layer, seed, slope)
        bias = real(weights.bias or [], weights.bias_exponent, (layer.out,))
        kernel = real(weights.kernel, weights.kernel_exponent, layer.weight_shape)[layer.used]
        exact = reference.forward(layer, real(x.at, x.exponent, layer.size), kernel, bias)
        exact = np.where(exact < 0, SLOPES[slope] * exact, exact)
        shift = 0 if seed % 2 else 19
        fixed.seed(seed)
        out, following = fixed.forward(layer, x, weights, slope, shift)
        terms = math.prod(layer.kernel) * layer.size[2]
        used = out.exponent - sums_of(x.exponent, weights, terms)[0]
        grown += used > shift
        places = (1.0 if used > shift else 0.5) + 2.0 * 2.0**-used  # slope and bias, in the sum's last place
        error = np.abs(real(out.at, out.exponent, layer.out_shape) - exact).max()
        assert error <= places * 2.0**out.exponent
        assert following >= used - 1
    assert 0 < grown < 60


def test_pooling_keeps_its_error_bound(fixed: FixedKernels) -> None:
    for seed in range(20):
        for layer in PATCH[3:]:
            x, _, _ = inputs(layer, seed, 0)
            out, _ = fixed.pool(layer, x)
            error = np.abs(
                real(out.at, out.exponent, layer.out_shape)
                - reference.forward(layer, real(x.at, x.exponent, layer.size))
            ).max()
            assert error <= (0.5 if layer.kind == "average_pool" else 0) * 2.0**x.exponent


def test_the_loss_keeps_its_error_bounds() -> None:
    """The bounds in docs/numerics.md."""
    assert fixed_errors.power_errors()[0] < 9e-5
    assert fixed_errors.logarithm_error() < 1.1e-3
    for classes, probability, label, soft in ((2, 1e-4, 1e-3, 1e-3), (10, 1e-4, 1e-3, 1e-3), (100, 5e-4, 2e-3, 3e-3)):
        assert fixed_errors.probability_error(classes, count=300) < probability
        assert fixed_errors.loss_error(classes, False, count=300) < label
        assert fixed_errors.loss_error(classes, True, count=300) < soft


@pytest.mark.parametrize("temperature", [1.0, 2.5, 4.0])
@pytest.mark.parametrize("soft", [False, True], ids=["label", "soft"])
def test_the_loss_is_the_one_in_float(kernels: Kernels, fixed: FixedKernels, temperature: float, soft: bool) -> None:
    generator = np.random.default_rng(5)
    for _ in range(50):
        logits = generator.integers(-1500, 1500, 10)
        shares = (32768 * generator.dirichlet(np.ones(10))).astype(int)
        target = Target(3, shares.tolist() if soft else None, temperature=round(256 * temperature))
        loss, gradient = fixed.cross_entropy(logits.tolist(), target, 1.0)
        labels = (shares / 32768).astype(np.float32) if soft else 3
        expected, slope = kernels.cross_entropy((logits / 256).astype(np.float32), labels, temperature=temperature)
        assert loss == pytest.approx(expected, abs=2e-3 * temperature**2)
        place = 2.0**gradient.exponent
        np.testing.assert_allclose(np.array(gradient.at) * place, slope, rtol=0, atol=place + 1e-4 * temperature)
