"""Sessions with the firmware's link at the other end of a wire in virtual time."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any, TypeVar

import pytest

from codegen.protocol import (
    PROTOCOL_VERSION,
    Abort,
    Encoding,
    Error,
    ErrorCode,
    FrameType,
    Hello,
    Log,
    Offer,
    Setup,
    State,
    Status,
    StatusRequest,
    TransferKind,
)
from coordinator.link.errors import LinkError, LinkLost, LinkTimeout, NodeError
from coordinator.link.flows import Partial
from coordinator.link.frames import Decoder, encode
from coordinator.link.session import Session
from simulation.clock import run_virtually
from simulation.wire import Faults, Peer, WirePort
from tests.coordinator.link.conftest import MakePeer

T = TypeVar("T")
BLOB = random.Random(1).randbytes(20_000)
STATUS = Status(State.TRAINING, 1, 7, 10, 20, 0.5, 0, 0)


def with_session(port: WirePort, work: Callable[[Session], Awaitable[T]]) -> T:
    """Run `work` with a session on the port."""

    async def main() -> T:
        session = Session(port)
        try:
            return await work(session)
        finally:
            await session.close()

    return run_virtually(main)


def has(kind: FrameType, data: bytes) -> bool:
    """Tell whether a frame of this type is among what is written."""
    return any(frame.type == kind for frame in Decoder().feed(data))


def nothing(_: bytes) -> bytes:
    """What passes when everything is swallowed."""
    return b""


@pytest.fixture
def peer(make_peer: MakePeer) -> Peer:
    return make_peer(120, 8)


async def there_and_back(session: Session) -> bytes:
    """Move BLOB to the node and fetch it again."""
    await session.hello()
    status = await session.send(TransferKind.WEIGHTS, 1, BLOB)
    assert status.state == State.LOADED
    offer, blob = await session.fetch(1, Encoding.WEIGHTS)
    assert (offer.size, offer.samples, offer.loss) == (len(BLOB), 5, 0.25)
    return blob


@pytest.mark.parametrize(("mtu", "window"), [(72, 1), (120, 8), (248, 32)])
def test_there_and_back(make_peer: MakePeer, mtu: int, window: int) -> None:
    async def work(session: Session) -> None:
        assert await there_and_back(session) == BLOB
        assert session.node is not None
        assert (session.node.mtu, session.node.window, session.node.board) == (mtu, window, "test")
        assert session.stats.retransmissions == session.stats.frames_rejected == 0

    with_session(WirePort(make_peer(mtu, window)), work)


def test_the_wire_is_full(peer: Peer) -> None:
    """120-byte payloads of 128-byte frames cannot do better than 93.75 %."""

    async def work(session: Session) -> None:
        await session.hello()
        await session.send(TransferKind.WEIGHTS, 1, BLOB * 3)
        assert session.stats.goodput > 0.93 * 11520
        await session.fetch(1, Encoding.WEIGHTS)
        assert session.stats.goodput > 0.93 * 11520
        assert session.stats.round_trip == pytest.approx(0.02, rel=0.2)

    with_session(WirePort(peer, 115200, 0.004), work)


@pytest.mark.parametrize("baud", [9600, 19200, 115200, 1000000])
def test_a_slow_wire_is_no_silence(make_peer: MakePeer, baud: int) -> None:
    async def work(session: Session) -> None:
        await session.hello()
        await session.send(TransferKind.WEIGHTS, 1, BLOB[:6000])
        await session.fetch(1, Encoding.WEIGHTS)
        assert session.stats.retransmissions == 0

    with_session(WirePort(make_peer(248, 16), baud), work)


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize(
    "faults",
    [Faults(flip=1e-3), Faults(drop=1e-3), Faults(double=1e-3), Faults(1e-3, 1e-3, 1e-3)],
    ids=["flipped", "dropped", "doubled", "all"],
)
def test_bad_wires_end_in_the_same_bytes_or_aloud(peer: Peer, faults: Faults, seed: int) -> None:
    async def work(session: Session) -> bytes | LinkError:
        try:
            return await there_and_back(session)
        except LinkError as error:
            return error

    result = with_session(WirePort(peer, faults=faults, seed=seed), work)
    assert result == BLOB or isinstance(result, LinkTimeout)
    assert peer.violations == 0


def test_ten_percent_of_lost_frames_only_costs_time(peer: Peer) -> None:
    async def work(session: Session) -> None:
        assert await there_and_back(session) == BLOB
        assert session.stats.retransmissions > 20
        assert session.stats.frames_rejected > 10

    with_session(WirePort(peer, faults=Faults(flip=1e-3)), work)


def test_damaged_in_memory_is_sent_once_more(peer: Peer) -> None:
    """COMMIT finds the CRC-32 wrong: the whole transfer begins again, once."""
    port = WirePort(peer)
    commits = 0

    def damage_before_commit(data: bytes) -> bytes:
        nonlocal commits
        if has(FrameType.COMMIT, data):
            commits += 1
            if commits == 1:
                peer.damage()
        return data

    port.filter_down = damage_before_commit
    assert with_session(port, there_and_back) == BLOB
    assert commits == 2


def test_damaged_twice_is_an_error(peer: Peer) -> None:
    port = WirePort(peer)

    def always(data: bytes) -> bytes:
        if has(FrameType.COMMIT, data):
            peer.damage()
        return data

    port.filter_down = always
    with pytest.raises(NodeError, match="the transfer arrived damaged") as caught:
        with_session(port, there_and_back)
    assert caught.value.code == ErrorCode.BAD_CRC


def test_an_update_that_changes_while_it_is_fetched_is_refused(peer: Peer) -> None:
    port = WirePort(peer)

    def damage_after_offer(data: bytes) -> bytes:
        if has(FrameType.ACK, data):
            peer.damage(len(BLOB) - 1)
        return data

    async def work(session: Session) -> None:
        await session.hello()
        await session.send(TransferKind.WEIGHTS, 1, BLOB)
        port.filter_down = damage_after_offer
        await session.fetch(1, Encoding.WEIGHTS)

    with pytest.raises(LinkError, match="its update arrived damaged twice"):
        with_session(port, work)


def test_a_node_that_forgot_refuses_in_words(peer: Peer) -> None:
    async def work(session: Session) -> None:
        await session.hello()
        await session.fetch(1, Encoding.WEIGHTS)

    with pytest.raises(NodeError, match="the node refused: it cannot do that in state READY") as caught:
        with_session(WirePort(peer), work)
    assert (caught.value.code, caught.value.detail) == (ErrorCode.WRONG_STATE, State.READY)


def test_reset_in_the_middle_ends_aloud(peer: Peer) -> None:
    async def work(session: Session) -> None:
        await session.hello()
        session.loop.call_later(0.5, peer.restart)
        await session.send(TransferKind.WEIGHTS, 1, BLOB)

    with pytest.raises((LinkTimeout, NodeError)):
        with_session(WirePort(peer), work)


@pytest.mark.parametrize(("mtu", "share"), [(120, 0.0), (120, 0.5), (120, 0.999), (72, 0.5)])
def test_a_fetch_that_broke_off_goes_on_where_it_was(make_peer: MakePeer, mtu: int, share: float) -> None:
    """Whatever the length of the chunks was before; what is new is all that moves again."""
    peer = make_peer(120, 8)
    first, second = WirePort(peer), WirePort(peer)
    partial = Partial()

    async def main() -> int:
        session = Session(first)
        await session.hello()
        await session.send(TransferKind.WEIGHTS, 1, BLOB)
        session.loop.call_later(share * len(BLOB) / 11520 * 128 / 120, first.vanish)
        with pytest.raises(LinkLost):
            await session.fetch(1, Encoding.WEIGHTS, partial)
        await session.close()
        session = Session(second)
        session.node = replace(await session.hello(), mtu=mtu)
        assert (await session.fetch(1, Encoding.WEIGHTS, partial))[1] == BLOB
        return session.stats.bytes_up

    moved = run_virtually(main)
    assert moved < 1.4 * (1 - share) * len(BLOB) + 600


@pytest.mark.parametrize("change", [{"round": 2}, {"encoding": 1}, {"size": 99}, {"crc": 5}])
def test_what_came_of_another_update_is_not_gone_on_with(change: dict[str, Any]) -> None:
    offer = Offer(1, 0, 100, 4, 1, 0.0, 0)
    partial = Partial(offer, b"head")
    assert partial.of(replace(offer, loss=1.0)) == b"head"
    assert partial.of(replace(offer, **change)) == b""


def test_silence_counts_only_while_somebody_listens(peer: Peer) -> None:
    port = WirePort(peer)

    async def work(session: Session) -> None:
        await asyncio.sleep(5)
        assert session.silence == 0
        with session.listening():
            await asyncio.sleep(1)
            assert session.silence == pytest.approx(1)
            port.say(b"no frame\0")
            await asyncio.sleep(1)
            assert session.silence == pytest.approx(2)
            port.say(encode(FrameType.STATUS, 0, 0, STATUS.encode()))
            await asyncio.sleep(1)
            assert session.silence == pytest.approx(1, abs=0.02)
        assert session.silence == 0

    with_session(port, work)


def test_silence_is_said_with_what_to_do() -> None:
    class Nobody(Peer):
        def __init__(self) -> None:
            pass

        def exchange(self, data: bytes) -> bytes:  # noqa: ARG002
            return b""

    async def work(session: Session) -> None:
        await session.hello(timeout=2.0)

    with pytest.raises(LinkTimeout, match=r"wire: no Tierfed node answers in 2 s \(nothing comes\)"):
        with_session(WirePort(Nobody()), work)


def test_lost_requests_are_repeated_with_the_same_number(peer: Peer) -> None:
    port = WirePort(peer)
    seen: list[bytes] = []

    def swallow_two(data: bytes) -> bytes:
        seen.append(data)
        return b"" if len(seen) < 3 else data

    port.filter_down = swallow_two

    async def work(session: Session) -> None:
        assert (await session.request(StatusRequest(), Status, timeout=0.2)).boot == 7
        assert session.stats.retransmissions == 2

    with_session(port, work)
    assert len(seen) == 3
    assert len(set(seen)) == 1


def test_unknown_message_is_an_error_in_words(peer: Peer) -> None:
    async def work(session: Session) -> None:
        await session.request(Abort(), Status)

    with pytest.raises(NodeError, match="it does not know ABORT; rebuild and flash its firmware"):
        with_session(WirePort(peer), work)


@pytest.mark.parametrize("code", [*ErrorCode, 200])
@pytest.mark.parametrize("detail", [0, 5, 0x85, 0xFFFFFFFF])
def test_every_error_is_a_sentence(code: int, detail: int) -> None:
    assert len(str(NodeError(code, detail))) > 30


def test_what_a_node_says_unasked_is_passed_on(peer: Peer) -> None:
    port = WirePort(peer)

    async def work(session: Session) -> tuple[list[Status], list[str], list[int]]:
        states: list[Status] = []
        lines: list[str] = []
        errors: list[int] = []
        session.on_status, session.on_log = states.append, lines.append
        session.on_error = lambda error: errors.append(error.code)
        boot = b"ets Jul 29 2019 12:21:46\r\n\r\n\x1b[0;32mI (29) boot: v5.1\x1b[0m\r\n\x80\xfe\n"
        port.say(boot + encode(FrameType.STATUS, 0, 0, STATUS.encode()))  # the frame is lost with the text
        port.say(encode(FrameType.STATUS, 0, 0, STATUS.encode()))
        port.say(encode(FrameType.STATUS, 9, 0, STATUS.encode()))  # a late answer
        port.say(encode(FrameType.STATUS, 0, 0, b"short"))
        port.say(encode(FrameType.LOG, 0, 0, Log("hello").encode()))
        port.say(encode(FrameType.ERROR, 0, 0, Error(ErrorCode.NOT_FINITE, 3).encode()))
        await asyncio.sleep(1)
        assert session.stats.frames_rejected == 1
        return states, lines, errors

    states, lines, errors = with_session(port, work)
    assert states == [STATUS]
    assert lines[:2] == ["ets Jul 29 2019 12:21:46", "I (29) boot: v5.1"]
    assert lines[2].startswith("(malformed: STATUS of 5 bytes")
    assert lines[3:] == ["hello"]
    assert errors == [ErrorCode.NOT_FINITE]


def test_a_stop_ends_whoever_waits(peer: Peer) -> None:
    port = WirePort(peer)
    port.filter_down = nothing

    async def work(session: Session) -> None:
        port.say(encode(FrameType.ERROR, 0, 0, Error(ErrorCode.NOT_FINITE, 3).encode()))
        await session.request(StatusRequest(), Status)

    with pytest.raises(NodeError, match="NaN or infinite at sample 3"):
        with_session(port, work)


HELLO = Hello(PROTOCOL_VERSION, 72, 4, 1, 7, b"12345678", 0, 0, 0, 1, 0, 10, 0, "uno", "micro")


@pytest.mark.parametrize(
    ("hello", "words"),
    [
        (replace(HELLO, protocol=9).encode(), f"speaks protocol 9, this host {PROTOCOL_VERSION}; rebuild and flash it"),
        (b"\x01much shorter", f"speaks protocol 1, this host {PROTOCOL_VERSION}; rebuild and flash it"),
        (bytes([PROTOCOL_VERSION]) + b"much shorter", "HELLO of 13 bytes; expected 72; host and firmware differ"),
        (b"", f"speaks protocol 0, this host {PROTOCOL_VERSION}; rebuild and flash it"),
        (replace(HELLO, mtu=255).encode(), "mtu 255 and window 4 makes no sense"),
        (replace(HELLO, window=0).encode(), "mtu 72 and window 0 makes no sense"),
    ],
)
def test_a_hello_that_cannot_be_is_refused(peer: Peer, hello: bytes, words: str) -> None:
    port = WirePort(peer)
    port.filter_down = nothing

    async def work(session: Session) -> None:
        session.loop.call_later(0.1, port.say, encode(FrameType.HELLO, 1, 0, hello))
        await session.hello()

    with pytest.raises(LinkError, match=words):
        with_session(port, work)


@pytest.mark.parametrize(
    ("offer", "words"),
    [
        (Offer(1, 0, 2**32 - 1, 0, 1, 0.0, 0), "an update of 4294967295 bytes; at most"),
        (Offer(7, 0, 20, 0, 1, 0.0, 0), "an update of round 7 in encoding 0; asked for were round 1 and encoding 0"),
        (Offer(1, 9, 20, 0, 1, 0.0, 0), "an update of round 1 in encoding 9; asked for"),
    ],
)
def test_an_offer_beyond_reason_is_refused(peer: Peer, offer: Offer, words: str) -> None:
    port = WirePort(peer)

    async def work(session: Session) -> None:
        await session.hello()
        port.filter_down = nothing
        session.loop.call_later(0.1, port.say, encode(FrameType.OFFER, 2, 0, offer.encode()))
        await session.fetch(1, Encoding.WEIGHTS)

    with pytest.raises(LinkError, match=f"it offers {words}"):
        with_session(port, work)


def test_a_reply_of_another_length_is_said(peer: Peer) -> None:
    port = WirePort(peer)
    port.filter_down = nothing

    async def work(session: Session) -> None:
        session.loop.call_later(0.1, port.say, encode(FrameType.STATUS, 1, 0, b"abc"))
        await session.request(Setup(1, 1, 0.1, 0.0, 1, 1, 0, 1), Status)

    with pytest.raises(LinkError, match="STATUS of 3 bytes; expected 25; host and firmware differ"):
        with_session(port, work)


@pytest.mark.parametrize("after", [0.0, 0.001, 0.5, 2.0, 3.0])
def test_a_pulled_cable_ends_every_call(peer: Peer, after: float) -> None:
    port = WirePort(peer)

    async def work(session: Session) -> list[BaseException | object]:
        lost: list[LinkLost] = []
        session.on_lost = lost.append
        session.loop.call_later(after, port.vanish)
        calls = (there_and_back(session), session.request(StatusRequest(), Status, timeout=9.0))
        results = await asyncio.gather(*calls, return_exceptions=True)
        assert session.loop.time() < after + 0.1
        assert [str(error) for error in lost] == ["wire: the port vanished (unplugged)"]
        assert session.closed
        with pytest.raises(LinkLost):
            await session.hello()
        return list(results)

    results = with_session(port, work)
    assert isinstance(results[0], LinkLost)
    assert isinstance(results[1], LinkLost | Status)


def test_the_rate_changes_after_the_answer(peer: Peer) -> None:
    port = WirePort(peer)

    def agree(data: bytes) -> bytes:
        if data[2:3] != bytes((FrameType.BAUD,)):
            return data
        assert port.baud == 115200
        port.say(encode(FrameType.STATUS, data[3], 0, STATUS.encode()))
        return b""

    port.filter_down = agree

    async def work(session: Session) -> None:
        await session.set_baud(500000)
        assert port.baud == 500000
        await session.hello()

    with_session(port, work)


def test_more_requests_than_numbers(peer: Peer) -> None:
    port = WirePort(peer)

    async def work(session: Session) -> None:
        for _ in range(600):
            await session.request(StatusRequest(), Status)
        port.filter_down = nothing
        calls = [asyncio.ensure_future(session.request(StatusRequest(), Status)) for _ in range(256)]
        results = await asyncio.gather(*calls, return_exceptions=True)
        assert sum(isinstance(result, LinkTimeout) for result in results) == 255
        assert sum("255 requests wait already" in str(result) for result in results) == 1

    with_session(port, work)
