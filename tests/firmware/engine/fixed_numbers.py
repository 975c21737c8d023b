"""Fixed-point numbers in Python's unbounded integers: what tensors are, how a number is rounded, and the loss.

`within` asserts what the C takes for granted: that a sum fits its 32 bits.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

LINEAR = 65535  # FIXED_LINEAR
BIAS_SHIFT = 14
FARTHEST = 100


@dataclass
class Values:
    """A tensor in the arena, or a gradient: element i is worth at[i] * 2**exponent."""

    exponent: int
    at: list[int]


@dataclass
class Sample:
    """Byte b is worth table[b] * 2**exponent."""

    values: list[int]
    table: list[int]
    exponent: int

    def values_of(self) -> Values:
        return Values(self.exponent, [self.table[byte] for byte in self.values])


@dataclass
class Weights:
    """Of one layer, in C order of the stored tensor; training changes them in place unless they are frozen."""

    kernel: list[int]
    bias: list[int] | None
    kernel_exponent: int
    bias_exponent: int
    frozen: bool = False


@dataclass(frozen=True)
class Target:
    label: int = 0
    soft: list[int] | None = None  # in 1/32768
    adjustment: list[int] | None = None  # in 1/256
    temperature: int = 256  # in 1/256


def within(value: int, bits: int = 32) -> int:
    assert -(1 << (bits - 1)) <= value < 1 << (bits - 1), value
    return value


def nearest(x: int, n: int) -> int:
    """x / 2**n, halves up."""
    return x if n == 0 else (x + (1 << (n - 1))) >> n


def sloped(x: int, slope: int) -> int:
    return x if slope == LINEAR else x * slope >> 16


def lost_bits(terms: int) -> int:
    lost = 0
    while terms > 256:
        terms, lost = (terms + 1) // 2, lost + 1
    return lost


def dot(x: list[int], w: list[int], lost: int) -> int:
    """Each 256 products in a run are summed, then shifted."""
    runs = [range(i, min(i + 256, len(x))) for i in range(0, len(x), 256)]
    return within(sum(within(sum(x[i] * w[i] for i in run)) >> lost for run in runs))


def held_exponent(exponent: int) -> int:
    return max(-FARTHEST, min(FARTHEST, exponent))


def start_of(weights: Weights, channel: int, exponent: int) -> int:
    """A bias where sums begin, which count in 2**exponent."""
    if weights.bias is None:
        return 0
    up = weights.bias_exponent - exponent
    assert up <= BIAS_SHIFT
    return weights.bias[channel] << up if up >= 0 else nearest(weights.bias[channel], -up)


def sums_of(in_exponent: int, weights: Weights, terms: int) -> tuple[int, int]:
    """Exponent of a layer's sums, and the bits a product loses."""
    products, lost = in_exponent + weights.kernel_exponent, lost_bits(terms)
    if weights.bias is not None:
        lost = max(lost, weights.bias_exponent - BIAS_SHIFT - products)
    return products + lost, min(lost, 31)


@dataclass
class Scale:
    """The shift of a tensor under way, and the largest magnitude in it."""

    shift: int
    peak: int = 0

    def fits(self, value: int) -> bool:
        if abs(value) > 127:
            self.shift, self.peak = self.shift + 1, self.peak // 2
            return False
        self.peak = max(self.peak, abs(value))
        return True

    def following(self) -> int:
        return self.shift - 1 if self.shift > 0 and self.peak < 64 else self.shift


@dataclass
class Numbers:
    """What all kernels share: the generator's state, and the count of what was held."""

    state: int = 1
    saturated: int = 0

    def seed(self, seed: int) -> None:
        self.state = (seed ^ seed >> 16) & 0xFFFF or 1

    def random(self) -> int:
        x = self.state
        x ^= x << 7 & 0xFFFF
        x ^= x >> 9
        x ^= x << 8 & 0xFFFF
        self.state = x
        return x

    def stochastic(self, x: int, n: int) -> int:
        """x / 2**n; sixteen random bits are added right below the result's last place, or as many as there are."""
        random = self.random()
        x, random, n = (x >> (n - 16), random, 16) if n > 16 else (x, random >> (16 - n), n)
        return within(x + random) >> n

    def held(self, value: int) -> int:
        result = max(-32768, min(32767, value))
        self.saturated += result != value
        return result

    def rounded(self, value: int, exponent: int) -> int:
        if value == 0 or exponent < -31:
            return 0
        return self.held(self.stochastic(value, -exponent) if exponent <= 0 else value << exponent)

    def add(self, weights: list[int], i: int, delta: int) -> None:
        weights[i] = self.held(weights[i] + delta)

    def halve(self, at: list[int], indices: range | list[int]) -> None:
        for i in indices:
            at[i] = (at[i] + self.random() % 2) >> 1

    def update_rows(self, kernel: list[int], firsts: list[int], x: list[int], step: list[int]) -> None:
        """One random byte, and 157 more for each weight that takes a step."""
        random = self.random() % 256
        for first, each in zip(firsts, x, strict=True):
            for i in range(len(step) if each != 0 else 0):
                random = (random + 157) % 256
                self.add(kernel, first + i, (each * step[i] + random) >> 8)

    def put(self, at: list[int], i: int, sum_: int, scale: Scale, written: range | list[int]) -> None:
        """A gradient, stochastically rounded; until it fits, what is written already is halved."""
        while not scale.fits(value := self.stochastic(within(sum_), scale.shift)):
            self.halve(at, written)
        at[i] = value

    def put_nearest(self, at: list[int], i: int, sum_: int, slope: int, scale: Scale, written: range) -> None:
        sum_ = sloped(sum_, slope) if within(sum_) < 0 else sum_
        while not scale.fits(value := nearest(sum_, scale.shift)):
            self.halve(at, written)
        at[i] = value

    def values_of(self, sample: Sample) -> Values:
        return sample.values_of()

    def cross_entropy(self, logits: list[int], target: Target, step: float) -> tuple[float, Values]:
        """Return the loss and the gradient with respect to the logits, times the step."""
        adjustment = target.adjustment or [0] * len(logits)
        logits = [max(-32768, min(32767, a + b)) for a, b in zip(logits, adjustment, strict=True)]
        shares = target.soft or [32768 * (c == target.label) for c in range(len(logits))]
        below = [max(logits) - logit for logit in logits]
        probabilities, sum_ = softmax(below, target.temperature)
        errors = [max(-32767, p - share) for p, share in zip(probabilities, shares, strict=True)]
        temperature = target.temperature / 256
        step = _f32(temperature * step)
        (bits,) = struct.unpack("<I", struct.pack("<f", step))
        mantissa, exponent = (bits & 0x7FFFFF | 0x800000) >> 9, (bits >> 23) - 127 - 14
        products = [within(error * mantissa) for error in errors]
        peak, shift = max(map(abs, products)), 0
        while peak >= 127:
            peak, shift = peak >> 1, shift + 1
        gradient = Values(held_exponent(exponent - 15 + shift), [self.stochastic(each, shift) for each in products])
        aligned = sum(each * share >> 7 for each, share in zip(below, shares, strict=True))
        distance = (aligned << 8) // target.temperature
        entropy = _f32(_f32(logarithm(max(sum_, 65536)) + distance) / 65536)
        return _f32(_f32(temperature * temperature) * entropy), gradient


def power_of_half(x: int) -> int:
    """2**-x in 1/65536 for x in 1/2**23; a cubic in the fraction f: 65535 - f * (45340 - f * (15200 - f * 2632))."""
    f = x % 2**23 >> 7
    p = 15200 - (f * 2632 >> 16)
    p = 45340 - (f * p >> 16)
    p = 65535 - (f * p >> 16)
    return p >> (x >> 23)


def softmax(below: list[int], temperature: int) -> tuple[list[int], int]:
    """Return the probabilities in 1/32768 of classes so far below the largest logit, and the sum of their powers."""
    powers = [power_of_half(each * (47274 * 256 // temperature)) for each in below]
    inverse = (2**32 - 1) // sum(powers)
    return [within((power >> 1) * inverse, 33) >> 16 for power in powers], sum(powers)


def logarithm(x: int) -> int:
    """ln(x / 65536) in 1/65536: the base-2 logarithm's cubic on [1, 2), times ln 2."""
    whole = 0
    while x >= 131072:
        x, whole = x >> 1, whole + 65536
    f = x - 65536
    p = 38614 - (f * 10839 >> 16)
    log2 = whole + ((f >> 1) * (93362 - (f * p >> 16)) >> 15)
    return (log2 >> 4) * (45426 >> 4) >> 8


def _f32(x: float) -> float:
    (rounded,) = struct.unpack("<f", struct.pack("<f", x))
    return float(rounded)
