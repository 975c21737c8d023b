"""A node in fixed point: what differs from float32 on the wire."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest

from codegen.protocol import Adjust, Commit, Encoding, Error, ErrorCode, Fetch, FrameType, State, Status, StatusRequest
from codegen.weights import EXPONENT_LIMIT, exponent_count, unpack
from tests.firmware.node.harness import CLASSES, MemoryNode, begin_of, fixed_weights, refusal, setup

EXPONENTS = 4  # kernel and bias of two layers


def elements(blob: bytes) -> np.ndarray:
    """Return the 16-bit weights."""
    return np.frombuffer(blob, "<i2", offset=EXPONENTS)


def test_weights_are_half_as_long(fixed: MemoryNode) -> None:
    blob = fixed_weights(fixed.built.plan)
    assert exponent_count(fixed.built.plan.sub_model.graph) == EXPONENTS
    assert len(blob) == EXPONENTS + 2 * fixed.built.parameters
    fixed.ask(setup())
    for other in (blob[:-2], bytes(4 * fixed.built.parameters)):
        assert fixed.ask(begin_of(other)) == Error(ErrorCode.WRONG_SIZE, len(blob))


@pytest.mark.parametrize("place", range(EXPONENTS))
@pytest.mark.parametrize("exponent", [EXPONENT_LIMIT + 1, -EXPONENT_LIMIT - 1, 127, -128])
def test_exponents_beyond_the_limit_are_refused(fixed: MemoryNode, place: int, exponent: int) -> None:
    good = fixed_weights(fixed.built.plan)
    bad = bytearray(good)
    bad[place] = exponent % 256
    fixed.ask(setup())
    fixed.load(bytes(bad))
    for _ in range(2):
        assert fixed.ask(Commit(5), fixed.TRANSFER) == Error(ErrorCode.NOT_FINITE, place)
        assert fixed.state() == State.READY
    fixed.load(good)
    assert fixed.ask(Commit(5), fixed.TRANSFER).type == FrameType.STATUS


def test_differences_are_not_offered(fixed: MemoryNode) -> None:
    for encoding in (Encoding.DELTA_F32, Encoding.DELTA_Q8):
        assert refusal(fixed.ask(setup(encoding=encoding))) == ErrorCode.UNSUPPORTED
    fixed.bring(State.DONE, fixed_weights(fixed.built.plan))
    assert refusal(fixed.ask(Fetch(5, Encoding.DELTA_F32, 72))) == ErrorCode.UNSUPPORTED


ADJUSTMENTS = [
    (0.0, 0), (1.0, 256), (-1.0, -256), (1 / 512, 1), (-1 / 512, -1), (0.0019, 0), (0.4, 102), (-0.4, -102),
    (127.99, 32765), (127.999, 32767), (128.0, 32767), (-128.0, -32767), (3e38, 32767), (-3e38, -32767),
]  # fmt: skip


@pytest.mark.parametrize(("value", "expected"), ADJUSTMENTS)
def test_an_adjustment_is_held_in_sixteen_bits(fixed: MemoryNode, value: float, expected: int) -> None:
    fixed.ask(setup())
    for _ in range(2):
        assert fixed.ask(Adjust(1, (value,))).type == FrameType.STATUS
        assert list((ctypes.c_int16 * CLASSES).in_dll(fixed.library, "training_adjustment")) == [0, expected, 0]


def test_an_adjustment_may_be_repeated_while_training(fixed: MemoryNode) -> None:
    fixed.ask(setup())
    fixed.ask(Adjust(0, (0.4, -0.2, 0.1)))
    fixed.bring(State.TRAINING, fixed_weights(fixed.built.plan))
    assert fixed.ask(Adjust(0, (0.4, -0.2, 0.1))).type == FrameType.STATUS
    assert refusal(fixed.ask(Adjust(0, (0.5, -0.2, 0.1)))) == ErrorCode.WRONG_STATE


@pytest.mark.parametrize("rate", [1e3, 1e10, 3.4e38])
def test_weights_that_outgrow_their_range_are_held_and_counted(fixed: MemoryNode, rate: float) -> None:
    blob = fixed_weights(fixed.built.plan)
    fixed.bring(State.TRAINING, blob, setup(learning_rate=rate))
    seen = []
    while fixed.state() == State.TRAINING:
        status = fixed.ask(StatusRequest())
        assert isinstance(status, Status) and np.isfinite(status.loss)
        seen.append(status.saturated)
    assert seen == sorted(seen) and seen[-1] > 0
    offer, update = fixed.fetch(Encoding.WEIGHTS)
    assert offer.saturated >= seen[-1] and np.isfinite(offer.loss)
    assert update[:EXPONENTS] == blob[:EXPONENTS]
    assert (elements(update).min(), elements(update).max()) == (-32768, 32767)
    assert all(np.isfinite(tensor).all() for tensor in unpack(fixed.built.plan, update))


def test_an_ordinary_round_holds_nothing_and_counts_from_zero(fixed: MemoryNode) -> None:
    blob = fixed_weights(fixed.built.plan)
    fixed.bring(State.DONE, blob, setup(learning_rate=1e6))
    fixed.bring(State.DONE, blob, setup(round=6))
    offer, update = fixed.fetch(Encoding.WEIGHTS, round=6)
    assert offer.saturated == 0 and update != blob


@pytest.mark.parametrize("rate", [1e-38, 1e-45, 1e-9])
def test_a_step_too_small_to_see_changes_nothing_and_harms_nothing(fixed: MemoryNode, rate: float) -> None:
    blob = fixed_weights(fixed.built.plan)
    fixed.bring(State.DONE, blob, setup(learning_rate=rate))
    changed = elements(fixed.fetch(Encoding.WEIGHTS)[1]).astype(int) - elements(blob)
    assert np.abs(changed).max() <= 1 and np.count_nonzero(changed) < 10
