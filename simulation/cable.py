"""A cable between a port of this computer and a simulated node: bytes take their time, and much can happen to them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Literal

from coordinator.link.errors import PortBusy, PortError
from simulation.node import SimulatedNode

Way = Literal["down", "up"]
Piece = tuple[bytes, Callable[[], None] | None]  # bytes, and what happens when they have arrived
LATENCY = 0.002  # seconds, each way


class Cable:
    """Carries bytes between the port that `open` gives and the node that is plugged in.

    `mischief` is given the bytes that enter one end, and returns what goes on, in pieces.
    """

    def __init__(self, name: str, node: SimulatedNode) -> None:
        self.name = name
        self.plugged = True
        self.silent = False
        self.busy_until = 0.0  # another program has it open
        self.mischief: Callable[[Way, bytes], list[Piece]] = lambda _, data: [(data, None)]
        self._port: _CablePort | None = None
        self._free: dict[Way, float] = {"down": 0.0, "up": 0.0}
        self._pulled = 0  # how often: what is under way then is lost
        self.attach(node)

    def attach(self, node: SimulatedNode) -> None:
        """Plug another node into the far end."""
        self.node = node
        node.write = self._from_node

    def open(self, baud: int) -> _CablePort:
        """Open this end. Raises PortError and PortBusy."""
        if not self.plugged:
            raise PortError(f"{self.name}: there is no such port; `coordinator ports` lists what is there")
        if self._port is not None or asyncio.get_running_loop().time() < self.busy_until:
            raise PortBusy(f"{self.name}: busy: another program has it open")
        self._port = _CablePort(self, baud)
        return self._port

    def pull(self) -> None:
        """Pull the cable out."""
        self.plugged = False
        self._pulled += 1
        port, self._port = self._port, None
        if port is not None:
            port.lose()

    def plug(self) -> None:
        """Put it in again."""
        self.plugged = True

    def abandon(self) -> None:
        """The program that had this end open is no more."""
        if self._port is not None:
            self._port.close()

    def repair(self) -> None:
        """A person looks after it: the cable is in, the node runs."""
        self.plugged, self.silent, self.busy_until = True, False, 0.0
        self.node.wake()

    def speak(self) -> None:
        """Carry bytes again."""
        self.silent = False

    def release(self, port: _CablePort) -> None:
        """The port was closed."""
        if self._port is port:
            self._port = None

    def swap(self, other: Cable) -> None:
        """Exchange the nodes at the far ends."""
        ours = self.node
        self.attach(other.node)
        other.attach(ours)

    def babble(self, data: bytes) -> None:
        """Have these bytes come from the far end."""
        self._from_node(data, self.node.rate)

    def from_port(self, data: bytes, baud: int) -> None:
        """Carry what the computer sends."""
        self._carry("down", data, baud, lambda arrived: self.node.hear(_sampled(arrived, baud, self.node.rate)))

    def say(self, data: bytes) -> None:
        """Let these bytes reach the computer as if they came from the node."""
        if self._port is not None:
            self._port.hear(data)

    def _from_node(self, data: bytes, rate: int) -> None:
        def arrive(arrived: bytes) -> None:
            if self._port is not None:
                self._port.hear(_sampled(arrived, rate, self._port.baud))

        self._carry("up", data, rate, arrive)

    def _carry(self, way: Way, data: bytes, baud: int, arrive: Callable[[bytes], None]) -> None:
        pulled = self._pulled

        def land(piece: bytes, then: Callable[[], None] | None) -> None:
            if piece and pulled == self._pulled and not self.silent:
                arrive(piece)
            if then is not None:
                then()

        if self.plugged:
            loop = asyncio.get_running_loop()
            for piece, then in self.mischief(way, data):
                self._free[way] = max(self._free[way], loop.time()) + len(piece) * 10 / baud
                loop.call_at(self._free[way] + LATENCY, land, piece, then)


def _sampled(data: bytes, sent: int, heard: int) -> bytes:
    """Return what a receiver makes of bytes that were sent at this rate."""
    return data if sent == heard else bytes(byte ^ 0x5A for byte in data[::2])


class _CablePort:
    """The computer's end of a cable: a coordinator.link.session.Port."""

    def __init__(self, cable: Cable, baud: int) -> None:
        self.name = cable.name
        self.baud = baud
        self._cable: Cable | None = cable
        self._on_data: Callable[[bytes], None] = lambda _: None
        self._on_lost: Callable[[str], None] = lambda _: None

    def start(self, on_data: Callable[[bytes], None], on_lost: Callable[[str], None]) -> None:
        self._on_data, self._on_lost = on_data, on_lost

    def write(self, data: bytes) -> None:
        if self._cable is not None:
            self._cable.from_port(data, self.baud)

    def set_baud(self, baud: int) -> None:
        self.baud = baud

    def close(self) -> None:
        if self._cable is not None:
            self._cable.release(self)
            self._cable = None

    def hear(self, data: bytes) -> None:
        """Bytes arrive."""
        self._on_data(data)

    def lose(self) -> None:
        """The cable was pulled; the one who reads is told soon, not in the middle of what it does."""
        self._cable = None
        asyncio.get_running_loop().call_soon(self._on_lost, "the port vanished (unplugged)")
