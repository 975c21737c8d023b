"""What a checkpoint keeps, to the bit, and nothing else is believed."""

import io
from dataclasses import replace

import numpy as np
import pytest

from coordinator.aggregation import Weights
from coordinator.state import Shapes, State, read_state

SHAPES = Shapes([(2, 3), (3,)], (4, 2))
OWNED = replace(SHAPES, own={"mlp": [(2, 3), (3,)], "b": [(3,)]})


def weights(seed: int) -> Weights:
    rng = np.random.default_rng(seed)
    return [rng.normal(size=shape).astype(np.float32) for shape in SHAPES.tensors]


TARGETS = np.array([[255, 0], [0, 255], [100, 155], [1, 254]], np.uint8)
FULL = State(weights(1), TARGETS, weights(2), (weights(3), weights(4)))
STATES = [
    State(weights(1)),
    State(weights(1), TARGETS),
    State(weights(1), None, weights(2)),
    State(weights(1), None, None, (weights(3),)),
    FULL,
]


@pytest.mark.parametrize("state", STATES)
def test_a_state_comes_back_to_the_bit(state: State) -> None:
    read = read_state(state.content(), SHAPES)
    assert read is not None and read.content() == state.content()
    assert (read.targets is None, read.average is None, len(read.server)) == (
        state.targets is None, state.average is None, len(state.server)
    )  # fmt: skip


def test_models_of_their_own_come_back_by_name() -> None:
    state = State(weights(1), own={"mlp": weights(2), "b": weights(3)[1:]})
    read = read_state(state.content(), OWNED)
    assert read is not None and read.content() == state.content() and list(read.own) == ["mlp", "b"]
    for wrong in ({"mlp": weights(2)}, {"mlp": weights(2), "b": weights(3)[:1]}):
        assert read_state(State(weights(1), own=wrong).content(), OWNED) is None


def test_the_result_is_the_average_if_there_is_one() -> None:
    assert FULL.result is FULL.average
    assert STATES[0].result is STATES[0].weights


def packed(**arrays: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)  # type: ignore[arg-type]
    return file.getvalue()


GOOD = {"tensor000": np.zeros((2, 3), np.float32), "tensor001": np.zeros(3, np.float32)}
BAD = {
    "a pickle": packed(**GOOD | {"tensor000": np.array([{"a": 1}], dtype=object)}),
    "another type": packed(**GOOD | {"tensor000": np.zeros((2, 3))}),
    "a lacking tensor": packed(tensor000=GOOD["tensor000"]),
    "half an average": packed(**GOOD, average000=GOOD["tensor000"]),
    "a moment of another shape": packed(**GOOD, server0_000=GOOD["tensor001"], server0_001=GOOD["tensor001"]),
    "targets of another shape": packed(**GOOD, targets=TARGETS[:3]),
    "targets of another type": packed(**GOOD, targets=TARGETS.astype(np.int16)),
    "targets of another sum": packed(**GOOD, targets=TARGETS // 2),
    "nothing": b"",
    "no archive": b"\x93NUMPY\x01\x00",
    "an archive's beginning": FULL.content()[:-1],
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_no_state_of_the_run_is_refused(case: str) -> None:
    assert read_state(packed(**GOOD), SHAPES) is not None
    assert read_state(BAD[case], SHAPES) is None


def test_targets_belong_to_a_run_with_a_proxy_set() -> None:
    assert read_state(FULL.content(), replace(SHAPES, targets=(0, 0))) is None
