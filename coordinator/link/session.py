"""A session: one node behind one port, what it says it is, what both prove to each other, and the blobs that move."""

from __future__ import annotations

import asyncio
import zlib

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
    ErrorCode,
    Fetch,
    FrameType,
    Hello,
    HelloRequest,
    Labels,
    LabelsRequest,
    Offer,
    Status,
    TransferKind,
)
from coordinator.link.authentication import Terms, down_mac, is_from_node
from coordinator.link.channel import Channel, Port
from coordinator.link.errors import AuthenticationError, LinkError, LinkTimeout, NodeError, ProtocolMismatch
from coordinator.link.flows import Partial, Receiving, Sending
from coordinator.link.frames import Frame
from coordinator.link.handshake import prove
from coordinator.link.path import Path, RoundTrip
from coordinator.link.transfer import Receiver, Sender, Timed

RESET_SECONDS = 2.5  # a board that opening the port has reset answers within this time


class Session(Channel):
    """Talks to the node behind `port`; arguments and errors as of Channel."""

    def __init__(self, port: Port, *, loop: asyncio.AbstractEventLoop | None = None, patience: float = 10.0) -> None:
        super().__init__(port, loop=loop, patience=patience)
        self.node: Hello | None = None  # once hello() was answered
        self._key: bytes | None = None  # what the node must prove to have
        self._secret: bytes | None = None  # of this session, once both have proved it
        self.terms = Terms()  # of the round under way: whoever sends SETUP says them
        self._moving = asyncio.Lock()
        self._round_trip = RoundTrip()
        self._down, self._up = Path(self._round_trip), Path(self._round_trip)

    @property
    def authenticated(self) -> bool:
        """Whether both ends have proved that they have the node's key."""
        return self._secret is not None

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

    def _measure(self, size: int, started: float) -> None:
        self.stats.goodput = size / max(self.loop.time() - started, 1e-9)
        self.stats.round_trip = self._round_trip.smoothed
