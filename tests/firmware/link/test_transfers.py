"""Transfers between the C side and the Python side, over wires that drop, flip and double, in virtual time."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codegen.protocol import Ack, FrameType
from coordinator.link.frames import Decoder, Frame, encode
from coordinator.link.path import RoundTrip
from coordinator.link.transfer import CHUNKS_MAX, Receiver, Sender
from tests.firmware.link.clink import UNWANTED, Link
from tests.firmware.link.conftest import MakeLink

BYTE = 10 / 115200
LATENCY = 0.004


@dataclass
class Channel:
    """One direction of a wire that keeps order; `faults` are the chances a frame to be dropped, flipped, doubled."""

    chance: random.Random
    faults: tuple[float, float, float]
    free: float = 0.0
    queue: deque[tuple[float, bytes]] = field(default_factory=deque)

    def send(self, now: float, data: bytes) -> None:
        drop, flip, double = self.faults
        draw = self.chance.random()
        copies = 0 if draw < drop else 2 if draw > 1 - double else 1
        if drop <= draw < drop + flip:
            place = self.chance.randrange(len(data) * 8)
            data = data[: place // 8] + bytes((data[place // 8] ^ 1 << place % 8,)) + data[place // 8 + 1 :]
        for _ in range(copies):
            self.free = max(self.free, now) + len(data) * BYTE
            self.queue.append((self.free + LATENCY, data))


class Wire:
    """Both directions and the clock."""

    def __init__(self, seed: int, faults: tuple[float, float, float]) -> None:
        chance = random.Random(seed)
        self.now = 0.0
        self.down, self.up = Channel(chance, faults), Channel(chance, faults)

    def step(self, deadline: float, down: Callable[[bytes], None], up: Callable[[bytes], None]) -> bool:
        """Deliver what arrives next; False if nothing does before the deadline, which is then now."""
        waiting = [(way.queue[0][0], way is self.up) for way in (self.down, self.up) if way.queue]
        if not waiting or min(waiting)[0] > deadline:
            self.now = max(self.now, deadline)
            return False
        when, is_up = min(waiting)
        self.now = max(self.now, when)
        (up if is_up else down)((self.up if is_up else self.down).queue.popleft()[1])
        return True


def send_down(link: Link, blob: bytes, payload: int, wire: Wire) -> Sender:
    """Move `blob` from a Sender to C; checks that it arrives to the bit."""
    sender = Sender(blob, payload, lambda: wire.now)
    state, node, host = link.incoming(payload, len(blob)), link.decoder(), Decoder()
    memory = bytearray(len(blob))

    def arrive_down(data: bytes) -> None:
        for frame in node.feed(data):
            place = link.accept(state, frame.chunk, len(frame.payload))
            if place != UNWANTED:
                memory[place : place + len(frame.payload)] = frame.payload
            wire.up.send(wire.now, encode(FrameType.ACK, 7, state.next, Ack(state.map, 0).encode()))

    def arrive_up(data: bytes) -> None:
        for frame in host.feed(data):
            sender.acknowledge(frame.chunk, Ack.decode(frame.payload).map)

    for _ in range(200_000):
        for chunk, data in sender.ready():
            wire.down.send(wire.now, encode(FrameType.DATA, 7, chunk, data))
        if sender.done:
            break
        if not wire.step(sender.deadline, arrive_down, arrive_up):
            sender.expire()
    assert sender.done
    assert link.complete(state)
    assert bytes(memory) == blob
    return sender


def send_up(link: Link, blob: bytes, payload: int, wire: Wire) -> Receiver:
    """Move `blob` from C to a Receiver; checks that it arrives to the bit."""
    receiver = Receiver(len(blob), payload, lambda: wire.now)
    state, node, host = link.outgoing(payload, len(blob)), link.decoder(), Decoder()

    def acknowledge() -> None:
        next, map, stalled = receiver.acknowledgement()
        wire.down.send(wire.now, encode(FrameType.ACK, 7, next, Ack(map, stalled).encode()))

    def arrive_down(data: bytes) -> None:
        for frame in node.feed(data):
            ack = Ack.decode(frame.payload)
            link.acknowledge(state, frame.chunk, ack.map, bool(ack.stalled))
        for chunk, offset, length in link.ready(state):
            frame = Frame(FrameType.DATA, 7, chunk, blob[offset : offset + length])
            wire.up.send(wire.now, link.encode(frame))

    def arrive_up(data: bytes) -> None:
        for frame in host.feed(data):
            receiver.accept(frame.chunk, frame.payload)
            acknowledge()

    acknowledge()
    for _ in range(200_000):
        if receiver.done:
            break
        if not wire.step(receiver.deadline, arrive_down, arrive_up):
            receiver.expire()
            acknowledge()
    assert receiver.done
    assert receiver.blob == blob
    return receiver


FAULTS = {
    "clean": (0.0, 0.0, 0.0),
    "drops": (0.05, 0.0, 0.0),
    "flips": (0.0, 0.05, 0.0),
    "doubles": (0.0, 0.0, 0.1),
    "all": (0.1, 0.1, 0.1),
    "hardly anything passes": (0.4, 0.2, 0.0),
}


@pytest.mark.parametrize("window", [1, 5, 16, 17, 32])
@pytest.mark.parametrize("faults", FAULTS.values(), ids=FAULTS.keys())
def test_to_the_bit_both_ways(make_link: MakeLink, faults: tuple[float, float, float], window: int) -> None:
    link = make_link(248, window)
    for seed in range(4):
        blob = random.Random(seed).randbytes(5000 + seed)
        send_down(link, blob, 120, Wire(seed, faults))
        send_up(link, blob, 120, Wire(seed, faults))


@settings(deadline=None, max_examples=40)
@given(blob=st.binary(max_size=3000), payload=st.integers(1, 248), seed=st.integers(0, 1000))
def test_any_size_in_any_chunks(link: Link, blob: bytes, payload: int, seed: int) -> None:
    send_down(link, blob, payload, Wire(seed, FAULTS["all"]))
    send_up(link, blob, payload, Wire(seed, FAULTS["all"]))


def test_without_faults_nothing_is_sent_again(link: Link) -> None:
    assert send_down(link, bytes(50_000), 248, Wire(1, FAULTS["clean"])).retransmitted == 0
    assert send_up(link, bytes(50_000), 248, Wire(1, FAULTS["clean"])).retransmitted == 0


def test_only_what_was_lost_is_sent_again(link: Link) -> None:
    """The wire keeps order, so a chunk is known to be lost as soon as a later one is acknowledged."""
    for drop in range(20):
        wire = Wire(1, FAULTS["clean"])
        original, count = wire.down.send, iter(range(10_000))

        def send(now: float, data: bytes, original: Callable[..., None] = original, drop: int = drop) -> None:
            if next(count) != drop:  # noqa: B023
                original(now, data)

        wire.down.send = send  # type: ignore[method-assign]
        sender = send_down(link, bytes(10_000), 248, wire)
        assert sender.retransmitted == 1
        assert wire.now < 10_000 * 1.1 * BYTE


def test_c_detects_a_loss_by_order_alone(link: Link) -> None:
    state = link.outgoing(100, 1000)
    assert [chunk for chunk, _, _ in link.ready(state)] == list(range(8))
    link.acknowledge(state, 0, 0b11)  # 1 and 2 are here, 0 was sent before them
    assert [chunk for chunk, _, _ in link.ready(state)] == [0]
    link.acknowledge(state, 0, 0b111)  # 3 is here, but 0 was sent after it: perhaps on its way
    assert list(link.ready(state)) == []
    link.acknowledge(state, 4, 0b111)  # 0 came after 4 should have; 5, 6, 7 are here
    assert list(link.ready(state)) == [(4, 400, 100), (8, 800, 100), (9, 900, 100)]
    link.acknowledge(state, 4, stalled=True)
    assert [chunk for chunk, _, _ in link.ready(state)] == [4, 5, 6, 7, 8, 9]


@pytest.mark.parametrize(
    ("next", "map"),
    [(3, 0), (8, 1 << 1), (4, 1 << 5), (10, 0), (11, 0), (65535, 65535)],
    ids=["old", "beyond flight", "not yet sent", "at the end, but not sent", "past the end", "far"],
)
def test_nonsense_from_the_wire_never_ends_or_upsets_a_transfer(link: Link, next: int, map: int) -> None:
    state = link.outgoing(100, 950)
    list(link.ready(state))
    link.acknowledge(state, 4)
    list(link.ready(state))
    before = bytes(state)
    link.acknowledge(state, next, map)
    if next != 10:  # all of it: the host may well have it from before
        assert bytes(state) == before
    assert all(offset + length <= 950 for _, offset, length in link.ready(state))


@pytest.mark.parametrize(
    ("chunk", "length"), [(0, 99), (0, 101), (9, 100), (10, 0), (10, 50), (17, 100), (65535, 100), (65535, 0)]
)
def test_c_takes_no_chunk_out_of_place(link: Link, chunk: int, length: int) -> None:
    state = link.incoming(100, 950)
    assert link.accept(state, chunk, length) == UNWANTED
    assert (state.next, state.map) == (0, 0)
    receiver = Receiver(950, 100, lambda: 0.0)
    assert not receiver.accept(chunk, bytes(length))
    assert (receiver.next, receiver.map) == (0, 0)


@settings(deadline=None)
@given(chunks=st.lists(st.tuples(st.integers(0, 12), st.sampled_from([0, 50, 99, 100])), max_size=60))
def test_both_receivers_agree_whatever_comes(link: Link, chunks: list[tuple[int, int]]) -> None:
    state, receiver = link.incoming(100, 950), Receiver(950, 100, lambda: 0.0)
    for chunk, length in chunks:
        assert (link.accept(state, chunk, length) != UNWANTED) == receiver.accept(chunk, bytes(length))
        assert (state.next, state.map) == (receiver.next, receiver.map)
        assert link.complete(state) == receiver.done


@pytest.mark.parametrize(("payload", "size"), [(0, 10), (249, 10), (1, 65536), (248, 65535 * 248 + 1)])
def test_c_refuses_impossible_transfers(link: Link, payload: int, size: int) -> None:
    assert not link.incoming(payload, size).open
    assert not link.outgoing(payload, size).open
    assert list(link.ready(link.outgoing(payload, size))) == []


def test_an_interrupted_transfer_goes_on_where_it_was(link: Link) -> None:
    state = link.outgoing(100, 950)
    link.acknowledge(state, 6)
    assert [chunk for chunk, _, _ in link.ready(state)] == [6, 7, 8, 9]
    sender = Sender(bytes(950), 100, lambda: 0.0)
    sender.acknowledge(6, 0)
    assert [chunk for chunk, _ in sender.ready()] == [6, 7, 8, 9]


def test_python_refuses_more_chunks_than_there_are_numbers() -> None:
    with pytest.raises(ValueError, match=f"at most {CHUNKS_MAX}"):
        Sender(bytes(CHUNKS_MAX + 1), 1, lambda: 0.0)
    with pytest.raises(ValueError, match=f"at most {CHUNKS_MAX}"):
        Receiver(CHUNKS_MAX + 1, 1, lambda: 0.0)


def test_the_timeout_follows_the_round_trip() -> None:
    """RFC 6298: the first sample sets SRTT and half of it as RTTVAR, so RTO is three times that; two at least."""
    trip = RoundTrip()
    trip.sample(0.2)
    assert trip.timeout == pytest.approx(0.6)
    for _ in range(100):
        trip.sample(0.2)
    assert trip.timeout == pytest.approx(0.4)
    for _ in range(100):
        trip.sample(0.001)
    assert trip.timeout == pytest.approx(0.001 + RoundTrip.GRANULARITY, rel=1e-3)
    trip.sample(60.0)
    assert trip.timeout == RoundTrip.MAXIMUM
