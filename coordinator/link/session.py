"""A session: one node behind one port. Requests are matched to replies by the frame's transfer number, repeated when no
answer comes, and safe to repeat; blobs move as transfers."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol, TypeVar

from codegen.protocol import (
    MTU_MAX,
    MTU_MIN,
    PROTOCOL_VERSION,
    WINDOW_MAX,
    Ack,
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
    Log,
    Message,
    Offer,
    ProtocolError,
    Status,
    TransferKind,
)
from coordinator.link.authentication import Terms, down_mac, is_from_node
from coordinator.link.errors import (
    AuthenticationError,
    LinkError,
    LinkLost,
    LinkTimeout,
    NodeError,
    ProtocolMismatch,
)
from coordinator.link.flows import Flow, LinkStatistics, Partial, Receiving, Request, Sending, Waiter
from coordinator.link.frames import Decoder, Frame, encode
from coordinator.link.handshake import prove
from coordinator.link.path import Path, RoundTrip
from coordinator.link.transfer import Receiver, Sender, Timed

M = TypeVar("M", bound=Message)

RESET_SECONDS = 2.5  # a board that opening the port has reset answers within this time


class Port(Protocol):
    """Anything that carries bytes both ways. All calls come from the event loop's thread and never block."""

    @property
    def name(self) -> str: ...
    def start(self, on_data: Callable[[bytes], None], on_lost: Callable[[str], None]) -> None:
        """Begin to read. `on_lost` is called once, with the reason, when the port vanishes; never after `close`."""

    def write(self, data: bytes) -> None: ...
    def set_baud(self, baud: int) -> None: ...
    def close(self) -> None: ...


class Session:
    """Talks to the node behind `port`; made inside a running event loop, or given one.

    patience: seconds that a transfer may stand still before LinkTimeout. Every call may raise LinkLost (the port
    vanished), LinkTimeout (no answer) and NodeError (refused).
    """

    def __init__(self, port: Port, *, loop: asyncio.AbstractEventLoop | None = None, patience: float = 10.0) -> None:
        self.loop = loop or asyncio.get_running_loop()
        self.name = port.name
        self.patience = patience
        self.stats = LinkStatistics()
        self.node: Hello | None = None  # once hello() was answered
        self._key: bytes | None = None  # what the node must prove to have
        self._secret: bytes | None = None  # of this session, once both have proved it
        self.terms = Terms()  # of the round under way: whoever sends SETUP says them
        self.on_status: Callable[[Status], None] | None = None
        self.on_log: Callable[[str], None] | None = None
        self.on_error: Callable[[NodeError], None] | None = None
        self.on_lost: Callable[[LinkLost], None] | None = None
        self._lost: LinkLost | None = None
        self.port = port
        self._decoder = Decoder()
        self._waiting: dict[int, Waiter] = {}
        self._last_id = 0
        self._moving = asyncio.Lock()
        self._round_trip = RoundTrip()
        self._down, self._up = Path(self._round_trip), Path(self._round_trip)
        self._heard = self._since = self.loop.time()
        self._listeners = 0
        port.start(self._on_data, self._on_port_lost)

    @property
    def authenticated(self) -> bool:
        """Whether both ends have proved that they have the node's key."""
        return self._secret is not None

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
        touched: set[Waiter] = set()
        for frame in frames:
            waiter = self._waiting.get(frame.transfer)
            if waiter is None:
                self._unsolicited(frame)
            elif frame.type == FrameType.ERROR:
                waiter.fail(self._node_error(frame))
            else:
                waiter.handle(frame)
                touched.add(waiter)
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

    async def hello(self, timeout: float = RESET_SECONDS) -> Hello:
        """Ask the node who it is, and for proof once it has authenticated. timeout: seconds for the former."""
        interval = 0.4
        tries = max(round(timeout / interval), 1)
        try:
            frame = await self._ask(HelloRequest(), FrameType.HELLO, self.next_id(), interval, tries - 1)
        except LinkTimeout:
            said = "it sends something else" if self.stats.bytes_up else "nothing comes"
            raise LinkTimeout(
                f"{self.name}: no Tierfed node answers in {timeout:g} s ({said}); flash the board with "
                "`pio run -e BOARD -t upload`, or see `coordinator ports`"
            ) from None
        version = frame.payload[0] if frame.payload else 0
        if version != PROTOCOL_VERSION:  # before anything else is read: the rest may have another layout
            raise ProtocolMismatch(
                f"{self.name}: its firmware speaks protocol {version}, this host {PROTOCOL_VERSION}; "
                "rebuild and flash it with `pio run -e BOARD -t upload`"
            )
        hello = self._decode(Hello, frame)
        if not MTU_MIN <= hello.mtu <= MTU_MAX or not 1 <= hello.window <= WINDOW_MAX:
            raise LinkError(f"{self.name}: HELLO with mtu {hello.mtu} and window {hello.window} makes no sense")
        if self.node is not None and hello.uid != self.node.uid:
            self._key = self._secret = None  # the cable leads to another board, which has not authenticated
        if self._key is not None:
            hello, self._secret = await prove(self, self._key, hello)
        self.node = hello
        self.stats.booted(hello.boot)
        return hello

    async def authenticate(self, key: bytes) -> Hello:
        """Have both ends prove to each other that they have `key`, and the node that its HELLO is its own. That begins
        a session, to which transfers are bound; a later hello() begins another. Raises AuthenticationError."""
        self._key, self._secret = key, None
        hello = await self.hello()
        if self._secret is None:
            raise AuthenticationError(
                f"{self.name}: it says that it is {hello.uid.hex()}, and was another one just now"
            )
        return hello

    async def labels(self, classes: int) -> tuple[int, ...]:
        """Return how many samples of each of `classes` labels the node has."""
        counts: list[int] = []
        while len(counts) < classes:
            labels = await self.request(LabelsRequest(len(counts)), Labels)
            if labels.first != len(counts) or not labels.counts:
                raise LinkError(
                    f"{self.name}: it has counts for {len(counts)} labels; expected {classes}: rebuild and flash it"
                )
            counts += labels.counts
        return tuple(counts[:classes])

    async def set_baud(self, baud: int) -> None:
        """Change the wire's rate at both ends. A node goes back by itself if it hears nothing valid for 2 s."""
        await self.request(Baud(baud), Status)
        self.port.set_baud(baud)

    # Transfers

    @property
    def mtu(self) -> int:
        """Bytes of the longest payload, both ways."""
        return self.node.mtu if self.node else MTU_MIN

    @property
    def window(self) -> int:
        """Chunks that the node keeps in flight."""
        return self.node.window if self.node else 1

    @property
    def payloads(self) -> tuple[int, int]:
        """Bytes of the chunks that are best to the node and from it, as far as is known."""
        return self._payload(self._down), self._payload(self._up)

    def _payload(self, path: Path) -> int:
        """Return the length of the chunks to begin with."""
        return min(path.payload or self.mtu, self.mtu)

    async def send(self, kind: TransferKind, round: int, blob: bytes, timeout: float = 1.0) -> Status:
        """Move `blob` to the node and have it taken; returns the STATUS that says so. timeout: as of `request`, for a
        node that is still busy with what came before."""
        begin = Begin(kind, self._payload(self._down), round, len(blob), zlib.crc32(blob))
        mac = down_mac(self._secret, kind, round, self.terms, blob)
        async with self._moving:
            try:
                return await self._send_once(begin, blob, mac, timeout)
            except NodeError as error:
                if error.code not in (ErrorCode.BAD_CRC, ErrorCode.WRONG_MAC):
                    raise
            return await self._send_once(begin, blob, mac, timeout)

    async def _send_once(self, begin: Begin, blob: bytes, mac: bytes, timeout: float) -> Status:
        started, id = self.loop.time(), self.next_id()
        sender = Sender(blob, begin.payload, self.loop.time, self._down)
        flow = Sending(self, self.loop.create_future(), id, sender, begin, Commit(begin.round, mac))
        if begin.kind == TransferKind.SAMPLE:  # to a node that may be training: its port could not hold what follows
            chunk, ack = await self._exchange(begin, Ack, id, timeout)
            sender.acknowledge(chunk, ack.map)
            status = await self._run(flow, flow.push)
        else:
            status = await self._run(flow, flow.open)
        self._measure(len(blob), started)
        return self._decode(Status, status)

    async def fetch(self, round: int, encoding: Encoding, partial: Partial | None = None) -> tuple[Offer, bytes]:
        """Move the node's update of `round` here; returns what the node says of it, and its bytes, CRC-32 and mac
        checked. `partial` keeps what has come when that fails, and is gone on with when it is given again."""
        partial = partial or Partial()
        async with self._moving:
            for _ in range(2):
                offer, blob = await self._fetch_once(Fetch(round, encoding, self._payload(self._up)), partial)
                partial.offer = None
                whole = zlib.crc32(blob) == offer.crc
                if whole and is_from_node(self._secret, offer, self.terms, blob):
                    return offer, blob
        if whole:
            raise AuthenticationError(
                f"{self.name}: its update is not of this round, these weights and the labels that it said, or it was "
                "changed on its way"
            )
        raise LinkError(f"{self.name}: its update arrived damaged twice (CRC-32 0x{offer.crc:08x} announced)")

    async def _fetch_once(self, fetch: Fetch, partial: Partial) -> tuple[Offer, bytes]:
        started = self.loop.time()
        found: list[tuple[Offer, Receiver]] = []

        def offered(frame: Frame) -> Receiver:
            offer = self._check_offer(fetch, self._decode(Offer, frame))
            receiver = Receiver(offer.size, fetch.payload, self.loop.time, self._up, partial.of(offer))
            found.append((offer, receiver))
            return receiver

        opening = Timed(self.loop.time, self._up, Receiving.PATIENCE)
        first = partial.chunks(fetch)
        flow = Receiving(self, self.loop.create_future(), self.next_id(), opening, fetch, first, offered)
        try:
            await self._run(flow, flow.open)
        finally:
            for offer, receiver in found:
                partial.offer, partial.head = offer, bytes(receiver.blob[: receiver.next * receiver.payload])
        offer, receiver = found[0]
        self.stats.retransmissions += receiver.retransmitted
        self._measure(offer.size, started)
        return offer, bytes(receiver.blob)

    def _check_offer(self, fetch: Fetch, offer: Offer) -> Offer:
        if (offer.round, offer.encoding) != (fetch.round, fetch.encoding):
            raise LinkError(
                f"{self.name}: it offers an update of round {offer.round} in encoding {offer.encoding}; "
                f"asked for were round {fetch.round} and encoding {int(fetch.encoding)}"
            )
        most = 8 * self.node.parameters + 8 if self.node else 65535 * fetch.payload  # no encoding is twice float32
        if offer.size > most:
            raise LinkError(f"{self.name}: it offers an update of {offer.size} bytes; at most {most} make sense")
        return offer

    async def _run(self, flow: Flow, begin: Callable[[], None]) -> Frame:
        """Move a transfer from `begin` to its end; return the frame that ended it."""
        with self._registered(flow.id, flow):
            try:
                begin()
                flow.arm()
                return await flow.future
            finally:
                flow.stop()

    def _measure(self, size: int, started: float) -> None:
        self.stats.goodput = size / max(self.loop.time() - started, 1e-9)
        self.stats.round_trip = self._round_trip.smoothed
