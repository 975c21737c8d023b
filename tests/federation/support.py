"""What tests of faults share: observers that do harm, twins behind wires that outlive them."""

import asyncio
import socket
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from coordinator.emulation import Twins
from coordinator.events import Event, NodeProgress, RoundAggregated
from tests.federation.world import World


class Once:
    """An observer that does something when a node begins to train in a round."""

    def __init__(self, node: str, number: int, act: Callable[[], object]) -> None:
        self.node, self.number, self.act = node, number, act
        self.done = False

    def __call__(self, event: Event) -> None:
        if isinstance(event, NodeProgress) and event.stage == "training" and not self.done:
            self.done = (event.node, event.round) == (self.node, self.number)
            if self.done:
                self.act()


def killer(twins: Twins, node: str, number: int) -> Once:
    """Kill a twin when it begins to train in a round."""
    return Once(node, number, next(twin.process for twin in twins.twins if twin.name == node).kill)


def rounds(events: list[Event]) -> list[tuple[str, ...]]:
    return [event.answered for event in events if isinstance(event, RoundAggregated)]


@asynccontextmanager
async def twin_on_tcp(world: World, shard: Path, port: int, uid: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """A twin of the ESP32 that listens on a TCP port."""
    process = await asyncio.create_subprocess_exec(
        world.programs["esp32dev"], "--shard", shard, "--uid", uid, "--tcp", str(port), stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        assert (await process.stdout.readline()).startswith(b"PORT socket://127.0.0.1:")
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


class Wire:
    """A serial cable: the host's end stays open while the board behind it is reset."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.board: asyncio.StreamWriter | None = None
        self.host: asyncio.StreamWriter | None = None

    async def plug(self, board: int) -> None:
        """Connect the board that listens on this port."""
        reader, self.board = await asyncio.open_connection("127.0.0.1", board)
        self.copying = asyncio.create_task(self.copy(reader))

    async def copy(self, reader: asyncio.StreamReader) -> None:
        """From the board to the host, until the board dies."""
        while data := await reader.read(4096):
            if self.host is not None:
                self.host.write(data)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """From the host to the board."""
        self.host = writer
        while data := await reader.read(4096):
            if self.board is not None and not self.board.is_closing():
                self.board.write(data)
        writer.close()


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])
