"""AVR's own multiply-add, on the emulated chip, against numpy's float32: bit by bit, rounded twice."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks import atmega
from benchmarks.images import ATMEGA2560, Image, ToolError, link
from tests.firmware.conftest import FIRMWARE
from tests.firmware.engine.layers import F32

ROWS, LENGTH = 96, 6  # as in float_avr.c
SOURCES = (Path(__file__).with_name("float_avr.c"), *sorted((FIRMWARE / "engine").glob("float_avr*.S")))
IMAGES = 12  # memories filled with operands of each kind: 6,912 multiply-adds
AXPY, DOT, SAMPLES = range(3)
TINY, LAST_PLACE = np.float32(2.0**-126), np.float32(2.0**-149)  # the least normal number, the least of all
EDGES = (
    *(0x00000000, 0x00000001, 0x007FFFFF, 0x00800000, 0x00FFFFFF, 0x3F7FFFFF, 0x3F800000, 0x3F800001),
    *(0x3FFFFFFF, 0x4B000001, 0x7EFFFFFF, 0x7F000000, 0x7F7FFFFF, 0x7F800000, 0x7FC00000),
)
Rng = np.random.Generator
Operands = Callable[[Rng, tuple[int, ...]], tuple[F32, F32, F32]]  # a, x and y of a shape


def compose(rng: Rng, exponent: np.ndarray, mantissa: np.ndarray) -> F32:
    """Return floats of random sign; the exponent is IEEE's."""
    sign = rng.integers(0, 2, exponent.shape, np.uint32) << np.uint32(31)
    return (sign | exponent.astype(np.uint32) << np.uint32(23) | mantissa.astype(np.uint32)).view(np.float32)


def sparse(rng: Rng, shape: tuple[int, ...]) -> np.ndarray:
    """Return mantissas whose sums and products carry far and tie often: runs of ones, and what a byte makes full."""
    runs = (1 << rng.integers(0, 24, shape)) - (1 << rng.integers(0, 24, shape))
    single = 1 << rng.integers(0, 23, shape)
    filled = (1 << 31) // rng.integers(129, 256, shape)
    return np.choose(rng.integers(0, 5, shape), [runs, runs, runs, single, filled]) & 0x7FFFFF


def ordinary(rng: Rng, shape: tuple[int, ...]) -> tuple[F32, F32, F32]:
    """Sums whose addends lie up to 30 places apart."""
    a, x = (compose(rng, rng.integers(110, 144, shape), rng.integers(0, 1 << 23, shape)) for _ in range(2))
    away = rng.integers(-30, 31, shape) + (a * x).view(np.uint32).astype(np.int64) // (1 << 23) % 256
    return a, x, compose(rng, away, rng.integers(0, 1 << 23, shape))


def tied(rng: Rng, shape: tuple[int, ...]) -> tuple[F32, F32, F32]:
    """The same with few ones in the mantissas."""
    a, x = (compose(rng, rng.integers(110, 144, shape), sparse(rng, shape)) for _ in range(2))
    away = rng.integers(-30, 31, shape) + (a * x).view(np.uint32).astype(np.int64) // (1 << 23) % 256
    return a, x, compose(rng, away, sparse(rng, shape))


def cancelling(rng: Rng, shape: tuple[int, ...]) -> tuple[F32, F32, F32]:
    """Sums of which little or nothing is left."""
    a, x = (compose(rng, rng.integers(100, 154, shape), rng.integers(0, 1 << 23, shape)) for _ in range(2))
    apart = rng.integers(-1, 2, shape) * (1 << rng.integers(0, 26, shape))
    return a, x, ((-(a * x)).view(np.int32) + apart).astype(np.int32).view(np.float32)


def extreme(rng: Rng, shape: tuple[int, ...]) -> tuple[F32, F32, F32]:
    """Products and sums around the largest and the least of numbers, and around the fast path's bounds."""
    around = np.array([41, 87, 127, 151, 228])
    a, x = (compose(rng, rng.choice(around, shape) + rng.integers(-3, 4, shape), sparse(rng, shape)) for _ in range(2))
    y = compose(rng, rng.choice(np.array([0, 0, 1, 2, 20, 252, 253, 254]), shape), sparse(rng, shape))
    return a, x, y


def special(rng: Rng, shape: tuple[int, ...]) -> tuple[F32, F32, F32]:
    """Zeros, denormals, infinities and NaN among ordinary numbers."""
    a, x, y = (
        np.where(rng.random(shape) < 0.4, compose(rng, edge >> 23, edge & 0x7FFFFF), usual)
        for usual in ordinary(rng, shape)
        for edge in [rng.choice(np.array(EDGES), shape)]
    )
    return a, x, y


def anything(rng: Rng, shape: tuple[int, ...]) -> tuple[F32, F32, F32]:
    """Any bits."""
    a, x, y = rng.integers(0, 1 << 32, (3, *shape), np.uint32).view(np.float32)
    return a, x, y


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Image:
    try:
        return link(SOURCES, ATMEGA2560, tmp_path_factory.mktemp("float_avr"))
    except ToolError as error:
        pytest.fail(str(error), pytrace=False)


def expect(a: F32, x: F32, y: F32, call: int) -> tuple[F32, F32]:
    """Return what becomes of y, and how far it may be off: avr-libc has lost what decides a denormal product's tie."""
    y, off = y.copy(), np.zeros_like(y)
    if call == SAMPLES:
        place = np.arange(y.size).reshape(y.shape)
        byte = np.where(place < y.size // 2, place & 7, place & 255).astype(np.float32)
        return byte * a + x, off
    product = (a if call == DOT else a[:, :1]) * x
    denormal = (np.abs(product) < TINY) & (product != 0)
    for i in range(LENGTH):
        to = i % 4 if call == DOT else i
        y[:, to] += product[:, i]
        off[:, to] += np.where(denormal[:, i], LAST_PLACE, 0)
    return y, off


@pytest.mark.parametrize("call", [AXPY, DOT, SAMPLES], ids=["axpy", "dot", "samples"])
@pytest.mark.parametrize(
    "operands", [ordinary, tied, cancelling, extreme, special, anything], ids=lambda operands: operands.__name__
)
def test_rounds_as_ieee_does(image: Image, operands: Operands, call: int) -> None:
    rng = np.random.default_rng(1)
    for _ in range(IMAGES):
        with np.errstate(all="ignore"):
            a, x, y = operands(rng, (ROWS, LENGTH))
            expected, off = expect(a, x, y, call)
            memory = np.stack([a, x, y], axis=1)
            left = np.frombuffer(atmega.call(image, memory.tobytes(), [call], image.path.parent).weights, np.float32)
            actual = left.reshape(memory.shape)[:, 2]
            near = (off > 0) & (np.abs(actual - expected) <= off)
            equal = actual.view(np.uint32) == expected.view(np.uint32)
            right = np.where(np.isnan(expected), ~np.isfinite(actual), equal | near)
        assert right.all(), "a, x, y, expected, actual: " + "; ".join(
            " ".join(f"{value:08x}" for value in np.stack([a, x, y, expected, actual])[:, row, at].view(np.uint32))
            for row, at in np.argwhere(~right)[:10]
        )


def test_links_for_an_uno(tmp_path: Path) -> None:
    flags = (flag.replace("2560", "328p") for flag in ATMEGA2560.flags)
    uno = replace(ATMEGA2560, flags=(*flags, "-DROWS=16"))
    assert link(SOURCES, uno, tmp_path).symbols["engine_avr_axpy"] > 0
