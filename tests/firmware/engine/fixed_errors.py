"""Measure how far the fixed-point kernels are from real numbers: python -m tests.firmware.engine.fixed_errors

On the oracle, which the kernels equal to the bit.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator

from tests.firmware.engine.fixed_numbers import Numbers, Target, logarithm, power_of_half, softmax


def power_errors() -> tuple[float, float]:
    """Return the largest error of 2**-x, absolute and, where the power is 1/16 or more, relative."""
    absolute = relative = 0.0
    for x in range(0, 16 << 23, 61):
        exact = 2.0 ** (-x / 2**23)
        error = abs(power_of_half(x) / 65536 - exact)
        absolute = max(absolute, error)
        relative = max(relative, error / exact if exact >= 1 / 16 else 0)
    return absolute, relative


def logarithm_error() -> float:
    """Return the largest error of the logarithm of sums from 1 to 1,000 classes."""
    return max(abs(logarithm(x) / 65536 - math.log(x / 65536)) for x in range(65536, 1000 * 65536, 397))


def random_logits(classes: int, count: int) -> Iterator[list[int]]:
    rng = random.Random(classes)
    for trial in range(count):
        spread = 256 * 2 ** (trial % 8) / 16  # a deviation of 1/16 to 8
        yield [max(-32767, min(32767, round(rng.gauss(0, spread)))) for _ in range(classes)]


def exact_softmax(logits: list[int], temperature: int) -> list[float]:
    powers = [math.exp((logit - max(logits)) / temperature) for logit in logits]
    return [power / math.fsum(powers) for power in powers]


def probability_error(classes: int, temperature: int = 256, count: int = 4000) -> float:
    """Return the largest error of a probability."""
    worst = 0.0
    for logits in random_logits(classes, count):
        found, _ = softmax([max(logits) - logit for logit in logits], temperature)
        exact = exact_softmax(logits, temperature)
        worst = max(worst, *(abs(a / 32768 - b) for a, b in zip(found, exact, strict=True)))
    return worst


def loss_error(classes: int, soft: bool, count: int = 4000) -> float:
    """Return the largest error of the loss."""
    worst, rng = 0.0, random.Random(classes)
    for logits in random_logits(classes, count):
        label = rng.randrange(classes)
        exact = exact_softmax(logits, 256)
        target, shares = Target(label=label), [float(c == label) for c in range(classes)]
        if soft:
            draws = [rng.expovariate(1) for _ in range(classes)]
            parts = [int(32768 * draw / sum(draws)) for draw in draws]
            target, shares = Target(soft=parts), [part / 32768 for part in parts]
        loss, _ = Numbers().cross_entropy(list(logits), target, 1.0)
        expected = math.log(math.fsum(math.exp((logit - max(logits)) / 256) for logit in logits))
        expected += math.fsum(s * (max(logits) - logit) / 256 for s, logit in zip(shares, logits, strict=True))
        assert soft or math.isclose(expected, -math.log(exact[label]), rel_tol=1e-9, abs_tol=1e-9)
        worst = max(worst, abs(loss - expected))
    return worst


def main() -> None:
    absolute, relative = power_errors()
    print(f"power of two: absolute {absolute:.2e}, relative from 1/16 up {relative:.2e}")
    print(f"logarithm: {logarithm_error():.2e}")
    for classes in (2, 10, 100, 1000):
        count = 40000 // classes
        probability, hot = probability_error(classes, count=count), probability_error(classes, 1024, count)
        print(f"probability of {classes} classes: {probability:.2e}, at temperature 4 {hot:.2e}")
        label, soft = loss_error(classes, False, count), loss_error(classes, True, count)
        print(f"loss of {classes} classes: {label:.2e}, against soft targets {soft:.2e}")


if __name__ == "__main__":
    main()
