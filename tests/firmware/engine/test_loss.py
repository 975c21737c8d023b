"""Softmax, cross-entropy, exponential and logarithm."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.firmware.engine.layers import F32, F64, Kernels, address

CLASSES = 10


def random_logits(spread: float) -> F32:
    return (spread * np.random.default_rng(3).normal(size=CLASSES)).astype(np.float32)


def random_soft() -> F32:
    return np.random.default_rng(4).dirichlet(np.ones(CLASSES)).astype(np.float32)


@pytest.mark.parametrize("spread", [0.0, 1.0, 30.0, 1000.0])
@pytest.mark.parametrize("target", [0, 9, random_soft()], ids=["first", "last", "soft"])
@pytest.mark.parametrize("adjusted", [False, True])
@pytest.mark.parametrize(("weight", "temperature"), [(1.0, 1.0), (0.3, 1.0), (1.0, 4.0), (0.7, 2.5), (1.0, 0.5)])
def test_cross_entropy_agrees_with_tensorflow(
    kernels: Kernels, spread: float, target: int | F32, adjusted: bool, weight: float, temperature: float
) -> None:
    import tensorflow as tf

    logits = random_logits(spread)
    adjustment = np.log(random_soft()) if adjusted else None
    labels = np.eye(CLASSES)[target] if isinstance(target, int) else target.astype(np.float64)
    variable = tf.Variable(logits.astype(np.float64))
    with tf.GradientTape() as tape:
        total = variable if adjustment is None else variable + adjustment.astype(np.float64)
        entropy = tf.nn.softmax_cross_entropy_with_logits(labels, total / temperature)
        expected = weight * temperature**2 * entropy
    loss, gradient = kernels.cross_entropy(logits, target, adjustment, weight, temperature)
    assert loss == pytest.approx(float(expected), rel=2e-6, abs=1e-6)
    np.testing.assert_allclose(gradient, tape.gradient(expected, variable), rtol=0, atol=2e-7 * max(1.0, spread))


def test_a_soft_gradient_is_the_difference_times_the_temperature(kernels: Kernels) -> None:
    logits, soft, temperature = random_logits(3), random_soft(), 5.0
    _, gradient = kernels.cross_entropy(logits, soft, temperature=temperature)
    at_temperature = kernels.softmax(logits / np.float32(temperature))
    np.testing.assert_allclose(gradient, temperature * (at_temperature - soft), rtol=0, atol=1e-6)


def test_at_a_high_temperature_logits_are_matched(kernels: Kernels) -> None:
    """Where T is large, distillation matches the centred logits (Hinton et al., section 2.1)."""
    logits, teacher, temperature = random_logits(1), random_logits(1)[::-1].copy(), 1000.0
    soft = kernels.softmax(teacher / np.float32(temperature))
    _, gradient = kernels.cross_entropy(logits, soft, temperature=temperature)
    expected = ((logits - logits.mean()) - (teacher - teacher.mean())) / CLASSES
    np.testing.assert_allclose(gradient, expected, rtol=0, atol=2e-3)


@pytest.mark.parametrize("temperature", [0.0, np.nan])
def test_a_temperature_that_is_none_is_not_lost(kernels: Kernels, temperature: float) -> None:
    loss, gradient = kernels.cross_entropy(random_logits(1), 3, temperature=temperature)
    assert np.isnan(loss) and np.isnan(gradient).all()


def test_softmax_sums_to_one_and_survives_large_logits(kernels: Kernels) -> None:
    for spread in (0.0, 1.0, 1e4, 1e38):
        probabilities = kernels.softmax(random_logits(spread))
        assert probabilities.sum() == pytest.approx(1, abs=1e-6) and (probabilities >= 0).all()


def test_a_certain_and_right_answer_costs_nothing(kernels: Kernels) -> None:
    logits = np.array([0, 200, 0], np.float32)
    loss, gradient = kernels.cross_entropy(logits, 1)
    assert loss == 0.0 and not gradient.any()
    assert kernels.cross_entropy(logits, 0)[0] == 200.0


def test_a_weight_of_zero_silences_the_example(kernels: Kernels) -> None:
    loss, gradient = kernels.cross_entropy(random_logits(1), 3, weight=0.0)
    assert loss == 0.0 and not gradient.any()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [0, 4, CLASSES - 1])
@pytest.mark.parametrize("target", [4, random_soft()], ids=["label", "soft"])
def test_not_finite_in_not_finite_out(kernels: Kernels, bad: float, place: int, target: int | F32) -> None:
    logits = random_logits(1)
    logits[place] = bad
    loss, gradient = kernels.cross_entropy(logits, target)
    assert np.isnan(loss) and np.isnan(gradient).all()
    assert np.isnan(kernels.softmax(logits)).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("target", [4, random_soft()], ids=["label", "soft"])
def test_an_adjustment_that_is_not_finite_is_not_lost(kernels: Kernels, bad: float, target: int | F32) -> None:
    adjustment = np.zeros(CLASSES, np.float32)
    adjustment[2] = bad
    loss, gradient = kernels.cross_entropy(random_logits(1), target, adjustment)
    assert np.isnan(loss) and np.isnan(gradient).all()


@pytest.mark.parametrize(
    ("logits", "settings"),
    [
        ([3e38, -3e38], {}),  # their difference
        ([3e38, 3e38], {"adjustment": np.full(2, 3e38, np.float32)}),
        ([100.0, -100.0], {"weight": 3e38}),
        ([100.0, -100.0], {"temperature": 1e30}),  # its square
        ([3e38, 0.0], {"temperature": 0.5}),
    ],
)
def test_a_loss_that_overflows_is_not_finite(kernels: Kernels, logits: list[float], settings: dict[str, Any]) -> None:
    loss, _ = kernels.cross_entropy(np.array(logits, np.float32), 1, **settings)
    assert not np.isfinite(loss)


def swept(kernels: Kernels, name: str, x: F32) -> F32:
    result = x.copy()
    getattr(kernels.library, f"sweep_{name}")(address(result), result.size)
    return result


def relative_error(actual: F32, exact: F64) -> float:
    return float(np.max(np.abs(actual - exact) / np.abs(exact), where=exact != 0, initial=0))


def test_exp_error_bound(kernels: Kernels) -> None:
    x = np.concatenate([np.linspace(-87, 88, 2_000_003), np.linspace(-1e-3, 1e-3, 100_001)]).astype(np.float32)
    assert relative_error(swept(kernels, "exp", x), np.exp(x.astype(np.float64))) < 2e-7


def test_exp_at_its_ends(kernels: Kernels) -> None:
    x = np.array([0, -0.0, -87.001, -1e30, -np.inf, 88.001, 1e30, np.inf, np.nan], np.float32)
    np.testing.assert_array_equal(swept(kernels, "exp", x), [1, 1, 0, 0, 0, np.inf, np.inf, np.inf, np.nan])


def test_log_error_bound(kernels: Kernels) -> None:
    bits = np.linspace(0x00800000, 0x7F7FFFFF, 2_000_003).astype(np.uint32)  # every exponent
    near_one = np.arange(0x3F000000, 0x40000000, 17, dtype=np.uint32)
    x = np.concatenate([bits, near_one]).view(np.float32)
    assert relative_error(swept(kernels, "log", x), np.log(x.astype(np.float64))) < 2e-7
    assert swept(kernels, "log", np.ones(1, np.float32))[0] == 0.0
