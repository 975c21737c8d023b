"""Ports, with real ptys and real sockets on the loopback."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pty
import select
import socket
import termios
import threading
import time
import tty
from collections.abc import Iterator
from pathlib import Path

import pytest
import serial
import serial.rfc2217

from codegen.protocol import Encoding, TransferKind
from coordinator.link import ports
from coordinator.link.errors import LinkLost, PortError
from coordinator.link.ports import list_ports, open_port
from coordinator.link.session import Session
from simulation.wire import Peer
from tests.coordinator.link.conftest import MakePeer

BLOB = os.urandom(50_000)


class PtyNode:
    """A node on a pty, served by a thread; the master's end is the test's to close."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self.master, slave = pty.openpty()
        tty.setraw(slave)
        self.name = os.ttyname(slave)
        os.close(slave)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        os.set_blocking(self.master, False)
        answer = b""
        while not self._stop.is_set():
            readable, writable, _ = select.select([self.master], [self.master] if answer else [], [], 0.01)
            with contextlib.suppress(BlockingIOError):
                if writable:
                    answer = answer[os.write(self.master, answer) :]
            try:
                answer += self.peer.exchange(os.read(self.master, 4096)) if readable else b""
            except OSError:  # nobody has the other end open
                time.sleep(0.01)

    def vanish(self) -> None:
        """As if the cable were pulled; a second time it does nothing."""
        if not self._stop.is_set():
            self._stop.set()
            self._thread.join()
            os.close(self.master)


@pytest.fixture
def node(make_peer: MakePeer) -> Iterator[PtyNode]:
    node = PtyNode(make_peer(248, 16))
    yield node
    node.vanish()


async def there_and_back(session: Session) -> None:
    """Move a blob to the node and back."""
    await session.hello()
    await session.send(TransferKind.WEIGHTS, 1, BLOB)
    _, blob = await session.fetch(1, Encoding.WEIGHTS)
    assert blob == BLOB


def run_on(name: str, baud: int = 115200) -> Session:
    """Open a port, move a blob there and back, close it; return the session."""

    async def main() -> Session:
        session = Session(open_port(name, baud))
        async with asyncio.timeout(20):
            await there_and_back(session)
        await session.close()
        return session

    return asyncio.run(main())


def test_pty(node: PtyNode) -> None:
    session = run_on(node.name)
    assert session.stats.bytes_down > len(BLOB) < session.stats.bytes_up
    assert session.stats.retransmissions < 20


def test_a_closed_port_opens_again(node: PtyNode) -> None:
    run_on(node.name)
    run_on(node.name, 9600)


@pytest.mark.parametrize("baud", [115200, 250000, 500000, 1000000])
def test_baud_rates_that_boards_use(node: PtyNode, baud: int) -> None:
    async def main() -> None:
        port = open_port(node.name, 9600)
        port.set_baud(baud)
        session = Session(port)
        await session.hello()
        await session.close()

    asyncio.run(main())


def test_closing_does_not_hang_up(node: PtyNode) -> None:
    open_port(node.name, 115200)
    descriptor = os.open(node.name, os.O_RDWR | os.O_NOCTTY)
    assert not termios.tcgetattr(descriptor)[2] & termios.HUPCL
    os.close(descriptor)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("/dev/ttyNOTHERE", r"/dev/ttyNOTHERE: there is no such port; `coordinator ports` lists what is there"),
        ("COM-NO", "COM-NO: there is no such port"),
        ("gopher://x:1", "not a URL that pyserial knows .*; expected socket://HOST:PORT or rfc2217://HOST:PORT"),
        ("socket://127.0.0.1:1", "cannot connect .*Connection refused.*; is its server running"),
        ("socket://", "host or port is missing or wrong; expected socket://HOST:PORT"),
        ("socket://127.0.0.1", "host or port is missing or wrong"),
        ("rfc2217://127.0.0.1:99999", "host or port is missing or wrong"),
        ("rfc2217://127.0.0.1:1", "cannot connect .*Connection refused.*; is its server running"),
    ],
)
def test_ports_that_are_not_there(name: str, words: str) -> None:
    with pytest.raises(PortError, match=words):
        open_port(name, 115200)


def test_a_file_is_no_port(tmp_path: Path) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("x")
    with pytest.raises(PortError, match=r"notes.txt: not a serial port; `coordinator ports`"):
        open_port(str(file), 115200)
    with pytest.raises(PortError, match=r": not a serial port; `coordinator ports`"):
        open_port(str(tmp_path), 115200)


def test_busy(node: PtyNode) -> None:
    with serial.Serial(node.name, exclusive=True), pytest.raises(PortError, match="busy: another program has it open"):
        open_port(node.name, 115200)


def test_twice_in_one_program_is_busy_too(node: PtyNode) -> None:
    first = open_port(node.name, 115200)
    with pytest.raises(PortError, match="busy"):
        open_port(node.name, 115200)
    first.close()


def test_not_permitted(monkeypatch: pytest.MonkeyPatch, node: PtyNode) -> None:
    """Root may open anything, so the refusal is the system's error as another user gets it."""

    def refuse(*_: object) -> int:
        raise PermissionError(13, "Permission denied", node.name)

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(PortError, match=r"not permitted; .*`sudo usermod -aG dialout \$USER`"):
        open_port(node.name, 115200)


@pytest.mark.parametrize("when", ["before", "in a transfer"])
def test_a_vanishing_pty_ends_every_call_at_once(node: PtyNode, when: str) -> None:
    async def main() -> float:
        session = Session(open_port(node.name, 115200))
        lost: list[LinkLost] = []
        session.on_lost = lost.append
        await session.hello()
        if when == "before":
            node.vanish()
        else:
            asyncio.get_running_loop().call_later(0.01, node.vanish)
        started = time.monotonic()
        with pytest.raises(LinkLost, match="the port vanished"):
            for _ in range(1000):
                await session.send(TransferKind.WEIGHTS, 1, BLOB)
        assert len(lost) == 1
        await session.close()
        return time.monotonic() - started

    assert asyncio.run(main()) < 1.0


class TcpNode:
    """A node behind a TCP server, raw or as RFC 2217."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self.server = socket.create_server(("127.0.0.1", 0))
        self.port = self.server.getsockname()[1]
        self.connection: socket.socket | None = None
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        self.connection, _ = self.server.accept()
        with contextlib.suppress(OSError):
            self.converse(self.connection)

    def converse(self, connection: socket.socket) -> None:
        """Pass bytes between the connection and the node."""
        while data := connection.recv(4096):
            connection.sendall(self.peer.exchange(data))

    def vanish(self) -> None:
        """As if the network were gone."""
        assert self.connection
        self.connection.shutdown(socket.SHUT_RDWR)
        self.connection.close()
        self.server.close()


class Rfc2217Node(TcpNode):
    """The server of pyserial's own example: a serial port (here a loop without wire) behind RFC 2217."""

    def converse(self, connection: socket.socket) -> None:
        """Strip and add the telnet escapes around what passes."""
        port = serial.serial_for_url("loop://", timeout=0)

        class Connection:
            def write(self, data: bytes) -> None:
                connection.sendall(data)

        manager = serial.rfc2217.PortManager(port, Connection())  # type: ignore[arg-type]
        while data := connection.recv(4096):
            answer = self.peer.exchange(b"".join(manager.filter(data)))
            connection.sendall(b"".join(manager.escape(answer)))


quiet = pytest.mark.filterwarnings("ignore:set(Daemon|Name):DeprecationWarning:serial")
network = pytest.mark.parametrize(("scheme", "kind"), [("socket", TcpNode), ("rfc2217", Rfc2217Node)])


@network
@quiet
def test_network_ports(make_peer: MakePeer, scheme: str, kind: type[TcpNode]) -> None:
    server = kind(make_peer(248, 16))
    run_on(f"{scheme}://127.0.0.1:{server.port}")


@network
@quiet
def test_a_network_that_is_gone_ends_every_call(make_peer: MakePeer, scheme: str, kind: type[TcpNode]) -> None:
    server = kind(make_peer(248, 16))

    async def main() -> None:
        session = Session(open_port(f"{scheme}://127.0.0.1:{server.port}", 115200))
        await session.hello()
        server.vanish()
        with pytest.raises(LinkLost, match="the port vanished"):
            await session.send(TransferKind.WEIGHTS, 1, BLOB)
        await session.close()

    started = time.monotonic()
    asyncio.run(main())
    assert time.monotonic() - started < 3.0


def test_writes_never_block_the_loop() -> None:
    """Nobody reads at the other end: a megabyte waits in the port, and the loop goes on."""
    master, slave = pty.openpty()
    tty.setraw(slave)
    name = os.ttyname(slave)
    os.close(slave)

    async def main() -> float:
        port = open_port(name, 115200)
        port.start(lambda _: None, lambda _: None)
        started = time.monotonic()
        for _ in range(1000):
            port.write(bytes(range(256)) * 4)
        await asyncio.sleep(0.01)
        elapsed = time.monotonic() - started
        received = bytearray()
        while len(received) < 1_024_000:
            received += await asyncio.to_thread(os.read, master, 65536)
        assert received == bytes(range(256)) * 4000
        port.close()
        return elapsed

    assert asyncio.run(main()) < 0.5
    os.close(master)


@pytest.mark.parametrize("speaks", [True, False])
def test_dtr_is_low_until_silence_calls_for_it(node: PtyNode, monkeypatch: pytest.MonkeyPatch, speaks: bool) -> None:
    monkeypatch.setattr(ports, "WAKE", 0.05)
    levels: list[bool] = []
    monkeypatch.setattr(serial.Serial, "_update_dtr_state", lambda handle: levels.append(handle.dtr))

    async def main() -> None:
        session = Session(open_port(node.name, 115200))
        if speaks:
            await session.hello()
        await asyncio.sleep(0.2)
        await session.close()

    asyncio.run(main())
    assert levels[0] is False
    assert (True in levels) is not speaks


def test_list_names_usb_ids() -> None:
    for port in list_ports():
        assert port.name
        assert port.usb == "" or len(port.usb) == 9
