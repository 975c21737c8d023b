"""A channel: frames to and from one port. Requests are matched to replies by the frame's transfer number, repeated when
no answer comes, and safe to repeat."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol, TypeVar

from codegen.protocol import Error, FrameType, Log, Message, ProtocolError, Status
from coordinator.link.errors import LinkError, LinkLost, LinkTimeout, NodeError
from coordinator.link.flows import Flow, LinkStatistics, Request, Waiter
from coordinator.link.frames import Decoder, Frame, encode

M = TypeVar("M", bound=Message)


class Port(Protocol):
    """Anything that carries bytes both ways. All calls come from the event loop's thread and never block."""

    @property
    def name(self) -> str: ...
    def start(self, on_data: Callable[[bytes], None], on_lost: Callable[[str], None]) -> None:
        """Begin to read. `on_lost` is called once, with the reason, when the port vanishes; never after `close`."""

    def write(self, data: bytes) -> None: ...
    def set_baud(self, baud: int) -> None: ...
    def close(self) -> None: ...


class Channel:
    """Carries frames over `port`; made inside a running event loop, or given one.

    patience: seconds that a transfer may stand still before LinkTimeout. Every call may raise LinkLost (the port
    vanished), LinkTimeout (no answer) and NodeError (refused).
    """

    def __init__(self, port: Port, *, loop: asyncio.AbstractEventLoop | None = None, patience: float = 10.0) -> None:
        self.loop = loop or asyncio.get_running_loop()
        self.name = port.name
        self.patience = patience
        self.stats = LinkStatistics()
        self.on_status: Callable[[Status], None] | None = None
        self.on_log: Callable[[str], None] | None = None
        self.on_error: Callable[[NodeError], None] | None = None
        self.on_lost: Callable[[LinkLost], None] | None = None
        self._lost: LinkLost | None = None
        self.port = port
        self._decoder = Decoder()
        self._waiting: dict[int, Waiter] = {}
        self._last_id = 0
        self._heard = self._since = self.loop.time()
        self._listeners = 0
        port.start(self._on_data, self._on_port_lost)

    @property
    def closed(self) -> bool:
        return self._lost is not None

    async def close(self, reason: str = "the port was closed") -> None:
        """Close the port; whoever still waits gets LinkLost."""
        self.port.close()
        self._end(LinkLost(f"{self.name}: {reason}"))

    @property
    def silence(self) -> float:
        """Seconds for which no frame has come although somebody listens."""
        return self.loop.time() - max(self._since, self._heard) if self._listeners else 0.0

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Meanwhile the node should say something. Every request and transfer listens."""
        if self._listeners == 0:
            self._since = self.loop.time()
        self._listeners += 1
        try:
            yield
        finally:
            self._listeners -= 1

    # What the port calls

    def _on_data(self, data: bytes) -> None:
        before = self._decoder.rejected
        frames = self._decoder.feed(data)
        if frames:
            self._heard = self.loop.time()
        self.stats.bytes_up += len(data)
        self.stats.frames_rejected += self._decoder.rejected - before
        touched: dict[Waiter, None] = {}  # in the order of their frames, which a set would not keep
        for frame in frames:
            waiter = self._waiting.get(frame.transfer)
            if waiter is None:
                self._unsolicited(frame)
            elif frame.type == FrameType.ERROR:
                waiter.fail(self._node_error(frame))
            else:
                waiter.handle(frame)
                touched[waiter] = None
        for waiter in touched:
            waiter.settle()
        if self._decoder.text:
            lines, self._decoder.text = self._decoder.text, []
            for line in lines:
                self._log(line)

    def _on_port_lost(self, reason: str) -> None:
        lost = LinkLost(f"{self.name}: {reason}")
        self._end(lost)
        if self.on_lost:
            self.on_lost(lost)

    def _end(self, lost: LinkLost) -> None:
        self._lost = self._lost or lost
        for waiter in list(self._waiting.values()):
            waiter.fail(self._lost)

    def _unsolicited(self, frame: Frame) -> None:
        try:
            if frame.type == FrameType.LOG:
                self._log(Log.decode(frame.payload).text)
            elif frame.transfer != 0:
                return  # the late answer to a request that was given up
            elif frame.type == FrameType.STATUS:
                status = Status.decode(frame.payload)
                self.stats.heard(status)
                if self.on_status:
                    self.on_status(status)
            elif frame.type == FrameType.ERROR:
                error = self._node_error(frame)
                for waiter in list(self._waiting.values()):
                    waiter.fail(error)
                if self.on_error and isinstance(error, NodeError):
                    self.on_error(error)
        except ProtocolError as problem:
            self._log(f"(malformed: {problem})")

    def _node_error(self, frame: Frame) -> LinkError:
        try:
            error = self._decode(Error, frame)
        except LinkError as problem:
            return problem
        return NodeError(error.code, error.detail)

    def _log(self, line: str) -> None:
        if self.on_log:
            self.on_log(line)

    # Requests

    def write(self, data: bytes) -> None:
        """Send bytes, unless the port is gone."""
        if self._lost is None:
            self.stats.bytes_down += len(data)
            self.port.write(data)

    def next_id(self) -> int:
        """Return a transfer number that nobody waits for."""
        for _ in range(255):
            self._last_id = self._last_id % 255 + 1
            if self._last_id not in self._waiting:
                return self._last_id
        raise LinkError(f"{self.name}: 255 requests wait already")

    def rename(self, id: int) -> int:
        """Give whoever waits for this number another one as well, and return that."""
        new = self.next_id()
        self._waiting[new] = self._waiting[id]
        return new

    @contextmanager
    def _registered(self, id: int, waiter: Waiter) -> Iterator[None]:
        if self._lost is not None:
            raise self._lost
        self._waiting[id] = waiter
        try:
            with self.listening():
                yield
        finally:
            for number in [number for number, other in self._waiting.items() if other is waiter]:
                del self._waiting[number]

    async def _ask(self, message: Message, reply: FrameType, id: int, timeout: float, retries: int) -> Frame:
        """Send until a frame of type `reply` comes, and return it."""
        future: asyncio.Future[Frame] = self.loop.create_future()
        data = b"\0" + encode(message.type, id, 0, message.encode())  # the delimiter ends any noise on an idle wire
        with self._registered(id, Request(future, reply)):
            for attempt in range(retries + 1):
                self.stats.retransmissions += attempt > 0
                self.write(data)
                await asyncio.wait((future,), timeout=timeout)
                if future.done():
                    return future.result()
        seconds = (retries + 1) * timeout
        raise LinkTimeout(f"{self.name}: no answer to {message.type.name} in {seconds:g} s")

    async def _exchange(
        self, message: Message, reply: type[M], id: int, timeout: float = 1.0, retries: int = 4
    ) -> tuple[int, M]:
        """Send until `reply` comes; return its frame's chunk number and the message."""
        frame = await self._ask(message, reply.type, id, timeout, retries)
        return frame.chunk, self._decode(reply, frame)

    def _decode(self, message: type[M], frame: Frame) -> M:
        try:
            decoded = message.decode(frame.payload)
        except ProtocolError as problem:
            raise LinkError(f"{self.name}: {problem}; host and firmware differ: rebuild and flash it") from None
        if isinstance(decoded, Status):
            self.stats.heard(decoded)
        return decoded

    async def request(self, message: Message, reply: type[M], timeout: float = 1.0, retries: int = 4) -> M:
        """Send `message` until `reply` comes, at most `retries` more times, `timeout` seconds apart."""
        return (await self._exchange(message, reply, self.next_id(), timeout, retries))[1]

    async def _run(self, flow: Flow, begin: Callable[[], None]) -> Frame:
        """Move a transfer from `begin` to its end; return the frame that ended it."""
        with self._registered(flow.id, flow):
            try:
                begin()
                flow.arm()
                return await flow.future
            finally:
                flow.stop()
