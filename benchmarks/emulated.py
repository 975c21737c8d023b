"""A board's real image in an emulator of its chip: rounds held with it, in the board's own time."""

from __future__ import annotations

import asyncio
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from boards import Board
from codegen.protocol import Encoding, Setup, State, Status, StatusRequest, Train, TransferKind
from coordinator import emulators
from coordinator.emulators import Measured, read_measured
from coordinator.federation import Federation
from coordinator.link.ports import open_port
from coordinator.link.session import Session

UID = "00000000000000a1"
TRANSFERS = 20  # each way; the fastest counts, as what delays one is this machine's load
SEED = 1
BITS_A_BYTE = 10


@dataclass(frozen=True)
class Behaviour:
    """What an image did. Goodput: content as a share of what its fastest rate carries, opening and closing included."""

    step_seconds: float
    goodput_down: float
    goodput_up: float
    round_bytes: tuple[int, int]  # of content, down and up
    stack: int  # bytes, of the deepest use
    overruns: int


class Emulated:
    """A running emulator that keeps to the wall's time: what the host takes counts as it would on a desk."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        assert process.stdout is not None
        self._lines = process.stdout
        self.port = self._lines.readline().split()[-1]

    def measured(self) -> Measured:
        """Return what it has counted so far."""
        self._process.send_signal(signal.SIGUSR1)
        return read_measured(self._lines.readline())


@contextmanager
def running(kind: str, image: Path, board: Board) -> Iterator[Emulated]:
    """Start an image. Raises ToolchainError."""
    command = emulators.command(kind, image, board, UID, pace=True)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield Emulated(process)
        finally:
            process.terminate()


def measure(emulated: Emulated, board: Board, described: Federation, weights: bytes) -> Behaviour:
    """Move weights there and updates back, and train with whatever samples the image has. Raises LinkError."""

    async def hold() -> Behaviour:  # a session is made inside a running loop
        return await _Rounds(emulated, board, described, weights).hold()

    return asyncio.run(hold())


class _Rounds:
    """Rounds as a coordinator holds them."""

    def __init__(self, emulated: Emulated, board: Board, described: Federation, weights: bytes) -> None:
        self._emulated = emulated
        self._board = board
        self._training = described.training
        self._weights = weights
        self._session = Session(open_port(emulated.port, board.training.bauds[0]))
        self._encoding = Encoding.WEIGHTS
        self._round = 0

    async def hold(self) -> Behaviour:
        """Measure everything."""
        try:
            await self._session.hello()
            await self._session.set_baud(max(self._board.training.bauds))
            hello = await self._session.hello()
            if hello.encodings >> Encoding.DELTA_Q8 & 1:
                self._encoding = Encoding.DELTA_Q8
            down = max([await self._send(epochs=1) for _ in range(TRANSFERS)])
            one, two = [await self._train(epochs) for epochs in (1, 2)]
            up = max([await self._fetch() for _ in range(TRANSFERS)])
            size = (await self._session.fetch(self._round, self._encoding))[0].size
        finally:
            await self._session.close()
        last = self._emulated.measured()
        # From the same weights in the same order: what two epochs take longer than one is the second.
        step = (two - one) / hello.samples / self._board.frequency_hz
        return Behaviour(step, down, up, (len(self._weights), size), last.stack, last.overruns)

    def _goodput(self, size: int, before: Measured) -> float:
        seconds = (self._emulated.measured().cycles - before.cycles) / self._board.frequency_hz
        return size / seconds / (max(self._board.training.bauds) / BITS_A_BYTE)

    async def _send(self, epochs: int) -> float:
        """Begin a round; return the goodput of the weights."""
        self._round += 1
        wanted = self._training
        rate, momentum = wanted.learning_rate, wanted.momentum
        setup = Setup(self._round, SEED, rate, momentum, epochs, wanted.batch, self._encoding, wanted.nested)
        await self._session.request(setup, Status)
        before = self._emulated.measured()
        await self._session.send(TransferKind.WEIGHTS, self._round, self._weights)
        return self._goodput(len(self._weights), before)

    async def _train(self, epochs: int) -> int:
        """Hold a round as far as DONE; return the cycles that training kept the chip awake."""
        await self._send(epochs)
        before = self._emulated.measured().awake
        status = await self._session.request(Train(self._round), Status)
        while status.state == State.TRAINING:
            await asyncio.sleep(0.1)
            status = await self._session.request(StatusRequest(), Status, timeout=5.0)
        return self._emulated.measured().awake - before

    async def _fetch(self) -> float:
        """Return the goodput of the update."""
        before = self._emulated.measured()
        _, blob = await self._session.fetch(self._round, self._encoding)
        return self._goodput(len(blob), before)
