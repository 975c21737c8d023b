"""Boards that are not there: native twins, built by PlatformIO, one process each, reached like any other port."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import re
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from boards import PROJECT_ROOT
from coordinator.data import write_shard
from coordinator.errors import ToolchainError
from coordinator.federation import Federation, NodeSpec
from coordinator.roster import emulated_uid
from coordinator.shares import deal

START_SECONDS = 10.0
STOP_SECONDS = 2.0
OUTPUT_LINES = 30  # of a failed build that are shown
PROCESSING = re.compile(r"Processing native_(\S+)")  # what PlatformIO says when it begins with an environment


@dataclass(frozen=True)
class Twin:
    """A running twin."""

    name: str  # of the node that it stands for
    board: str
    uid: str
    port: str
    process: asyncio.subprocess.Process


def build(
    federation: Federation, workspace: Path | None = None, watch: Callable[[str], None] | None = None
) -> dict[str, Path]:
    """Build the twins of all boards in the federation file; return each board's program.

    `workspace` is where PlatformIO builds (None: the project's .pio); `watch` hears each board whose turn it is. Raises
    ToolchainError with what the build said.
    """
    ids = sorted({spec.board for spec in federation.nodes()})
    command = [sys.executable, "-m", "platformio", "run", "--project-dir", str(PROJECT_ROOT)]
    for board in ids:
        command += ["--environment", f"native_{board}"]
    place = workspace or PROJECT_ROOT / ".pio"
    place.mkdir(parents=True, exist_ok=True)
    env = os.environ | {"PLATFORMIO_WORKSPACE_DIR": str(place), "TIERFED_FEDERATION": str(federation.path)}
    with (place / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two builds in one place break each other
        said: deque[str] = deque(maxlen=OUTPUT_LINES)
        with subprocess.Popen(
            command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
        ) as process:
            assert process.stdout is not None
            for line in process.stdout:
                said.append(line)
                if watch and (turn := PROCESSING.match(line)):
                    watch(turn[1])
    if process.returncode:
        shown = "".join(said).strip()
        raise ToolchainError(f"the twins could not be built; `{' '.join(command[2:])}` said:\n{shown}")
    return {board: place / "build" / f"native_{board}" / "program" for board in ids}


def write_shards(federation: Federation, folder: Path) -> dict[str, Path]:
    """Write each node's share of the training samples; return the files by node. Raises DataError."""
    shares = deal(federation)
    shards = {name: folder / f"{name}.tfs" for name in shares}
    for name, share in shares.items():
        write_shard(shards[name], share.x, share.y, share.classes)
    return shards


class Twins:
    """All twins of a federation, running. Use as an async context manager: they are gone when it ends.

    A twin dies with the process that started it, and ignores the terminal's Ctrl-C, which is the coordinator's.
    """

    def __init__(self, federation: Federation, programs: Mapping[str, Path], folder: Path) -> None:
        """Take the programs by board and the folder for the shards."""
        self._federation = federation
        self._programs = programs
        self._folder = folder
        self._processes: list[asyncio.subprocess.Process] = []
        self.twins: list[Twin] = []

    @property
    def ports(self) -> list[str]:
        """Their ports, in the order of the federation file."""
        return [twin.port for twin in self.twins]

    async def __aenter__(self) -> Self:
        shards = write_shards(self._federation, self._folder)
        try:
            starting = (self._start(spec, shards[spec.name]) for spec in self._federation.nodes())
            self.twins = await asyncio.gather(*starting)
        except BaseException:
            await self.stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def stop(self) -> None:
        """Ask every twin to end, and make it."""
        await asyncio.gather(*(_end(process) for process in self._processes))
        self._processes.clear()

    async def _start(self, spec: NodeSpec, shard: Path) -> Twin:
        program, uid = self._programs[spec.board], spec.uid or emulated_uid(spec.name)
        try:
            process = await asyncio.create_subprocess_exec(
                program, "--shard", shard, "--uid", uid,
                stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
                start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            mend = f"build it with `pio run -e native_{spec.board}`"
            raise ToolchainError(f"{program}: {error.strerror}; {mend}") from error
        self._processes.append(process)
        port = await self._port(process)
        if port is None:
            await _end(process)
            assert process.stderr is not None
            said = (await process.stderr.read()).decode(errors="replace").strip() or "nothing"
            raise ToolchainError(f"{program}: the twin of {spec.name} did not start; it said: {said}")
        return Twin(spec.name, spec.board, uid, port, process)

    @staticmethod
    async def _port(process: asyncio.subprocess.Process) -> str | None:
        """Return the port that a twin announces on its first line."""
        assert process.stdout is not None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(START_SECONDS):
                word, _, port = (await process.stdout.readline()).decode(errors="replace").strip().partition(" ")
                return port if word == "PORT" else None
        return None


async def _end(process: asyncio.subprocess.Process) -> None:
    """SIGTERM, and SIGKILL for what does not mind it."""
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    try:
        async with asyncio.timeout(STOP_SECONDS):
            await process.wait()
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
