"""Weights that come and updates that go, in whatever order and however often, on the real node."""

from __future__ import annotations

import random
import zlib

import numpy as np
import pytest

from codegen.protocol import Ack, Commit, Encoding, Error, ErrorCode, Fetch, FrameType, State, Status, Train
from coordinator.link.frames import encode
from tests.firmware.node.harness import MemoryNode, begin_of, decode, frame_of, refusal, setup, weights

WEIGHTS = weights(299)
OTHER = weights(299, seed=3)


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
