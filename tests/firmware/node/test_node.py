"""Every message in every state, on the real node."""

from __future__ import annotations

import random
import struct
import zlib
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
    (begin_of(WEIGHTS, payload=73), "WRONG_STATE= WRONG_SIZE= WRONG_SIZE= WRONG_SIZE= WRONG_SIZE="),
    (Begin(2, 72, 5, 1196, 0), "WRONG_STATE= UNSUPPORTED= UNSUPPORTED= UNSUPPORTED= UNSUPPORTED="),
    (Commit(5), "WRONG_STATE= -= LOADED TRAINING DONE"),
    (Commit(6), "WRONG_STATE= WRONG_ROUND= WRONG_ROUND= WRONG_ROUND= WRONG_ROUND="),
    (Train(5), "WRONG_STATE= WRONG_STATE= TRAINING TRAINING DONE"),
    (Train(6), "WRONG_STATE= WRONG_ROUND= WRONG_ROUND= WRONG_ROUND= WRONG_ROUND="),
    (Fetch(5, Encoding.WEIGHTS, 72), "WRONG_STATE= WRONG_STATE= WRONG_STATE= WRONG_STATE= OFFER="),
    (Fetch(5, Encoding.DELTA_Q8, 8), "WRONG_STATE= WRONG_STATE= WRONG_STATE= WRONG_STATE= OFFER="),
    (Fetch(5, 9, 72), "WRONG_STATE= WRONG_STATE= WRONG_STATE= WRONG_STATE= UNSUPPORTED="),
    (Fetch(5, Encoding.WEIGHTS, 73), "WRONG_STATE= WRONG_STATE= WRONG_STATE= WRONG_STATE= WRONG_SIZE="),
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
            PROTOCOL_VERSION, 72, 4, encodings, boot.boot, b"memory!\0", 0xF00D1234, plan.model_hash, SAMPLES,
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
        for length in range(73):
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
    assert fused.feed(encode(FrameType.DATA, 3, 0, bytes(73))) == []
    status = fused.ask(StatusRequest())
    assert isinstance(status, Status) and status.rejected == 1


def test_noise_changes_nothing(fused: MemoryNode) -> None:
    noise = random.Random(4)
    fused.bring(State.LOADED, WEIGHTS)
    for length in range(1, 300):
        assert fused.feed(noise.randbytes(length)) == []
        fused.feed(b"\0")
        assert fused.state() == State.LOADED


def test_weights_may_come_in_any_order_and_twice(fused: MemoryNode) -> None:
    fused.ask(setup())
    fused.ask(begin_of(WEIGHTS), 9)
    chunks = [encode(FrameType.DATA, 9, at // 72, WEIGHTS[at : at + 72]) for at in range(0, len(WEIGHTS), 72)]
    order = random.Random(5)
    for start in range(0, len(chunks), 8):
        some = chunks[start : start + 8] * 2
        order.shuffle(some)
        for data in some:
            fused.feed(data)
    assert fused.ask(Commit(5), 9).type == FrameType.STATUS
    assert fused.state() == State.LOADED


def test_a_host_that_comes_back_goes_on_where_it_was(fused: MemoryNode) -> None:
    fused.ask(setup())
    fused.ask(begin_of(WEIGHTS), 9)
    for chunk in range(3):
        fused.feed(encode(FrameType.DATA, 9, chunk, WEIGHTS[chunk * 72 : chunk * 72 + 72]))
    (ack,) = fused.feed(frame_of(begin_of(WEIGHTS), 44))
    assert (ack.type, ack.transfer, ack.chunk) == (FrameType.ACK, 44, 3)
    assert fused.feed(encode(FrameType.DATA, 9, 3, WEIGHTS[216:288])) == []  # of the transfer that broke off


def test_chunks_may_change_their_length_on_the_way(fused: MemoryNode) -> None:
    """What has come without a gap stays, and what has been summed is not written to again."""
    fused.ask(setup())
    fused.ask(begin_of(WEIGHTS), 9)
    for chunk in (0, 1, 2, 5):
        fused.feed(encode(FrameType.DATA, 9, chunk, WEIGHTS[chunk * 72 : chunk * 72 + 72]))
    fused.finish()  # it sums the first 216 bytes
    transfer, at = 10, 216
    for payload in (50, 33, 72, 20):
        (ack,) = fused.feed(frame_of(begin_of(WEIGHTS, payload=payload), transfer))
        assert (ack.transfer, ack.chunk, Ack.decode(ack.payload)) == (transfer, at // payload, Ack(0, 0))
        at = at // payload * payload
        wrong = bytes(216 - at) + WEIGHTS[216 : at + payload] if at < 216 else WEIGHTS[at : at + payload]
        fused.feed(encode(FrameType.DATA, transfer, at // payload, wrong[:payload]))
        at += payload
        transfer += 1
    for chunk in range(at // 20, -(-len(WEIGHTS) // 20)):
        fused.feed(encode(FrameType.DATA, transfer - 1, chunk, WEIGHTS[chunk * 20 : chunk * 20 + 20]))
    assert fused.ask(Commit(5), transfer - 1).type == FrameType.STATUS
    assert fused.array("model_weights").tobytes() == WEIGHTS


@pytest.mark.parametrize("payload", [20, 33, 71])
@pytest.mark.parametrize("state", [State.LOADED, State.TRAINING, State.DONE])
def test_weights_that_are_whole_stay_so_in_chunks_of_any_length(fused: MemoryNode, state: State, payload: int) -> None:
    """A host that comes back may have learnt another length meanwhile."""
    fused.bring(state, WEIGHTS)
    before = fused.array("model_weights").tobytes()
    data = encode(FrameType.DATA, 44, 0, bytes(payload))
    acks = fused.feed(frame_of(begin_of(WEIGHTS, payload=payload), 44) + data)
    chunks = -(-len(WEIGHTS) // payload)
    answers = [(ack.type, ack.chunk) for ack in acks if ack.transfer == 44]
    assert answers == [(FrameType.ACK, chunks)] * 2
    status = fused.ask(Commit(5), 44)
    assert isinstance(status, Status)
    if state == State.TRAINING:  # it goes on meanwhile
        assert status.state in (State.TRAINING, State.DONE)
    else:
        assert (status.state, fused.array("model_weights").tobytes()) == (state, before)


def test_a_commit_that_comes_too_early_is_told_what_is_missing(fused: MemoryNode) -> None:
    fused.ask(setup())
    fused.ask(begin_of(OTHER), 9)
    fused.feed(encode(FrameType.DATA, 9, 1, OTHER[72:144]))
    (ack,) = fused.feed(encode(FrameType.COMMIT, 9, 77, Commit(5).encode()))
    assert (ack.type, ack.chunk, Ack.decode(ack.payload)) == (FrameType.ACK, 0, Ack(1, 77))


def test_damaged_weights_are_sent_again_from_the_start(fused: MemoryNode) -> None:
    fused.ask(setup())
    damaged = bytearray(WEIGHTS)
    damaged[100] ^= 1
    fused.ask(begin_of(WEIGHTS), 9)
    for at in range(0, len(WEIGHTS), 72):
        fused.feed(encode(FrameType.DATA, 9, at // 72, bytes(damaged[at : at + 72])))
    for _ in range(2):
        assert fused.ask(Commit(5), 9) == Error(ErrorCode.BAD_CRC, zlib.crc32(damaged))
        assert fused.state() == State.READY
    fused.load(WEIGHTS)
    assert fused.ask(Commit(5), 9).type == FrameType.STATUS
    assert fused.state() == State.LOADED


def test_weights_that_are_not_finite_are_refused(fused: MemoryNode) -> None:
    bad = np.frombuffer(WEIGHTS, "<f4").copy()
    bad[123] = np.nan
    fused.ask(setup())
    fused.load(bad.tobytes())
    for _ in range(2):
        assert fused.ask(Commit(5), 9) == Error(ErrorCode.NOT_FINITE, 123)
    fused.load(WEIGHTS)
    assert fused.ask(Commit(5), 9).type == FrameType.STATUS


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


def test_an_update_is_offered_again_as_often_as_it_is_asked_for(accumulating: MemoryNode) -> None:
    accumulating.bring(State.DONE, WEIGHTS)
    first = accumulating.fetch(Encoding.DELTA_Q8)
    assert accumulating.fetch(Encoding.DELTA_Q8) == first
    assert accumulating.ask(Train(5)).type == FrameType.STATUS and accumulating.state() == State.DONE
    assert accumulating.fetch(Encoding.DELTA_Q8, payload=7) == first


def test_chunks_flow_right_behind_the_offer_as_far_as_the_window(fused: MemoryNode) -> None:
    fused.bring(State.DONE, WEIGHTS)
    offer, *flight = fused.feed(frame_of(Fetch(5, 0, 72), 30)) + fused.finish()
    assert offer.type == FrameType.OFFER
    assert [frame.chunk for frame in flight] == [0, 1, 2, 3]
    stalled = encode(FrameType.ACK, 30, 0, Ack(0, 1).encode())
    assert fused.feed(stalled) + fused.finish() == flight
    further = encode(FrameType.ACK, 30, 16, Ack(0, 0).encode())  # taken up again where another host had stopped
    assert [frame.chunk for frame in fused.feed(further) + fused.finish()] == [16]


def test_an_update_is_sent_from_any_chunk_on(fused: MemoryNode) -> None:
    fused.bring(State.DONE, WEIGHTS)
    last = len(WEIGHTS) // 40
    fetch = Fetch(5, 0, 40).encode()
    _, *flight = fused.feed(encode(FrameType.FETCH, 30, last - 1, fetch)) + fused.finish()
    assert [frame.chunk for frame in flight] == [last - 1, last]
    (offer,) = fused.feed(encode(FrameType.FETCH, 31, last + 1, fetch)) + fused.finish()
    assert offer.type == FrameType.OFFER
    (error,) = fused.feed(encode(FrameType.FETCH, 32, last + 2, fetch)) + fused.finish()
    assert refusal(decode(error)) == ErrorCode.WRONG_SIZE


def test_a_new_round_ends_the_transfer_of_the_old_one(fused: MemoryNode) -> None:
    fused.bring(State.DONE, WEIGHTS)
    fused.ask(Fetch(5, 0, 72), 30)
    fused.ask(setup(round=6))
    assert fused.feed(encode(FrameType.ACK, 30, 0, Ack(0, 0).encode())) + fused.finish() == []


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
