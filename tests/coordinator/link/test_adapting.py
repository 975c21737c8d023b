"""Chunks that change their length in the middle of a transfer, and transfers that are taken up again."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

import pytest

from codegen.protocol import Begin, Encoding, Fetch, FrameType, Status, StatusRequest, TransferKind
from coordinator.link.errors import LinkError, LinkLost, LinkTimeout
from coordinator.link.frames import Decoder, Frame
from coordinator.link.path import Path
from coordinator.link.session import Session
from coordinator.link.transfer import Receiver, Sender
from simulation.clock import run_virtually
from simulation.wire import Faults, Peer, WirePort
from tests.coordinator.link.conftest import MakePeer

T = TypeVar("T")
BLOB = random.Random(2).randbytes(60_000)


@pytest.fixture
def peer(make_peer: MakePeer) -> Peer:
    return make_peer(248, 32)


def on_wire(port: WirePort, work: Callable[[Session], Awaitable[T]]) -> tuple[T, list[Frame]]:
    """Run `work` with a session on the port; return what it returns, and what the host sent."""
    sent: list[Frame] = []
    inner = port.filter_down

    def note(data: bytes) -> bytes:
        sent.extend(Decoder().feed(data))
        return inner(data)

    port.filter_down = note

    async def main() -> T:
        session = Session(port)
        try:
            await session.hello()
            return await work(session)
        finally:
            await session.close()

    return run_virtually(main), sent


async def there_and_back(session: Session) -> bytes:
    await session.send(TransferKind.WEIGHTS, 1, BLOB)
    return (await session.fetch(1, Encoding.WEIGHTS))[1]


@pytest.mark.parametrize(("rate", "payloads"), [(0.0, 1), (1e-4, 2)])
def test_chunks_are_as_long_as_the_wire_is_good(peer: Peer, rate: float, payloads: int) -> None:
    port = WirePort(peer, 500_000, 0.004, Faults.of_bits(rate))
    blob, sent = on_wire(port, there_and_back)
    assert blob == BLOB and peer.holds(BLOB) and peer.violations == 0
    begins = [Begin.decode(frame.payload) for frame in sent if frame.type == FrameType.BEGIN]
    fetches = [Fetch.decode(frame.payload) for frame in sent if frame.type == FrameType.FETCH]
    for messages in (begins, fetches):
        assert len({message.payload for message in messages}) >= payloads
        assert messages[0].payload == 248
        assert (messages[-1].payload < 160) == (payloads > 1)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("faults", [Faults(flip=3e-3), Faults(drop=1e-3), Faults(1e-3, 5e-4, 1e-3)])
def test_whatever_the_wire_does_the_bytes_are_the_same_or_it_is_said(peer: Peer, faults: Faults, seed: int) -> None:
    async def work(session: Session) -> bytes | LinkError:
        try:
            return await there_and_back(session)
        except LinkError as error:
            return error

    result, _ = on_wire(WirePort(peer, 921_600, 0.002, faults, seed), work)
    assert result == BLOB or isinstance(result, LinkTimeout)
    assert peer.violations == 0


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_a_pulled_cable_costs_only_what_was_in_flight(peer: Peer, share: float) -> None:
    """The host that comes back uses another transfer number and other chunks."""
    first, second = (WirePort(peer, 115_200, 0.004, Faults.of_bits(rate)) for rate in (1e-4, 0.0))

    async def broken(session: Session) -> None:
        session.loop.call_later(0.05 + share * len(BLOB) / 11_520, first.vanish)
        with pytest.raises(LinkLost):
            await session.send(TransferKind.WEIGHTS, 1, BLOB)

    async def again(session: Session) -> int:
        for _ in range(7):
            await session.request(StatusRequest(), Status)
        await session.send(TransferKind.WEIGHTS, 1, BLOB)
        return session.stats.bytes_down

    on_wire(first, broken)
    moved, _ = on_wire(second, again)
    assert peer.holds(BLOB)
    assert moved < (1 - 0.7 * share) * len(BLOB) * 1.08 + 16 * 256 + 1000


@pytest.mark.parametrize("lost", [FrameType.BEGIN, FrameType.DATA, FrameType.COMMIT, FrameType.FETCH])
def test_the_loss_of_one_frame_costs_a_timeout_at_most(peer: Peer, lost: FrameType) -> None:
    """Of DATA the last one, after which only COMMIT comes: its answer says at once what is missing."""
    port = WirePort(peer, 921_600, 0.004)
    gone = True

    def drop(data: bytes) -> bytes:
        nonlocal gone
        frames = Decoder().feed(data)
        kinds = [frame.type for frame in frames]
        if gone or lost not in kinds or (lost == FrameType.DATA and FrameType.COMMIT not in kinds):
            return data
        gone = True
        at = len(kinds) - 1 - kinds[::-1].index(lost)
        pieces = data.strip(b"\0").split(b"\0")
        return b"\0".join(pieces[:at] + pieces[at + 1 :]) + b"\0"

    port.filter_down = drop

    async def work(session: Session) -> float:
        await session.send(TransferKind.WEIGHTS, 1, BLOB[:10_000])  # a round trip is known
        before = session.loop.time()
        nonlocal gone
        gone = False
        assert await there_and_back(session) == BLOB
        return session.loop.time() - before

    seconds, _ = on_wire(port, work)
    assert gone
    timeout = 0.02 if lost == FrameType.DATA else 0.1
    assert seconds < 2 * (len(BLOB) * 256 / 248 / 92_160 + 0.02) + timeout


def test_what_waits_for_the_wire_is_bounded(peer: Peer) -> None:
    """A chunk that is sent again waits behind half a window at most."""
    port = WirePort(peer, 115_200, 0.004)
    waits: list[float] = []
    port.filter_down = lambda data: waits.append(port.queued) or data  # type: ignore[func-returns-value]
    on_wire(port, there_and_back)
    assert max(waits[60:]) < 17 * 256 / 11_520


@pytest.mark.parametrize(("size", "old", "new"), [(1, 2, 1), (950, 100, 99), (950, 99, 248)])
def test_what_is_whole_stays_whole_in_chunks_of_any_length(size: int, old: int, new: int) -> None:
    sender, receiver = Sender(bytes(size), old, lambda: 0.0), Receiver(size, old, lambda: 0.0, head=bytes(size))
    sender.acknowledge(sender.count, 0)
    sender.resize(new)
    receiver.resize(new)
    assert sender.next == receiver.next == sender.count == -(-size // new)
    assert sender.done and receiver.done and sender.ready() == []


def test_the_best_payload_is_the_formula_s() -> None:
    """Against a search over all of them."""
    for lost, size in ((1, 1000), (3, 50_000), (40, 50_000)):
        path = Path()
        path.count(size // 256, lost, 248)
        best = max(range(16, 249), key=path.efficiency)
        assert path.best_payload(16, 0, 248) == pytest.approx(best, abs=1)
        assert path.best_payload(best, 0, 248) == best
        assert path.best_payload(16, best + 20, 248) == min(best + 20, 248)
