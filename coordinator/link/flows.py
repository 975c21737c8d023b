"""Who waits for frames of one transfer number: a request, or a transfer under way."""

from __future__ import annotations

import asyncio
import struct
from dataclasses import dataclass
from typing import Protocol

from codegen.protocol import Ack, FrameType, Offer, Status
from coordinator.link.errors import LinkTimeout
from coordinator.link.frames import Frame, encode
from coordinator.link.transfer import Receiver, Sender

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


class Wire(Protocol):
    """What a flow needs of its session."""

    name: str
    loop: asyncio.AbstractEventLoop
    patience: float  # seconds that a transfer may stand still
    stats: LinkStatistics

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

    def __init__(self, wire: Wire, future: asyncio.Future[Frame], id: int, engine: Sender | Receiver) -> None:
        super().__init__(future)
        self.wire = wire
        self.id = id
        self.opening = b""  # the frame that began it: sent again when the node may have forgotten
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
            if self._timed.silences % 2 == 0:
                self.wire.write(self.opening)
            self.push()
        self.arm()

    def push(self) -> None:
        """Send what there is to send."""

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class Sending(Flow):
    """Chunks to the node, moved on by its acknowledgements."""

    def __init__(self, wire: Wire, future: asyncio.Future[Frame], id: int, sender: Sender) -> None:
        super().__init__(wire, future, id, sender)
        self._sender = sender
        self._latest: tuple[int, int] | None = None

    def handle(self, frame: Frame) -> None:
        # Acknowledgements are cumulative: only the last of a read matters.
        if frame.type == FrameType.ACK and len(frame.payload) == _ACK.size:
            self._latest = (frame.chunk, _ACK.unpack(frame.payload)[0])

    def settle(self) -> None:
        if self._latest is None:
            return
        self._sender.acknowledge(*self._latest)
        self._latest = None
        self.push()
        self.arm()

    def push(self) -> None:
        again = self._sender.retransmitted
        frames = [encode(FrameType.DATA, self.id, chunk, data) for chunk, data in self._sender.ready()]
        self.wire.stats.retransmissions += self._sender.retransmitted - again
        if frames:
            self.wire.write(b"".join(frames))
        if self._sender.done:
            self.finish(_DONE)


class Receiving(Flow):
    """Chunks from the node, moved on by ours."""

    def __init__(self, wire: Wire, future: asyncio.Future[Frame], id: int, receiver: Receiver) -> None:
        super().__init__(wire, future, id, receiver)
        self._receiver = receiver
        self._came = False

    def handle(self, frame: Frame) -> None:
        if frame.type == FrameType.DATA:
            self._receiver.accept(frame.chunk, frame.payload)
            self._came = True

    def settle(self) -> None:
        if self._came:
            self._came = False
            self.push()
            self.arm()

    def push(self) -> None:
        next, map, stalled = self._receiver.acknowledgement()
        self.wire.write(encode(FrameType.ACK, self.id, next, _ACK.pack(map, stalled)))
        if self._receiver.done:
            self.finish(_DONE)
