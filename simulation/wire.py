"""A wire in virtual time between a Session and the firmware's link, with a bit rate, a latency and seeded faults."""

from __future__ import annotations

import asyncio
import ctypes
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import boards

FIRMWARE = boards.PROJECT_ROOT / "firmware"
SOURCES = (*sorted((FIRMWARE / "link").glob("*.c")), Path(__file__).with_name("peer.c"))
_OUT_MAX = 65536


class Peer:
    """One compiled node of peer.c."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library
        self._state = ctypes.create_string_buffer(library.peer_bytes())
        self._out = ctypes.create_string_buffer(_OUT_MAX)
        library.peer_reset(self._state)

    def exchange(self, data: bytes) -> bytes:
        """Feed what arrived; return what the node sends."""
        count = self._library.peer_exchange(self._state, data, len(data), self._out)
        return ctypes.string_at(self._out, count)

    @property
    def violations(self) -> int:
        """Chunks that would have been written outside the blob."""
        return int(self._library.peer_violations(self._state))

    def damage(self) -> None:
        """Flip a bit of the blob the node holds."""
        self._library.peer_damage(self._state)

    def restart(self) -> None:
        """As if it had lost its power for a moment."""
        self._library.peer_reset(self._state)


@dataclass
class Faults:
    """Chances a byte; what happens to it on the wire."""

    flip: float = 0.0  # one bit
    drop: float = 0.0
    double: float = 0.0

    def apply(self, data: bytes, random: random.Random) -> bytes:
        worst = self.flip + self.drop + self.double
        if worst == 0:
            return data
        out = bytearray()
        for byte in data:
            draw = random.random()
            if draw < self.flip:
                out.append(byte ^ 1 << random.randrange(8))
            elif draw >= worst:
                out.append(byte)
            elif draw >= self.flip + self.drop:
                out += bytes((byte, byte))
        return bytes(out)


class WirePort:
    """A Port whose other end is a Peer. baud: 10 bits a byte; latency: seconds, each way."""

    def __init__(
        self, peer: Peer, baud: int = 115200, latency: float = 0.004, faults: Faults | None = None, seed: int = 1
    ) -> None:
        self.name = "wire"
        self.baud = baud
        self.filter_down: Callable[[bytes], bytes] = lambda data: data
        self.peer = peer
        self._latency = latency
        self._faults = faults or Faults()
        self._random = random.Random(seed)
        self._free = {"down": 0.0, "up": 0.0}
        self._on_data: Callable[[bytes], None] = lambda _: None
        self._on_lost: Callable[[str], None] = lambda _: None

    def start(self, on_data: Callable[[bytes], None], on_lost: Callable[[str], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._on_data, self._on_lost = on_data, on_lost

    def write(self, data: bytes) -> None:
        self._carry("down", self.filter_down(data), self._arrive)

    def _carry(self, way: str, data: bytes, arrive: Callable[[bytes], None]) -> None:
        for start in range(0, len(data), 64):
            piece = data[start : start + 64]
            begin = max(self._free[way], self._loop.time())
            self._free[way] = begin + len(piece) * 10 / self.baud
            self._loop.call_at(self._free[way] + self._latency, arrive, self._faults.apply(piece, self._random))

    def _arrive(self, data: bytes) -> None:
        answer = self.peer.exchange(data)
        self.say(answer)

    def say(self, data: bytes) -> None:
        """Let these bytes come from the node's end."""
        self._carry("up", data, lambda piece: self._on_data(piece))

    def vanish(self) -> None:
        """Pull the cable."""
        self._on_lost("the port vanished (unplugged)")

    def set_baud(self, baud: int) -> None:
        self.baud = baud

    def close(self) -> None:
        self._on_data = lambda _: None
