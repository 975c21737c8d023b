"""The native twin as a process, spoken to as any host would."""

from __future__ import annotations

import os
import select
import socket
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from codegen.protocol import Message
from coordinator.link.frames import Decoder, Frame
from tests.firmware.node.harness import decode, frame_of


class Program:
    """A running twin. `connect` before anything is sent; used as a context, it is ended afterwards."""

    def __init__(self, program: Path, shard: Path, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [program, "--shard", shard, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert self.process.stdout
        word, self.port = self.process.stdout.readline().split()
        assert word == "PORT"
        self._fd = -1
        self._socket: socket.socket | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.disconnect()
        self.process.terminate()
        self.process.communicate(timeout=10)

    def connect(self) -> None:
        """Open the pty or the socket it named."""
        self._decoder = Decoder()
        if self.port.startswith("socket://"):
            host, port = self.port.removeprefix("socket://").split(":")
            self._socket = socket.create_connection((host, int(port)))
            self._socket.setblocking(False)
            self._fd = self._socket.fileno()
        else:
            self._fd = os.open(self.port, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)

    def disconnect(self) -> None:
        """Close it, as a host that leaves."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        elif self._fd >= 0:
            os.close(self._fd)
        self._fd = -1

    def write(self, data: bytes) -> int:
        """Send what there is room for; return how much that was."""
        try:
            return os.write(self._fd, data)
        except BlockingIOError:
            return 0

    def read(self, patience: float = 0.0) -> list[Frame]:
        """Return the frames that have come; waits at most `patience` seconds for bytes."""
        if not select.select([self._fd], [], [], patience)[0]:
            return []
        return self._decoder.feed(os.read(self._fd, 65536))

    def send(self, data: bytes) -> list[Frame]:
        """Send all of it; return what came meanwhile."""
        frames: list[Frame] = []
        while data:
            data = data[self.write(data) :]
            frames += self.read()
        return frames

    def exchange(self, data: bytes, transfer: int, patience: float = 5.0) -> Frame:
        """Send a frame and return the first one that answers it; others are dropped."""
        frames = self.send(data)
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline:
            for frame in frames:
                if frame.transfer == transfer:
                    return frame
            frames = self.read(0.1)
        raise AssertionError(f"no answer to {data!r}")

    def ask(self, message: Message, transfer: int = 1) -> Message:
        """Send one request and return its reply."""
        return decode(self.exchange(frame_of(message, transfer), transfer))
