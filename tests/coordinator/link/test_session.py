"""Transfers with the firmware's link at the other end of a wire in virtual time."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from codegen.protocol import Encoding, ErrorCode, FrameType, Offer, State, Status, StatusRequest, TransferKind
from coordinator.link.errors import LinkError, LinkLost, LinkTimeout, NodeError
from coordinator.link.flows import Partial
from coordinator.link.session import Session
from simulation.clock import run_virtually
from simulation.wire import Faults, Peer, WirePort
from tests.coordinator.link.conftest import MakePeer
from tests.coordinator.link.sessions import BLOB, has, there_and_back, with_session


@pytest.mark.parametrize(("mtu", "window"), [(74, 1), (120, 8), (248, 32)])
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


@pytest.mark.parametrize(("mtu", "share"), [(120, 0.0), (120, 0.5), (120, 0.999), (74, 0.5)])
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
