"""Who waits for frames of one transfer number: a request, or a transfer under way."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

from codegen.protocol import WINDOW_MAX, Ack, Begin, Commit, Fetch, FrameType, Offer, Status
from coordinator.link.errors import LinkError, LinkTimeout
from coordinator.link.frames import Frame, encode
from coordinator.link.transfer import Receiver, Sender, Timed

_ACK = struct.Struct(Ack.layout()[0])
_DONE = Frame(0, 0, 0, b"")


@dataclass
class LinkStatistics:
    """What a session has moved, and those before it that it goes on from. Bytes are those on the wire; times in
    seconds."""

    bytes_down: int = 0  # to the node
    bytes_up: int = 0
    retransmissions: int = 0  # frames sent again, either way, as far as can be seen from here
    frames_rejected: int = 0  # damaged or not frames at all, received here
    node_rejected: int = 0  # the same, received there, by what STATUS says
    resets: int = 0  # times that the node started anew
    goodput: float = 0.0  # bytes a second of the last transfer's content
    round_trip: float | None = None  # smoothed; None before the first transfer
    boot: int | None = None  # id of the node's boot, as it said last
    boot_rejected: int | None = None  # by that boot's last STATUS, u16; None: not said yet

    def booted(self, boot: int) -> None:
        """Take in the boot id of a HELLO or STATUS."""
        if self.boot not in (None, boot):
            self.resets += 1
            self.boot_rejected = 0
        self.boot = boot

    def heard(self, status: Status) -> None:
        """Take in a STATUS. What the node rejected before the first one was another run's."""
        self.booted(status.boot)
        more = 0 if self.boot_rejected is None else status.rejected - self.boot_rejected & 0xFFFF
        if more < 0x8000:  # else it is an older STATUS that came late
            self.node_rejected += more
            self.boot_rejected = status.rejected

    def go_on_from(self, earlier: LinkStatistics) -> None:
        """Count on from where an earlier session with the same node ended."""
        for name in ("bytes_down", "bytes_up", "retransmissions", "frames_rejected", "node_rejected", "resets"):
            setattr(self, name, getattr(self, name) + getattr(earlier, name))
        self.goodput, self.round_trip = self.goodput or earlier.goodput, self.round_trip or earlier.round_trip
        if None not in (earlier.boot, self.boot) and earlier.boot != self.boot:
            self.resets += 1
            self.boot_rejected = self.boot_rejected or 0


@dataclass
class Partial:
    """What has come of an update: who fetches it again, perhaps in another session, goes on after it."""

    offer: Offer | None = None
    head: bytes = b""

    def of(self, offer: Offer) -> bytes:
        """Return the beginning of what is offered, as far as it is here."""
        mine = self.offer
        same = mine and (mine.round, mine.encoding, mine.size, mine.crc) == (
            offer.round, offer.encoding, offer.size, offer.crc
        )  # fmt: skip
        return self.head if same else b""

    def chunks(self, fetch: Fetch) -> int:
        """Return how many chunks are probably here, if what is fetched is the same."""
        mine = self.offer
        same = mine and (mine.round, mine.encoding) == (fetch.round, fetch.encoding)
        return len(self.head) // fetch.payload if same else 0


class Wire(Protocol):
    """What a flow needs of its session."""

    name: str
    loop: asyncio.AbstractEventLoop
    patience: float  # seconds that a transfer may stand still
    stats: LinkStatistics

    @property
    def mtu(self) -> int:
        """Bytes of the longest payload, both ways."""

    @property
    def window(self) -> int:
        """Chunks that the node keeps in flight."""

    def next_id(self) -> int:
        """Return a transfer number that nobody waits for."""

    def rename(self, id: int) -> int:
        """Give whoever waits for this number another one as well, and return that."""

    def write(self, data: bytes) -> None:
        """Send bytes, unless the port is gone."""


class Waiter:
    """Someone who waits for frames of one transfer number."""

    def __init__(self, future: asyncio.Future[Frame]) -> None:
        self.future = future

    def handle(self, frame: Frame) -> None:
        """Take a frame; ERROR has been dealt with."""

    def settle(self) -> None:
        """All frames of one read have been handled."""

    def fail(self, error: Exception) -> None:
        if not self.future.done():
            self.future.set_exception(error)

    def finish(self, frame: Frame) -> None:
        if not self.future.done():
            self.future.set_result(frame)


class Request(Waiter):
    """Waits for one frame of type `reply`."""

    def __init__(self, future: asyncio.Future[Frame], reply: FrameType) -> None:
        super().__init__(future)
        self._reply = reply

    def handle(self, frame: Frame) -> None:
        if frame.type == self._reply:
            self.finish(frame)


class Flow(Waiter):
    """A transfer under way: frames move it on inside the read callback, a timer when nothing comes."""

    def __init__(self, wire: Wire, future: asyncio.Future[Frame], id: int, engine: Timed) -> None:
        super().__init__(future)
        self.wire = wire
        self.id = id
        self._timed = engine
        self._timer: asyncio.TimerHandle | None = None

    def arm(self) -> None:
        """Have the timer run out at the deadline or before: it looks again then. Cheap when nothing changes."""
        deadline = self._timed.deadline
        if self._timer is not None and self._timer.when() > deadline:
            self.stop()
        if self._timer is None and not self.future.done():
            self._timer = self.wire.loop.call_at(deadline, self._tick)

    def _tick(self) -> None:
        self._timer = None
        if self.future.done():
            return
        if self._timed.quiet > self.wire.patience:
            self.fail(LinkTimeout(f"{self.wire.name}: a transfer stood still for {self.wire.patience:g} s"))
            return
        if self.wire.loop.time() >= self._timed.deadline:
            self._timed.expire()
            self.silent()
        self.arm()

    def open(self) -> None:
        """Begin, or begin again with a node that may have forgotten."""

    def silent(self) -> None:
        """The node has been silent for too long."""

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class Sending(Flow):
    """BEGIN, chunks to the node and COMMIT, right behind each other; ends with the STATUS that answers."""

    def __init__(
        self, wire: Wire, future: asyncio.Future[Frame], id: int, sender: Sender, begin: Begin, commit: Commit
    ) -> None:
        super().__init__(wire, future, id, sender)
        self._sender = sender
        self._begin, self._commit = begin, commit.encode()
        self._latest: tuple[int, int, int] | None = None
        self._closed = False  # COMMIT was sent behind the last chunk

    def handle(self, frame: Frame) -> None:
        # Acknowledgements are cumulative: only the last of a read matters, except that it answers no COMMIT.
        if frame.transfer != self.id:
            self._timed.alive()  # of chunks of another length: nothing new, but no silence
        elif frame.type == FrameType.ACK and len(frame.payload) == _ACK.size:
            map, early = _ACK.unpack(frame.payload)
            self._latest = (frame.chunk, map, early or (self._latest[2] if self._latest else 0))
        elif frame.type == FrameType.STATUS:
            self.finish(frame)

    def settle(self) -> None:
        if self._latest is None or self.future.done():
            return
        self._sender.acknowledge(*self._latest)
        self._latest = None
        wanted = self._sender.wanted_payload(self.wire.mtu)
        if wanted != self._sender.payload:
            self.id = self.wire.rename(self.id)
            self._sender.resize(wanted)
            self.open()
        else:
            self.push()
        self.arm()

    def open(self) -> None:
        begin = replace(self._begin, payload=self._sender.payload)
        self.wire.write(b"\0" + encode(FrameType.BEGIN, self.id, 0, begin.encode()))
        self.push()

    def silent(self) -> None:
        self._closed = False
        self.open()

    def push(self) -> None:
        """Send what there is to send, and COMMIT behind the last of it."""
        again = self._sender.retransmitted
        frames = [encode(FrameType.DATA, self.id, chunk, data) for chunk, data in self._sender.ready()]
        self.wire.stats.retransmissions += self._sender.retransmitted - again
        if self._sender.out and (frames or not self._closed):
            frames.append(encode(FrameType.COMMIT, self.id, self._sender.close(), self._commit))
            self._closed = True
        if frames:
            self.wire.write(b"".join(frames))


class Receiving(Flow):
    """FETCH, OFFER, and chunks from the node, moved on by our acknowledgements."""

    PATIENCE = 0.05  # seconds, at least, until FETCH is repeated: a node may have to sum its update first

    def __init__(
        self, wire: Wire, future: asyncio.Future[Frame], id: int, engine: Timed, fetch: Fetch, first: int,
        offered: Callable[[Frame], Receiver],
    ) -> None:  # fmt: skip
        """engine: times the wait for OFFER; first: the chunk to begin with; offered: returns what the rest is for, or
        raises LinkError."""
        super().__init__(wire, future, id, engine)
        self._fetch, self._first = fetch, first
        self._offered = offered
        self._receiver: Receiver | None = None
        self._early: list[Frame] = []  # chunks that came although OFFER was lost
        self._asked = -self.PATIENCE
        self._came = False

    def handle(self, frame: Frame) -> None:
        if frame.transfer != self.id:
            self._timed.alive()
        elif frame.type == FrameType.DATA:
            self._came = True
            if self._receiver is not None:
                self._receiver.accept(frame.chunk, frame.payload)
            elif len(self._early) < WINDOW_MAX:
                self._early.append(frame)
        elif frame.type == FrameType.OFFER and self._receiver is None:
            try:
                self._timed = self._receiver = self._offered(frame)
            except LinkError as error:
                self.fail(error)
                return
            self._came = self._receiver.done  # then there is nothing to wait for
            if self._receiver.next < self._first:
                self.open()  # another update: what is here is not of it
            for chunk in self._early:
                self.handle(chunk)

    def settle(self) -> None:
        if self.future.done():
            return
        if self._came and self._receiver is None:
            if self.wire.loop.time() - self._asked > self.PATIENCE:
                self.open()  # chunks without OFFER: it was lost
        elif self._came and self._receiver is not None:
            wanted = self._receiver.wanted_payload(self.wire.mtu, self.wire.window)
            if wanted != self._receiver.payload:
                self.id = self.wire.rename(self.id)
                self._receiver.resize(wanted)
                self.open()
            else:
                self.push()
        self._came = False
        self.arm()

    def open(self) -> None:
        self._asked = self.wire.loop.time()
        first, fetch = self._first, self._fetch
        if self._receiver is not None:
            first, fetch = self._receiver.next, replace(fetch, payload=self._receiver.payload)
        self.wire.write(b"\0" + encode(FrameType.FETCH, self.id, first, fetch.encode()))

    def silent(self) -> None:
        if self._receiver is None or self._timed.silences % 2 == 0:
            self.open()
        else:
            self.push()

    def push(self) -> None:
        """Acknowledge what is here."""
        assert self._receiver is not None
        next, map, stalled = self._receiver.acknowledgement()
        self.wire.write(encode(FrameType.ACK, self.id, next, _ACK.pack(map, stalled)))
        if self._receiver.done:
            self.finish(_DONE)
