"""A wire in virtual time between a Session and the firmware's link, with a bit rate, a latency and seeded faults."""

from __future__ import annotations

import asyncio
import ctypes
import math
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import boards

FIRMWARE = boards.PROJECT_ROOT / "firmware"
SOURCES = (
    *(FIRMWARE / "link" / f"{name}.c" for name in ("crc", "frame", "transfer")),
    FIRMWARE / "node" / "arrival.c",
    Path(__file__).with_name("peer.c"),
)
_OUT_MAX = 65536
_PIECE = 64  # bytes that arrive together, as in a full-speed USB packet


def peer_flags(generated: Path, mtu: int, window: int) -> tuple[str, ...]:
    """Return what SOURCES are compiled with; `generated` is where protocol.h is."""
    return (f"-I{generated}", f"-I{FIRMWARE}", f"-I{FIRMWARE / 'link'}", f"-DLINK_MTU={mtu}", f"-DLINK_WINDOW={window}")


class Peer:
    """One compiled node of peer.c."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library
        self._state = ctypes.create_string_buffer(library.peer_bytes())
        self._out = ctypes.create_string_buffer(_OUT_MAX)
        library.peer_holds.restype = ctypes.c_bool
        library.peer_reset(self._state)

    def exchange(self, data: bytes) -> bytes:
        """Feed what arrived; return what the node sends, all at once."""
        return ctypes.string_at(self._out, self._library.peer_exchange(self._state, data, len(data), self._out))

    def feed(self, data: bytes) -> bytes:
        """Feed what arrived; return what the node answers."""
        return ctypes.string_at(self._out, self._library.peer_feed(self._state, data, len(data), self._out))

    def send(self) -> bytes:
        """Return the next chunk that the node has to send, or nothing."""
        return ctypes.string_at(self._out, self._library.peer_send(self._state, self._out))

    @property
    def violations(self) -> int:
        """Chunks that would have been written outside the blob."""
        return int(self._library.peer_violations(self._state))

    def holds(self, blob: bytes) -> bool:
        """Tell whether the node has taken exactly this."""
        return bool(self._library.peer_holds(self._state, blob, len(blob)))

    def damage(self, at: int = 0) -> None:
        """Flip a bit of this byte of the blob that the node holds."""
        self._library.peer_damage(self._state, at)

    def restart(self) -> None:
        """As if it had lost its power for a moment."""
        self._library.peer_reset(self._state)


@dataclass
class Faults:
    """Chances a byte; what happens to it on the wire."""

    flip: float = 0.0  # one bit
    drop: float = 0.0
    double: float = 0.0

    @classmethod
    def of_bits(cls, rate: float) -> Faults:
        """Return the faults of a wire that flips each of a byte's eight bits at this rate."""
        return cls(flip=1 - (1 - rate) ** 8)

    def apply(self, data: bytes, random: random.Random) -> bytes:
        worst = self.flip + self.drop + self.double
        if worst == 0:
            return data
        out, last, at = bytearray(), 0, self._gap(worst, random)
        while at < len(data):
            out += data[last:at]
            draw = random.random() * worst
            if draw < self.flip:
                out.append(data[at] ^ 1 << random.randrange(8))
            elif draw >= self.flip + self.drop:
                out += data[at : at + 1] * 2
            last = at + 1
            at = last + self._gap(worst, random)
        return bytes(out + data[last:])

    @staticmethod
    def _gap(chance: float, random: random.Random) -> int:
        """Return how many bytes pass before the next fault."""
        return int(math.log(1 - random.random()) / math.log1p(-chance)) if chance < 1 else 0


@dataclass(frozen=True)
class Chip:
    """What a node's chip takes for the link, in cycles, and the bytes that it can hold for its UART."""

    hertz: float
    byte: float  # to take one from the buffer and decode it, interrupt included
    frame_byte: float  # to check and store a frame, a byte of it
    frame: float  # and beside that, its answer not included
    send_byte: float  # to make a frame, a byte of it
    receive: int  # bytes that wait; what comes beyond is lost
    transmit: int  # bytes that wait; the node waits for the rest to fit


class _Node:
    """A Peer that takes a chip's time: what arrives while it is busy waits in a buffer, or is lost."""

    def __init__(self, peer: Peer, chip: Chip, baud: int, say: Callable[[float, bytes], None]) -> None:
        """say: called with a frame and the time at which its last byte leaves."""
        self.overruns = 0
        self.baud = baud
        self._peer, self._chip, self._say = peer, chip, say
        self._ring: deque[int] = deque()
        self._frame = bytearray()
        self._time = self._line = 0.0  # when the node is free, when its line is
        self._answered = False  # a chunk may be sent before the next byte is read
        self._sends = False

    def arrive(self, now: float, data: bytes) -> None:
        """The last of these bytes has come just now."""
        step = 10 / self.baud
        at = now - len(data) * step
        for byte in data:
            at += step
            self.run(at)
            if len(self._ring) == self._chip.receive:
                self.overruns += 1
                continue
            if not self._ring and not self._sends:
                self._time = max(self._time, at)
            self._ring.append(byte)

    def run(self, now: float) -> float | None:
        """Do what there is to do until now; return when there is more, or None."""
        while self._time <= now:
            if self._ring and not self._answered:
                self._read(self._ring.popleft())
                continue
            self._answered = False
            if self._sends:
                frame = self._peer.send()
                self._sends = bool(frame)
                self._put(frame, self._chip.send_byte * len(frame))
            elif not self._ring:
                return None
        return self._time

    def _read(self, byte: int) -> None:
        self._frame.append(byte)
        self._time += self._chip.byte / self._chip.hertz
        if byte == 0:
            answer = self._peer.feed(bytes(self._frame))
            cycles = self._chip.frame_byte * len(self._frame) + self._chip.frame
            self._put(answer, cycles + self._chip.send_byte * len(answer))
            self._frame.clear()
            self._answered = self._sends = True

    def _put(self, data: bytes, cycles: float) -> None:
        self._time += cycles / self._chip.hertz
        if data:
            self._line = max(self._line, self._time) + len(data) * 10 / self.baud
            self._time = max(self._time, self._line - self._chip.transmit * 10 / self.baud)
            self._say(self._line, data)


class WirePort:
    """A Port whose other end is a Peer. baud: 10 bits a byte; latency: seconds that the adapter holds what comes from
    the node; down_latency: the other way, the same by default; chip: what the node is, or it takes no time at all."""

    def __init__(
        self, peer: Peer, baud: int = 115200, latency: float = 0.004, faults: Faults | None = None, seed: int = 1,
        *, down_latency: float | None = None, chip: Chip | None = None,
    ) -> None:  # fmt: skip
        self.name = "wire"
        self.baud = baud
        self.filter_down: Callable[[bytes], bytes] = lambda data: data
        self.peer = peer
        self._latency = {"up": latency, "down": latency if down_latency is None else down_latency}
        self._faults = faults or Faults()
        self._random = random.Random(seed)
        self._free = {"down": 0.0, "up": 0.0}
        self._on_data: Callable[[bytes], None] = lambda _: None
        self._on_lost: Callable[[str], None] = lambda _: None
        self._node = _Node(peer, chip, baud, self._sent) if chip else None
        self._awake: asyncio.TimerHandle | None = None

    @property
    def overruns(self) -> int:
        """Bytes that the chip had no room for."""
        return self._node.overruns if self._node else 0

    @property
    def queued(self) -> float:
        """Seconds until everything that the host has written is on the wire."""
        return max(self._free["down"] - self._loop.time(), 0.0)

    def start(self, on_data: Callable[[bytes], None], on_lost: Callable[[str], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._on_data, self._on_lost = on_data, on_lost

    def write(self, data: bytes) -> None:
        self._carry("down", self.filter_down(data), self._arrive)

    def _carry(self, way: str, data: bytes, arrive: Callable[[bytes], None]) -> None:
        for start in range(0, len(data), _PIECE):
            piece = data[start : start + _PIECE]
            begin = max(self._free[way], self._loop.time())
            self._free[way] = begin + len(piece) * 10 / self.baud
            when = self._free[way] + self._latency[way]
            self._loop.call_at(when, arrive, self._faults.apply(piece, self._random))

    def _arrive(self, data: bytes) -> None:
        if self._node is None:
            self.say(self.peer.exchange(data))
        else:
            self._node.arrive(self._loop.time(), data)
            self._work()

    def _work(self) -> None:
        """Let the node go on, and wake it when it is free again."""
        assert self._node is not None
        again = self._node.run(self._loop.time())
        if self._awake:
            self._awake.cancel()
        self._awake = self._loop.call_at(again, self._work) if again is not None else None

    def _sent(self, when: float, data: bytes) -> None:
        """A frame's last byte leaves the node then: its pieces arrive one after the other."""
        for start in range(0, len(data), _PIECE):
            piece = data[start : start + _PIECE]
            left = when - (len(data) - start - len(piece)) * 10 / self.baud
            due = max(left + self._latency["up"], self._loop.time())
            self._loop.call_at(due, lambda data: self._on_data(data), self._faults.apply(piece, self._random))

    def say(self, data: bytes) -> None:
        """Let these bytes come from the node's end."""
        self._carry("up", data, lambda piece: self._on_data(piece))

    def vanish(self) -> None:
        """Pull the cable."""
        self._on_lost("the port vanished (unplugged)")

    def set_baud(self, baud: int) -> None:
        self.baud = baud
        if self._node:
            self._node.baud = baud

    def close(self) -> None:
        self._on_data = lambda _: None
