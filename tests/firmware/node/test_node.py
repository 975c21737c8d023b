"""Every message in every state, on the real node."""

from __future__ import annotations

import random
import struct
from itertools import pairwise

import numpy as np
import pytest

from codegen.protocol import (
    BY_TYPE,
    PROTOCOL_VERSION,
    Abort,
    Ack,
    Adjust,
    Baud,
    Begin,
    Commit,
    Encoding,
    Error,
    ErrorCode,
    Fetch,
    FrameType,
    Hello,
    HelloRequest,
    Labels,
    LabelsRequest,
    Message,
    State,
    Status,
    StatusRequest,
    Train,
)
from coordinator.link.frames import encode
from tests.firmware.node.harness import (
    CLASSES,
    SAMPLES,
    MemoryNode,
    begin_of,
    decode,
    frame_of,
    refusal,
    samples,
    setup,
    weights,
)

WEIGHTS = weights(299)
OTHER = weights(299, seed=3)

# What each request gets in IDLE, READY, LOADED, TRAINING and DONE of round 5: the reply, then the state after it.
# STATUS is written by its state alone, ERROR by its code; "=": the state stays.
TABLE: list[tuple[Message, str]] = [
    (HelloRequest(), "HELLO= HELLO= HELLO= HELLO= HELLO="),
    (LabelsRequest(0), "LABELS= LABELS= LABELS= LABELS= LABELS="),
    (StatusRequest(), "IDLE READY LOADED TRAINING DONE"),
    (Abort(), "IDLE IDLE IDLE IDLE IDLE"),
    (Baud(500000), "IDLE READY LOADED TRAINING DONE"),
    (Baud(300), "UNSUPPORTED= UNSUPPORTED= UNSUPPORTED= UNSUPPORTED= UNSUPPORTED="),
    (Baud(0), "UNSUPPORTED= UNSUPPORTED= UNSUPPORTED= UNSUPPORTED= UNSUPPORTED="),
    (setup(), "READY READY LOADED TRAINING DONE"),
    (setup(seed=78), "READY READY READY READY READY"),
    (setup(round=6), "READY READY READY READY READY"),
    (setup(batch=255), "READY READY READY READY READY"),
    (setup(encoding=3), "UNSUPPORTED= UNSUPPORTED= UNSUPPORTED= UNSUPPORTED= UNSUPPORTED="),
    (setup(encoding=255), "UNSUPPORTED= UNSUPPORTED= UNSUPPORTED= UNSUPPORTED= UNSUPPORTED="),
    (setup(batch=0), "UNSUPPORTED= UNSUPPORTED= UNSUPPORTED= UNSUPPORTED= UNSUPPORTED="),
    (setup(epochs=0), "UNSUPPORTED= UNSUPPORTED= UNSUPPORTED= UNSUPPORTED= UNSUPPORTED="),
    (setup(learning_rate=0.0), "UNSUPPORTED= UNSUPPORTED= UNSUPPORTED= UNSUPPORTED= UNSUPPORTED="),
    (setup(learning_rate=-0.1), "UNSUPPORTED= UNSUPPORTED= UNSUPPORTED= UNSUPPORTED= UNSUPPORTED="),
    (setup(learning_rate=float("nan")), "NOT_FINITE= NOT_FINITE= NOT_FINITE= NOT_FINITE= NOT_FINITE="),
    (Adjust(0, (0.0,)), "WRONG_STATE= READY LOADED TRAINING DONE"),
    (Adjust(1, (0.5, -0.5)), "WRONG_STATE= READY LOADED WRONG_STATE= WRONG_STATE="),
    (Adjust(CLASSES, ()), "WRONG_STATE= READY LOADED TRAINING DONE"),
    (Adjust(CLASSES, (0.0,)), "MALFORMED= MALFORMED= MALFORMED= MALFORMED= MALFORMED="),
    (Adjust(65535, ()), "MALFORMED= MALFORMED= MALFORMED= MALFORMED= MALFORMED="),
    (Adjust(0, (float("inf"),)), "NOT_FINITE= NOT_FINITE= NOT_FINITE= NOT_FINITE= NOT_FINITE="),
    (begin_of(WEIGHTS), "WRONG_STATE= ACK= ACK= ACK= ACK="),
    (begin_of(OTHER), "WRONG_STATE= ACK=READY ACK=READY ACK=READY ACK=READY"),
    (begin_of(WEIGHTS, payload=40), "WRONG_STATE= ACK= ACK= ACK= ACK="),
    (begin_of(WEIGHTS, round=6), "WRONG_STATE= WRONG_ROUND= WRONG_ROUND= WRONG_ROUND= WRONG_ROUND="),
    (begin_of(WEIGHTS[:-4]), "WRONG_STATE= WRONG_SIZE= WRONG_SIZE= WRONG_SIZE= WRONG_SIZE="),
    (begin_of(WEIGHTS, payload=0), "WRONG_STATE= WRONG_SIZE= WRONG_SIZE= WRONG_SIZE= WRONG_SIZE="),
    (begin_of(WEIGHTS, payload=75), "WRONG_STATE= WRONG_SIZE= WRONG_SIZE= WRONG_SIZE= WRONG_SIZE="),
    (Begin(2, 72, 5, 1196, 0), "WRONG_STATE= UNSUPPORTED= UNSUPPORTED= UNSUPPORTED= UNSUPPORTED="),
    (Commit(5), "WRONG_STATE= -= -= -= -="),
    (Commit(6), "WRONG_STATE= WRONG_ROUND= WRONG_ROUND= WRONG_ROUND= WRONG_ROUND="),
    (Train(5), "WRONG_STATE= WRONG_STATE= TRAINING TRAINING DONE"),
    (Train(6), "WRONG_STATE= WRONG_ROUND= WRONG_ROUND= WRONG_ROUND= WRONG_ROUND="),
    (Fetch(5, Encoding.WEIGHTS, 72), "WRONG_STATE= WRONG_STATE= WRONG_STATE= WRONG_STATE= OFFER="),
    (Fetch(5, Encoding.DELTA_Q8, 8), "WRONG_STATE= WRONG_STATE= WRONG_STATE= WRONG_STATE= OFFER="),
    (Fetch(5, 9, 72), "WRONG_STATE= WRONG_STATE= WRONG_STATE= WRONG_STATE= UNSUPPORTED="),
    (Fetch(5, Encoding.WEIGHTS, 75), "WRONG_STATE= WRONG_STATE= WRONG_STATE= WRONG_STATE= WRONG_SIZE="),
    (Fetch(6, Encoding.WEIGHTS, 72), "WRONG_STATE= WRONG_ROUND= WRONG_ROUND= WRONG_ROUND= WRONG_ROUND="),
    (Ack(0, 0), "-= -= -= -= -="),
]
CELLS = [
    pytest.param(message, state, cell, id=f"{message}-{state.name}")
    for message, row in TABLE
    for state, cell in zip(State, row.split(), strict=True)
]


@pytest.mark.parametrize(("message", "before", "cell"), CELLS)
def test_every_request_in_every_state_twice(
    accumulating: MemoryNode, message: Message, before: State, cell: str
) -> None:
    accumulating.bring(before, WEIGHTS)
    what, _, then = cell.partition("=")
    after = State[then] if then else before
    if what in State.__members__:
        after = State[what]
    for _ in range(2):
        if what == "-":  # of a transfer that it does not know: its BEGIN or FETCH was lost
            assert [frame for frame in accumulating.feed(frame_of(message, 1)) if frame.transfer == 1] == []
            continue
        reply = accumulating.ask(message)
        if isinstance(reply, Error):
            assert ErrorCode(reply.code).name == what
        elif isinstance(reply, Status):
            assert State(reply.state).name == what
        else:
            assert reply.type.name == what
        assert accumulating.state() == after


def test_hello_says_everything(accumulating: MemoryNode, fused: MemoryNode, fixed: MemoryNode) -> None:
    for node, encodings, batch, kernel in ((accumulating, 7, 255, 0), (fused, 1, 1, 0), (fixed, 1, 1, 1)):
        boot = node.ask(HelloRequest())
        assert isinstance(boot, Hello)
        plan = node.built.plan
        expected = Hello(
            PROTOCOL_VERSION, 74, 4, encodings, boot.boot, b"memory!\0", 0xF00D1234, plan.model_hash, SAMPLES, 0,
            batch, kernel, 299, 0, "nrf52_dk", "full",
        )  # fmt: skip
        assert boot == expected
        node.boot()
        again = node.ask(HelloRequest(protocol=9))
        assert isinstance(again, Hello) and again.boot != boot.boot


@pytest.mark.parametrize("first", [0, 1, 2, 3, 65535])
def test_labels_are_counted_from_any_class_on(fused: MemoryNode, first: int) -> None:
    counts = np.bincount(samples()[1], minlength=CLASSES)
    assert fused.ask(LabelsRequest(first)) == Labels(first, tuple(int(count) for count in counts[first:]))


# Only for streams (test_stream.py), and for nodes that have a key.
OTHERS = (FrameType.SAMPLES, FrameType.CHALLENGE, FrameType.AUTHENTICATE)
LENGTHS: dict[FrameType, tuple[str, str]] = {
    message.type: message.layout() for message in BY_TYPE.values() if message.type < 0x80 and message.type not in OTHERS
}


@pytest.mark.parametrize("type", list(LENGTHS), ids=lambda kind: kind.name)
def test_wrong_lengths_are_malformed(fused: MemoryNode, type: FrameType) -> None:
    fixed, tail = LENGTHS[type]
    size, width = struct.calcsize(fixed), struct.calcsize("<" + tail) if tail else 0
    for state in (State.IDLE, State.LOADED):
        fused.boot()
        fused.bring(state, WEIGHTS)
        for length in range(75):
            if length == size or (width and length > size and (length - size) % width == 0):
                continue
            (frame,) = fused.feed(encode(type, 3, 0, bytes(length)))
            assert (frame.transfer, decode(frame)) == (3, Error(ErrorCode.MALFORMED, type))
            assert fused.state() == state


def test_unknown_requests_are_refused_and_echoes_ignored(fused: MemoryNode) -> None:
    for type in set(range(0x80)) - set(FrameType) | {FrameType.SAMPLES}:
        (frame,) = fused.feed(encode(type, 3, 0, b"?"))
        assert (frame.transfer, decode(frame)) == (3, Error(ErrorCode.UNKNOWN, type))
    for type in range(0x80, 0x100):  # a wire that echoes must not make a storm
        assert fused.feed(encode(type, 3, 0, b"?")) == []


def test_a_frame_longer_than_the_mtu_is_noise(fused: MemoryNode) -> None:
    assert fused.feed(encode(FrameType.DATA, 3, 0, bytes(75))) == []
    status = fused.ask(StatusRequest())
    assert isinstance(status, Status) and status.rejected == 1


def test_noise_changes_nothing(fused: MemoryNode) -> None:
    noise = random.Random(4)
    fused.bring(State.LOADED, WEIGHTS)
    for length in range(1, 300):
        assert fused.feed(noise.randbytes(length)) == []
        fused.feed(b"\0")
        assert fused.state() == State.LOADED


def test_training_that_diverges_stops_with_a_message(fused: MemoryNode, accumulating: MemoryNode) -> None:
    for node in (fused, accumulating):
        node.bring(State.LOADED, np.full(299, 3e38, "<f4").tobytes())
        _, stop = node.feed(frame_of(Train(5), 1))
        assert stop.transfer == 0 and refusal(decode(stop)) == ErrorCode.NOT_FINITE
        assert node.state() == State.IDLE
        for message in (Train(5), Commit(5), Fetch(5, 0, 72), begin_of(WEIGHTS)):
            assert node.ask(message) == decode(stop)
        assert node.ask(setup()).type == FrameType.STATUS
        assert node.state() == State.READY


def test_without_samples_nothing_is_trained(fused: MemoryNode) -> None:
    fused.count = 0
    fused.boot()
    fused.bring(State.LOADED, WEIGHTS)
    assert refusal(fused.ask(Train(5))) == ErrorCode.NO_SAMPLES
    assert fused.ask(LabelsRequest(0)) == Labels(0, (0,) * CLASSES)


def test_delta_encodings_are_refused_without_the_origin(fused: MemoryNode) -> None:
    assert refusal(fused.ask(setup(encoding=Encoding.DELTA_Q8))) == ErrorCode.UNSUPPORTED
    fused.bring(State.DONE, WEIGHTS)
    assert fused.ask(Fetch(5, Encoding.DELTA_F32, 72)) == Error(ErrorCode.UNSUPPORTED, Encoding.DELTA_F32)


def test_training_is_reported_at_most_twice_a_second(fused: MemoryNode) -> None:
    fused.bring(State.LOADED, WEIGHTS, setup(epochs=10))
    fused.ask(Train(5))
    reports: list[tuple[int, Status]] = []
    time = 0
    fused.library.memory_advance(17)
    while fused.poll():
        reports += [(time, message) for frame in fused.take() if isinstance(message := decode(frame), Status)]
        fused.library.memory_advance(17)
        time += 17
    *running, (_, last) = reports
    assert len(running) == (10 * SAMPLES - 1) * 17 // 510
    assert all(later - earlier >= 500 for (earlier, _), (later, _) in pairwise(running))
    assert [status.state for _, status in running] == [State.TRAINING] * len(running)
    assert (last.state, last.done, last.total) == (State.DONE, 10 * SAMPLES, 10 * SAMPLES)


def test_requests_are_answered_between_samples(fused: MemoryNode) -> None:
    fused.bring(State.LOADED, WEIGHTS)
    fused.ask(Train(5))
    seen = [fused.ask(StatusRequest()) for _ in range(20)]
    done = [status.done for status in seen if isinstance(status, Status)]
    assert done == list(range(1, 21))


def test_a_new_rate_is_kept_once_something_valid_was_heard(fused: MemoryNode) -> None:
    rate = fused.library.memory_rate
    fused.ask(Baud(500000))
    assert rate() == 500000
    fused.ask(StatusRequest())
    fused.library.memory_advance(60_000)
    fused.finish()
    assert rate() == 500000
    fused.ask(Baud(250000))
    fused.feed(b"noise\0")
    fused.library.memory_advance(2000)
    fused.finish()
    assert rate() == 250000
    fused.library.memory_advance(1)
    fused.finish()
    assert rate() == 500000


def test_setup_clears_the_adjustment(accumulating: MemoryNode) -> None:
    updates: list[bytes] = []
    values: tuple[float, ...]
    for values in ((), (0.0, 3.0, 0.0), ()):
        accumulating.ask(setup(round=len(updates)))
        if values:
            accumulating.ask(Adjust(0, values))
        accumulating.load(WEIGHTS, round=len(updates))
        accumulating.ask(Commit(len(updates)), 9)
        accumulating.ask(Train(len(updates)))
        accumulating.finish()
        updates.append(accumulating.fetch(Encoding.WEIGHTS, round=len(updates))[1])
    assert updates[0] == updates[2] != updates[1]
