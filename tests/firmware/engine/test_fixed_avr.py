"""AVR's own fixed-point loops, on the emulated chips, against the same calls of the host's C: every byte of memory."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from benchmarks import atmega
from benchmarks.images import ATMEGA328P, ATMEGA2560, Image, ToolError, link
from tests.firmware.conftest import FIRMWARE, CompileShared

HERE, ENGINE = Path(__file__).parent, FIRMWARE / "engine"
HOSTS = (ENGINE / "fixed.c", HERE / "fixed_avr.c")
CHIPS = (*HOSTS, *sorted(ENGINE.glob("fixed_avr*.S")), HERE / "fixed_avr_held.S")

# As in fixed_avr.c:
DOT, DOT_PAIR, DOT_BYTES, UPDATE_ROWS, NEAREST, STOCHASTIC, SLOPED = range(7)
MEMORY = {ATMEGA2560.mcu: 6144, ATMEGA328P.mcu: 1664}
CALL = np.dtype(
    [(name, "<u2") for name in ("function", "sums", "x", "w", "step", "count", "rows")]
    + [(name, "<i2") for name in ("x_skip", "w_skip")]
    + [(name, "<u2") for name in ("x_stride", "w_stride", "state")]
    + [("saturated", "<u4"), ("spoilt", "<u4"), ("sum", "<i4", 4)]
)
OPERAND = np.dtype([("value", "<i4"), ("by", "<u2"), ("state", "<u2")])

CALLS = 8  # in a memory
BYTES = np.array([0, 0, 1, 0x7F, 0x80, 0x81, 0xFE, 0xFF], np.uint8)
WORDS = np.array([0, 1, 0xFF, 0x100, 0x7F00, 0x7FFE, 0x7FFF, 0x8000, 0x8001, 0x80FF, 0xFF00, 0xFFFF], "<u2")
COUNTERS = (0, 1, 0xFFFE, 0xFFFF, 0x10000, 0xFFFFFF, 0x7FFFFFFF, 0xFFFFFFFE, 0xFFFFFFFF)
STATES = (*(1 << bit for bit in range(16)), 0xFFFF)  # the generator is linear: these are all of it
FARTHEST = 2**31 - 2**16 - 1  # what fixed_nearest and fixed_stochastic take
Rng = np.random.Generator


@dataclass(frozen=True)
class Walk:
    """Arguments of one call; strides and skips in elements of the operand."""

    function: int
    count: int
    rows: int = 1
    x_stride: int = 1
    w_stride: int = 1
    x_skip: int = 0
    w_skip: int = 0
    sums: int = 2

    def span(self, stride: int, skip: int) -> tuple[int, int]:
        """Return the least and the farthest element that the walk reaches."""
        if self.count == 0 or self.rows == 0:
            return 0, 0
        row = (self.count - 1) * stride
        last = (self.rows - 1) * (self.count * stride + skip)
        return min(0, last), max(0, last) + row

    @property
    def x_span(self) -> tuple[int, int]:
        if self.function == UPDATE_ROWS:
            return 0, self.rows
        return self.span(self.x_stride, self.x_skip)

    @property
    def w_span(self) -> tuple[int, int]:
        low, high = self.span(self.w_stride, self.w_skip)
        return low, high + (self.function in (DOT_PAIR, DOT_BYTES))


def dots(rng: Rng) -> Iterator[Walk]:
    for count in (0, 1, 2, 3, 4, 127, 128, 129, 254, 255, 256, *rng.integers(1, 257, 20)):
        yield Walk(DOT, int(count))


def dot_pairs(rng: Rng) -> Iterator[Walk]:
    shapes = [(0, 0), (0, 3), (3, 0), (1, 0), (0, 255), (1, 255), (1, 256), (2, 128), (128, 2), (127, 2), (85, 3)]
    shapes += [(count, 1) for count in (1, 2, 3, 4, 5, 127, 128, 253, 254, 255, 256)]
    shapes += [(int(count), int(rng.integers(1, 256 // count + 1))) for count in rng.integers(1, 20, 40)]
    for count, rows in shapes:
        x_skip, w_skip = (int(skip) for skip in rng.integers(-2 * count - 3, 4, 2))
        w_stride = int(rng.integers(0, 5))
        yield Walk(DOT_PAIR, count, rows, 1, w_stride, x_skip, w_skip, int(rng.integers(1, 3)))
    yield Walk(DOT_PAIR, 2, 3, 1, 40, 0, -81)
    yield Walk(DOT_PAIR, 1, 5, 1, 150, 200, -149)


def dot_bytes(rng: Rng) -> Iterator[Walk]:
    shapes = [(0, 0), (0, 256), (256, 0), (0, 3), (3, 0), (1, 1), (1, 255), (1, 256), (1, 257), (2, 300), (2, 512)]
    shapes += [(2, 513), (3, 600), (255, 2), (256, 2), (257, 3), (511, 1), (512, 1), (513, 1), (600, 3), (1025, 2)]
    shapes += [(int(count), int(rows)) for count, rows in rng.integers(1, (40, 30), (40, 2))]
    for count, rows in shapes:
        for wide in (0, 1):
            x_stride, w_stride = (int(stride) for stride in rng.integers(0, 2 if count > 100 else 7, 2) * wide)
            x_skip, w_skip = (
                int(rng.integers(-count * stride - 1, 2 - count * stride)) for stride in (x_stride, w_stride)
            )
            yield Walk(DOT_BYTES, count, rows, x_stride, w_stride, x_skip, w_skip, int(rng.integers(1, 3)))
    yield Walk(DOT_BYTES, 65535, 1, 0, 0)
    yield Walk(DOT_BYTES, 1, 65535, 0, 0)
    yield Walk(DOT_BYTES, 3, 3, 270, 300, -600, -700)


def update_rows(rng: Rng) -> Iterator[Walk]:
    shapes = [(1, 1), (1, 2), (2, 1), (1, 255), (1, 256), (1, 257), (3, 300), (2, 300), (255, 2), (256, 3), (257, 2)]
    shapes += [(299, 3), (300, 2), (10, 16), (16, 64), (2, 2), (3, 3)]
    shapes += [(int(count), int(rows)) for count, rows in rng.integers(1, (30, 20), (60, 2))]
    for count, rows in shapes:
        for skip in (0, *rng.integers(-count - 2, 3, 2)):
            yield Walk(UPDATE_ROWS, count, rows, w_skip=int(skip))


class Memory:
    """What a chip's memory begins with: calls; then bytes (x) and words (w, steps), at their edges or random."""

    def __init__(
        self, size: int, rng: Rng, same: tuple[np.uint8, np.uint16] | None = None, bytes_share: float = 0.35
    ) -> None:
        """`same`: the only byte and the only word."""
        self.bytes = np.zeros(size, np.uint8)
        self.calls = self.bytes[: CALLS * CALL.itemsize].view(CALL)
        self.calls["function"] = NEAREST  # of nothing
        begin = self.calls.nbytes
        self.words_at = begin + int(bytes_share * (size - begin)) // 2 * 2
        x, w = (BYTES, WORDS) if same is None else (np.array([same[0]]), np.array([same[1]], "<u2"))
        self.bytes[begin : self.words_at] = self._fill(rng, x, self.words_at - begin)
        self.bytes[self.words_at :] = self._fill(rng, w, (size - self.words_at) // 2).view(np.uint8)

    @staticmethod
    def _fill(rng: Rng, edges: np.ndarray, count: int) -> np.ndarray:
        if edges.size == 1:
            return np.full(count, edges[0])
        anything = rng.integers(0, np.iinfo(edges.dtype).max, count, edges.dtype, endpoint=True)
        edge = rng.choice(edges, count)
        same = np.full(count, rng.choice(edges))
        few = np.where(rng.random(count) < 0.7, edges.dtype.type(0), anything)
        mixed = np.where(rng.random(count) < 0.5, edge, anything)
        return [anything, edge, same, few, mixed][rng.integers(0, 5)]

    def place(self, at: int, walk: Walk, rng: Rng) -> bool:
        """Make `walk` the call `at`; False if there is no room for it."""
        word = 1 if walk.function == DOT_BYTES else 2
        steps = walk.count if walk.function == UPDATE_ROWS else 0
        (x_low, x_high), (w_low, w_high) = walk.x_span, walk.w_span
        x_room = self.words_at - self.calls.nbytes - (x_high - x_low + 1)
        w_room = (self.bytes.size - self.words_at) // word - (w_high - w_low + 1) - steps
        if min(x_room, w_room) < 0:
            return False
        call = self.calls[at]
        for name in ("function", "sums", "count", "rows", "x_skip", "w_skip", "x_stride", "w_stride"):
            call[name] = getattr(walk, name)
        call["x"] = self.calls.nbytes - x_low + rng.integers(0, x_room + 1)
        first = rng.integers(0, w_room + 1)
        before = rng.random() < 0.5  # steps before weights
        call["w"] = self.words_at + word * (first - w_low + (steps if before else 0))
        call["step"] = self.words_at + word * (first + (0 if before else w_high - w_low + 1))
        call["state"] = rng.choice([rng.choice(STATES), int(rng.integers(1, 1 << 16))])
        call["saturated"] = rng.choice([*COUNTERS, int(rng.integers(0, 1 << 32))])
        call["sum"] = rng.integers(-(1 << 31), 1 << 31, 4)
        return True


@pytest.fixture(scope="module", params=[ATMEGA2560, ATMEGA328P], ids=lambda target: target.name)
def image(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Image:
    try:
        return link(CHIPS, request.param, tmp_path_factory.mktemp("fixed_avr"))
    except ToolError as error:
        pytest.fail(str(error), pytrace=False)


@pytest.fixture(scope="module")
def host(compile_shared: CompileShared) -> ctypes.CDLL:
    return compile_shared(HOSTS, ("-O2", f"-I{FIRMWARE}"))


def compare(host: ctypes.CDLL, image: Image, memory: np.ndarray, calls: int) -> np.ndarray:
    """Make the calls with which `memory` begins on both: all that they leave must be equal. Return the calls."""
    expected = np.ctypeslib.as_array((ctypes.c_uint8 * memory.size).in_dll(host, "model_weights"))
    expected[:] = memory
    for call in range(calls):
        host.step_run(call)
    run = atmega.call(image, memory.tobytes(), range(calls), image.path.parent)
    actual = np.frombuffer(run.weights, np.uint8)
    if not np.array_equal(actual, expected):
        parts = (part[: calls * CALL.itemsize].view(CALL) for part in (memory, expected, actual))
        told = "\n".join(
            f"call {before}\nhost {want}\nchip {got}"
            for before, want, got in zip(*parts, strict=True)
            if want.tobytes() != got.tobytes()
        )
        pytest.fail(f"bytes {np.flatnonzero(actual != expected)[:20]} differ\n{told}", pytrace=False)
    return expected[: calls * CALL.itemsize].view(CALL)


@pytest.mark.parametrize("walks", [dots, dot_pairs, dot_bytes, update_rows], ids=lambda walks: walks.__name__)
def test_loops_equal_the_hosts(image: Image, host: ctypes.CDLL, walks: Callable[[Rng], Iterator[Walk]]) -> None:
    rng = np.random.default_rng(1)
    todo = [walk for _ in range(4) for walk in walks(rng)]
    rng.shuffle(todo)
    total = len(todo)
    walked = 0
    while todo:
        parts = (Memory(MEMORY[image.target.mcu], rng, bytes_share=share) for share in rng.permutation([0.3, 0.4, 0.6]))
        memory = next((part for part in parts if part.place(0, todo[-1], rng)), None)
        if memory is None:
            todo.pop()  # a chip with less memory has no room for it
            continue
        calls = 1
        while calls < min(CALLS, len(todo)) and memory.place(calls, todo[-1 - calls], rng):
            calls += 1
        compare(host, image, memory.bytes, calls)
        del todo[-calls:]
        walked += calls
    assert walked >= (total if image.target is ATMEGA2560 else 0.7 * total)


@pytest.mark.parametrize("x", np.unique(BYTES))
def test_sums_of_extremes_equal_the_hosts(image: Image, host: ctypes.CDLL, x: np.uint8) -> None:
    rng = np.random.default_rng(int(x))
    for w in WORDS:
        memory = Memory(MEMORY[image.target.mcu], rng, (x, w))
        walks = [Walk(DOT, 256), Walk(DOT_PAIR, 256), Walk(DOT_PAIR, 1, 256), Walk(DOT_BYTES, 256, 256, 0, 0)]
        assert all(memory.place(at, walk, rng) for at, walk in enumerate(walks))
        compare(host, image, memory.bytes, len(walks))


@pytest.mark.parametrize("w", [np.uint16(0x7FFF), np.uint16(0x8000)])
def test_saturates_more_often_than_16_bits_count(image: Image, host: ctypes.CDLL, w: np.uint16) -> None:
    rng = np.random.default_rng(1)
    memory = Memory(MEMORY[image.target.mcu], rng, (np.uint8(0x7F), w))
    assert memory.place(0, Walk(UPDATE_ROWS, 200, 328, w_skip=-200), rng)
    memory.calls["saturated"][0] = 0x01FF1234
    assert compare(host, image, memory.bytes, 1)["saturated"] == 0x01FF1234 + 200 * 328


SLOPES = (0, 1, 2, 0xFF, 0x100, 0x7FFF, 0x8000, 0x8001, 0xFEFF, 0xFF00, 0xFF01, 0xFFFD, 0xFFFE, 0xFFFF)


def operands(function: int, rng: Rng) -> np.ndarray:
    """Return every edge with every shift or slope, and random ones of all magnitudes."""
    least, most = (-(1 << 31), (1 << 31) - 1) if function == SLOPED else (-FARTHEST, FARTHEST)
    near = (sign * (1 << bit) + apart for bit in range(32) for sign in (1, -1) for apart in (-2, -1, 0, 1, 2))
    edges = sorted({min(max(value, least), most) for value in near})
    blocks = []
    for by in (*SLOPES, *rng.integers(0, 1 << 16, 10).tolist()) if function == SLOPED else range(32):
        value = np.array([*edges, *(rng.integers(least, most, 60, endpoint=True) >> rng.integers(0, 31, 60))])
        state = np.where(
            rng.random(value.size) < 0.3, rng.choice(STATES, value.size), rng.integers(1, 1 << 16, value.size)
        )
        block = np.zeros(value.size, OPERAND)
        block["value"], block["by"], block["state"] = value, by, state
        blocks.append(block)
    return np.concatenate(blocks)


@pytest.mark.parametrize("function", [NEAREST, STOCHASTIC, SLOPED], ids=["nearest", "stochastic", "sloped"])
def test_rounding_equals_the_hosts(image: Image, host: ctypes.CDLL, function: int) -> None:
    rng = np.random.default_rng(1)
    todo = operands(function, rng)
    while todo.size:
        memory = Memory(MEMORY[image.target.mcu], rng)
        begin = memory.calls.nbytes
        count = min(todo.size, (memory.bytes.size - begin) // OPERAND.itemsize)
        memory.bytes[begin : begin + count * OPERAND.itemsize] = todo[:count].view(np.uint8)
        memory.calls[0]["function"], memory.calls[0]["x"], memory.calls[0]["count"] = function, begin, count
        compare(host, image, memory.bytes, 1)
        todo = todo[count:]
