"""What is asked and answered beside transfers, with the firmware's link, or with bytes that nobody should send."""

from __future__ import annotations

import asyncio
from dataclasses import replace

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
    Status,
    StatusRequest,
)
from coordinator.link.errors import LinkError, LinkTimeout, NodeError
from coordinator.link.frames import encode
from coordinator.link.session import Session
from simulation.wire import Peer, WirePort
from tests.coordinator.link.sessions import STATUS, nothing, with_session


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


HELLO = Hello(PROTOCOL_VERSION, 74, 4, 1, 7, b"12345678", 0, 0, 0, 0, 1, 0, 10, 0, "uno", "micro")


@pytest.mark.parametrize(
    ("hello", "words"),
    [
        (replace(HELLO, protocol=9).encode(), f"speaks protocol 9, this host {PROTOCOL_VERSION}; rebuild and flash it"),
        (b"\x01much shorter", f"speaks protocol 1, this host {PROTOCOL_VERSION}; rebuild and flash it"),
        (bytes([PROTOCOL_VERSION]) + b"much shorter", "HELLO of 13 bytes; expected 74; host and firmware differ"),
        (b"", f"speaks protocol 0, this host {PROTOCOL_VERSION}; rebuild and flash it"),
        (replace(HELLO, mtu=255).encode(), "mtu 255 and window 4 makes no sense"),
        (replace(HELLO, window=0).encode(), "mtu 74 and window 0 makes no sense"),
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
