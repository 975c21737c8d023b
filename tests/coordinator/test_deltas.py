"""Updates off the wire."""

import struct
from collections.abc import Callable
from dataclasses import replace
from functools import cache

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

import boards
from codegen.graph import Graph, Layer
from codegen.planner import Plan, Training, best
from codegen.protocol import Q8_BLOCK, Encoding, encoded_size
from codegen.tiers import tiers_from
from codegen.weights import pack
from coordinator import deltas
from coordinator.deltas import Delta, Floats, UpdateError

SIZES = [1, 2, Q8_BLOCK - 1, Q8_BLOCK, Q8_BLOCK + 1, 3 * Q8_BLOCK + 17]


@cache
def plan_of(count: int, kernel: str = "f32") -> Plan:
    """Return a plan of one tensor of so many parameters."""
    layer = Layer("logits", "dense", (1, 1, count), (1, 1, 1), trainable=True)
    board = boards.load("esp32dev")
    board = replace(board, training=replace(board.training, kernel=kernel))
    return best(board, Graph("line", (layer,), 1, True), tiers_from({"full": 1.0}), Training())


def decode(encoding: Encoding, blob: bytes, sent: bytes) -> Floats:
    """Return the delta, checked, of a model whose float32 weights were `sent`."""
    delta = deltas.decode(plan_of(len(sent) // 4), encoding, blob, sent)
    delta.check()
    return delta.flat


def draw(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=count).astype(np.float32)


@pytest.mark.parametrize("count", SIZES)
def test_weights_are_subtracted(count: int) -> None:
    before, after = draw(count), draw(count, 1)
    delta = decode(Encoding.WEIGHTS, after.tobytes(), before.tobytes())
    assert delta.dtype == np.float32
    np.testing.assert_array_equal(delta, after - before)


@pytest.mark.parametrize("count", SIZES)
def test_delta_f32_is_taken_as_it_is(count: int) -> None:
    delta = draw(count)
    np.testing.assert_array_equal(decode(Encoding.DELTA_F32, delta.tobytes(), draw(count, 1).tobytes()), delta)


@pytest.mark.parametrize("count", SIZES)
def test_delta_q8_by_hand(count: int) -> None:
    blob, expected = b"", []
    levels = np.random.default_rng(3).integers(-128, 128, count)
    for start in range(0, count, Q8_BLOCK):
        block = levels[start : start + Q8_BLOCK]
        scale = np.float32(0.001 * (start + 1))
        blob += struct.pack("<f", scale) + struct.pack(f"{len(block)}b", *block)
        expected += [np.float32(level) * scale for level in block]
    assert len(blob) == encoded_size(Encoding.DELTA_Q8, count)
    np.testing.assert_array_equal(decode(Encoding.DELTA_Q8, blob, draw(count).tobytes()), np.array(expected, "f4"))


def encode_q8(delta: Floats, uniform: npt.NDArray[np.float32]) -> bytes:
    """Encode a delta [n] the way a node does, rounding with uniform [n] in [0, 1)."""
    blob = bytearray()
    for start in range(0, delta.size, Q8_BLOCK):
        block = delta[start : start + Q8_BLOCK]
        scale = np.float32(np.abs(block).max() / np.float32(127))
        levels = block / scale if scale > 0 else np.zeros_like(block)
        rounded = np.clip(np.floor(levels + uniform[start : start + Q8_BLOCK]), -127, 127)
        blob += struct.pack("<f", scale) + rounded.astype(np.int8).tobytes()
    return bytes(blob)


@given(st.integers(1, 700), st.integers(0, 2**32 - 1), st.floats(1e-6, 1e6))
def test_q8_is_within_a_step_and_without_bias(count: int, seed: int, size: float) -> None:
    rng = np.random.default_rng(seed)
    delta = (rng.normal(size=count) * size).astype(np.float32)
    decoded = decode(Encoding.DELTA_Q8, encode_q8(delta, rng.random(count, np.float32)), bytes(4 * count))
    for start in range(0, count, Q8_BLOCK):
        block = slice(start, start + Q8_BLOCK)
        step = np.abs(delta[block]).max() / 127
        assert np.abs(decoded[block] - delta[block]).max() <= step * 1.001


def test_q8_of_zeros() -> None:
    blob = encode_q8(np.zeros(300, np.float32), np.full(300, 0.9, np.float32))
    np.testing.assert_array_equal(decode(Encoding.DELTA_Q8, blob, bytes(1200)), np.zeros(300, "f4"))


@pytest.mark.parametrize("encoding", Encoding)
@pytest.mark.parametrize("change", [-4, -1, 1, 4])
def test_a_wrong_size_is_refused(encoding: Encoding, change: int) -> None:
    blob = bytes(encoded_size(encoding, 300) + change)
    with pytest.raises(UpdateError, match=f"sent {len(blob)} bytes"):
        decode(encoding, blob, bytes(1200))


@pytest.mark.parametrize("encoding", [Encoding.DELTA_F32, Encoding.DELTA_Q8])
def test_differences_of_fixed_point_are_refused(encoding: Encoding) -> None:
    """A node's HELLO may offer what its arithmetic has not."""
    plan = plan_of(300, "fixed")
    sent = pack(plan, [np.zeros((300, 1), np.float32)])
    with pytest.raises(UpdateError, match="make no sense"):
        deltas.decode(plan, encoding, bytes(encoded_size(encoding, 300)), sent)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("encoding", Encoding)
def test_what_is_not_finite_is_refused(encoding: Encoding, value: float) -> None:
    blob = struct.pack("<f", value) + b"\x01" * (encoded_size(encoding, 200) - 4)
    with pytest.raises(UpdateError, match="not finite"):
        decode(encoding, blob, bytes(800))


def test_weights_that_would_overflow_are_refused() -> None:
    huge = np.full(4, 3e38, np.float32)
    with pytest.raises(UpdateError, match="4 values"):
        decode(Encoding.DELTA_F32, huge.tobytes(), huge.tobytes())


@given(st.sampled_from(Encoding), st.binary(max_size=600), st.integers(1, 140))
def test_noise_gives_finite_numbers_or_is_refused(encoding: Encoding, blob: bytes, count: int) -> None:
    try:
        delta = decode(encoding, blob, bytes(4 * count))
    except UpdateError:
        return
    assert delta.shape == (count,) and np.isfinite(delta).all()


@pytest.mark.parametrize("count", SIZES)
def test_fixed_point_weights_are_subtracted_as_values(count: int) -> None:
    """Whatever the weights were rounded to on their way to the node is what its delta is counted from."""
    plan, before = plan_of(count, "fixed"), draw(count)
    sent = pack(plan, [before.reshape(count, 1)])
    exponent, step = sent[0] - 256, np.random.default_rng(4).integers(-200, 200, count)
    after = np.frombuffer(sent, "<i2", offset=2) + step
    (delta,) = deltas.decode(plan, Encoding.WEIGHTS, sent[:2] + after.astype("<i2").tobytes(), sent)
    assert delta.dtype == np.float32 and delta.shape == (count, 1)
    np.testing.assert_array_equal(delta.ravel(), np.ldexp(step.astype(np.float32), exponent))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda blob: blob[:-2], "sent 20 bytes of weights; its sub-model takes 22"),
        (lambda blob: b"\x29" + blob[1:], "sent weights that make no sense: exponent 41 of the kernel"),
        (lambda blob: b"\x80" + blob[1:], "sent weights that make no sense: exponent -128 of the kernel"),
    ],
    ids=["size", "exponent", "least exponent"],
)
def test_fixed_point_weights_that_cannot_be_are_refused(change: Callable[[bytes], bytes], words: str) -> None:
    plan = plan_of(10, "fixed")
    sent = pack(plan, [draw(10).reshape(10, 1)])
    with pytest.raises(UpdateError, match=words):
        deltas.decode(plan, Encoding.WEIGHTS, change(sent), sent)


@pytest.mark.parametrize("q8", [False, True])
@pytest.mark.parametrize("channels", [1, 7, Q8_BLOCK, 300])
def test_a_delta_is_its_tensors(channels: int, q8: bool) -> None:
    """Looked at one by one, all at once, in part, from the end, or place by place."""
    layer = Layer("logits", "dense", (1, 1, 5), (1, 1, channels), bias=True, trainable=True)
    graph = Graph("line", (layer,), channels, True)
    values = draw(graph.parameters)
    delta = Delta(graph, encode_q8(values, values * 0) if q8 else values.tobytes(), q8)
    flat = delta.flat
    assert np.abs(flat - values).max() <= (np.abs(values).max() / 127 * 1.001 if q8 else 0)
    kernel, bias = delta
    assert kernel.shape == (5, channels) and bias.shape == (channels,) and len(delta) == 2
    np.testing.assert_array_equal(np.concatenate([kernel.ravel(), bias]), flat)
    np.testing.assert_array_equal(delta[-1], bias)
    np.testing.assert_array_equal(delta[:1][0], kernel)
    places = np.random.default_rng(1).integers(0, flat.size, 50)
    np.testing.assert_array_equal(delta.take(places), flat[places])
    assert delta.norm == pytest.approx(np.linalg.norm(flat.astype(np.float64)), rel=1e-12)
    assert Delta.of(graph, delta) is delta
    np.testing.assert_array_equal(Delta.of(graph, list(delta)).flat, flat)


@pytest.mark.parametrize("shapes", [[(5, 3)], [(5, 3), (4,)], [(3, 5), (3,)], [(5, 3), (3,), (3,)]])
def test_tensors_of_other_shapes_are_no_delta(shapes: list[tuple[int, ...]]) -> None:
    layer = Layer("logits", "dense", (1, 1, 5), (1, 1, 3), bias=True, trainable=True)
    with pytest.raises(UpdateError, match="does not have the shapes"):
        Delta.of(Graph("line", (layer,), 3, True), [np.zeros(shape, np.float32) for shape in shapes])
