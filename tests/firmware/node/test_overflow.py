"""What leaves the range of floats stops training, with a message that names the sample; nothing of it is sent."""

from __future__ import annotations

import numpy as np
import pytest

from codegen.protocol import Encoding, Error, ErrorCode, Fetch, Setup, State, Train
from tests.firmware.node.harness import CLASSES, MemoryNode, decode, frame_of, setup, weights
from tests.firmware.node.test_round import order, run

WEIGHTS = weights(299)


def with_bias(value: float) -> bytes:
    """Return WEIGHTS with the last layer's biases this large, of either sign."""
    changed = np.frombuffer(WEIGHTS, "<f4").copy()
    changed[-CLASSES:] = np.array([value, -value, value], np.float32)
    return changed.tobytes()


LARGE = (10 * np.frombuffer(WEIGHTS, "<f4")).tobytes()


@pytest.mark.parametrize(
    ("name", "blob", "wanted", "count", "position"),
    [
        ("accumulating", with_bias(3e38), setup(), 30, 0),  # the logits are finite, their difference is not
        ("fused", with_bias(3e38), setup(), 30, 0),
        ("accumulating", WEIGHTS, setup(learning_rate=3e38), 30, 4),  # the loss after the first batch's step
        ("fused", WEIGHTS, setup(learning_rate=3e38), 30, 0),  # the second width's
        ("fused", WEIGHTS, setup(learning_rate=3e38, nested=0), 30, 1),
        ("accumulating", LARGE, setup(learning_rate=3e38, epochs=1, batch=30), 30, 29),  # weights, after the last step
        ("fused", LARGE, setup(learning_rate=3e38, epochs=1, batch=1, nested=0), 1, 0),
    ],
    ids=lambda value: None if isinstance(value, bytes) else str(value)[:40],
)
def test_what_overflows_stops_training_and_its_sample_is_named(
    name: str, blob: bytes, wanted: Setup, count: int, position: int, request: pytest.FixtureRequest
) -> None:
    node: MemoryNode = request.getfixturevalue(name)
    node.count = count
    node.boot()
    node.bring(State.LOADED, blob, wanted)
    frames = node.feed(frame_of(Train(5), 1)) + node.finish()
    last = decode(frames[-1])
    assert last == Error(ErrorCode.NOT_FINITE, order(wanted.seed, 0, count)[position])
    assert node.ask(Fetch(5, Encoding.WEIGHTS, 72)) == last  # and nothing of it leaves the board
    run(node, setup(round=6))
