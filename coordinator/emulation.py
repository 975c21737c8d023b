"""Boards that are not there: native twins, or real images in emulators of their chips, built by PlatformIO, one process
each, reached like any other port."""

from __future__ import annotations

import asyncio
import contextlib
import shlex
import signal
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import boards
from codegen.planner import Plan
from coordinator import emulators, platformio
from coordinator.data import write_shard
from coordinator.errors import ToolchainError
from coordinator.federation import Federation, NodeSpec, own_name
from coordinator.images import Held, build_image, images_held
from coordinator.keys import key_file, load_key
from coordinator.roster import node_uid
from coordinator.shares import deal

START_SECONDS = 10.0
STOP_SECONDS = 2.0
LAST_WORDS = 5  # lines of a twin that ended by itself
NATIVE = "native"


@dataclass(frozen=True)
class Twin:
    """A running twin, or a board's real image in an emulator."""

    name: str  # of the node that it stands for
    board: str
    how: str  # native, or what emulates the chip
    uid: str
    port: str
    process: asyncio.subprocess.Process


def build(
    federation: Federation,
    workspace: Path | None = None,
    watch: platformio.Watch | None = None,
    only: Sequence[str] | None = None,
) -> dict[str, Path]:
    """Build the twins of all kinds of nodes in the federation file, or of those in `only`; return each kind's program.

    `workspace` is where PlatformIO builds (None: the project's .pio); `watch` hears each board whose turn it is. Raises
    ToolchainError with what the build said.
    """
    specs = {spec.kind: spec for spec in federation.nodes() if only is None or spec.kind in only}
    programs: dict[str, Path] = {}
    for model in dict.fromkeys(spec.model for spec in specs.values()):
        alike = {kind: f"native_{spec.board}" for kind, spec in sorted(specs.items()) if spec.model == model}
        with platformio.workspace(workspace, own_name(model) if model else None) as place:
            variables = {"TIERFED_FEDERATION": str(federation.path), "TIERFED_MODEL": model or ""}
            platformio.run("the twins could not be built", list(alike.values()), place, variables, watch=watch)
        programs |= {kind: place / "build" / name / "program" for kind, name in alike.items()}
    return programs


def build_images(
    federation: Federation, plans: Mapping[str, Plan], folder: Path, workspace: Path | None = None,
    watch: platformio.Watch | None = None,
) -> dict[str, Path]:  # fmt: skip
    """Build the image of every node whose board can be emulated, and the emulators; return the images by node.

    `plans` by kind; `folder` for the shards, `workspace` and `watch` as for build(). Raises ToolchainError, DataError.
    """
    specs = [spec for spec in federation.nodes() if emulator_of(spec.board)]
    for kind in {emulator_of(spec.board) for spec in specs}:
        assert kind is not None
        emulators.build(kind)
    shards = write_shards(federation, folder, images_held(federation, plans))
    built = {}
    for spec in specs:
        if watch:
            watch(spec.name)
        built[spec.name] = build_image(federation, spec, shards[spec.name], workspace)
    return built


def emulator_of(board: str) -> str | None:
    """Return what runs a board's real image on this machine, or None if nothing does."""
    return next((kind for kind in boards.load(board).training.emulation if kind != NATIVE), None)


def write_shards(federation: Federation, folder: Path, held: Mapping[str, Held] | None = None) -> dict[str, Path]:
    """Write each node's share of the training samples and the proxy images, of a node in `held` the first so many of
    both; return the files by node. Raises DataError."""
    shares = deal(federation)
    shards = {name: folder / f"{name}.tfs" for name in shares}
    for name, share in shares.items():
        count, proxy = (held or {}).get(name, Held(len(share.x), len(share.proxy)))
        write_shard(shards[name], share.x[:count], share.y[:count], share.classes, share.proxy[:proxy])
    return shards


class Twins:
    """All nodes of a federation, emulated. Use as an async context manager: they are gone when it ends.

    A twin dies with the process that started it, and ignores the terminal's Ctrl-C, which is the coordinator's.
    """

    def __init__(
        self,
        federation: Federation,
        programs: Mapping[str, Path],
        folder: Path,
        images: Mapping[str, Path] | None = None,
        held: Mapping[str, Held] | None = None,
        on_end: Callable[[str], None] | None = None,
    ) -> None:
        """Take the programs by kind of node, the folder for the shards, and the images by node that run in emulators.

        `held`: as for write_shards. `on_end` is told in a sentence of each twin that ends by itself.
        """
        self._federation = federation
        self._programs = programs
        self._folder = folder
        self._images = images or {}
        self._held = held
        self._on_end = on_end
        self._processes: list[asyncio.subprocess.Process] = []
        self._watches: list[asyncio.Task[None]] = []
        self.twins: list[Twin] = []

    @property
    def ports(self) -> list[str]:
        """Their ports, in the order of the federation file."""
        return [twin.port for twin in self.twins]

    async def __aenter__(self) -> Self:
        shards = write_shards(self._federation, self._folder, self._held)
        try:
            starting = (self._start(spec, shards[spec.name]) for spec in self._federation.nodes())
            self.twins = await asyncio.gather(*starting)
        except BaseException:
            await self.stop()
            raise
        self._watches = [asyncio.create_task(self._watch(twin)) for twin in self.twins]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def stop(self) -> None:
        """Ask every twin to end, and make it."""
        for watch in self._watches:
            watch.cancel()
        await asyncio.gather(*self._watches, return_exceptions=True)
        await asyncio.gather(*(_end(process) for process in self._processes))
        self._processes.clear()

    async def all_ended(self) -> None:
        """Wait until no twin runs any more."""
        await asyncio.gather(*self._watches)

    def _command(self, spec: NodeSpec, shard: Path) -> tuple[str, list[str]]:
        """Return how a node is emulated, and what starts it."""
        uid, kind = node_uid(spec), emulator_of(spec.board)
        if spec.name not in self._images or kind is None:
            return NATIVE, [str(self._programs[spec.kind]), "--shard", str(shard), "--uid", uid, *self._key(spec)]
        return kind, emulators.command(kind, self._images[spec.name], boards.load(spec.board), uid)

    def _key(self, spec: NodeSpec) -> list[str]:
        """Return the option by which a twin reads its key, if it has one. Raises KeyFileError."""
        path = key_file(self._federation, spec.name)
        if path is None:
            return []
        load_key(path)
        return ["--key", str(path)]

    async def _start(self, spec: NodeSpec, shard: Path) -> Twin:
        how, command = self._command(spec, shard)
        try:
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
                start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            model = f"TIERFED_MODEL={shlex.quote(spec.model)} " if spec.model else ""
            mend = f"build it with `{model}pio run -e native_{spec.board}`"
            raise ToolchainError(f"{command[0]}: {error.strerror}; {mend}") from error
        self._processes.append(process)
        port = await self._port(process)
        if port is None:
            await _end(process)
            assert process.stderr is not None
            said = (await process.stderr.read()).decode(errors="replace").strip() or "nothing"
            raise ToolchainError(f"{command[0]}: the twin of {spec.name} did not start; it said: {said}")
        return Twin(spec.name, spec.board, how, node_uid(spec), port, process)

    @staticmethod
    async def _port(process: asyncio.subprocess.Process) -> str | None:
        """Return the port that a twin announces on its first line."""
        assert process.stdout is not None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(START_SECONDS):
                word, _, port = (await process.stdout.readline()).decode(errors="replace").strip().partition(" ")
                return port if word == "PORT" else None
        return None

    async def _watch(self, twin: Twin) -> None:
        """Wait until a twin ends, and tell how."""
        assert twin.process.stderr is not None
        said: deque[str] = deque(maxlen=LAST_WORDS)
        async for line in twin.process.stderr:
            said.append(line.decode(errors="replace").strip())
        code = await twin.process.wait()
        how = f"exit code {code}" if code >= 0 else signal.Signals(-code).name
        what = "its twin" if twin.how == NATIVE else f"its emulator ({twin.how})"
        if self._on_end:
            self._on_end(f"{twin.name}: {what} ended ({how}); it said: {'; '.join(said) or 'nothing'}")


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
