"""The compiled node in virtual time: its firmware is real, its port is memory, and training takes as long as its plan
says."""

from __future__ import annotations

import _ctypes
import asyncio
import ctypes
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import boards
from codegen.build import generate
from codegen.planner import Plan
from codegen.prebuild import C_FLAGS, CC_FLAGS, link_defines
from coordinator.results import Inputs
from coordinator.shares import Share

FIRMWARE = boards.PROJECT_ROOT / "firmware"
SOURCES = tuple(sorted(path for part in ("node", "link", "engine") for path in (FIRMWARE / part).glob("*.c")))
MEMORY_PORT = Path(__file__).with_name("memory_port.c")
TRIAL_SECONDS = 2.1  # after which a node that hears nothing at a new rate has gone back
CLOCK_AT_BOOT = -700  # milliseconds: it wraps early on
BOOT_TEXT = (  # an ESP32's
    b"ets Jul 29 2019 12:21:46\r\n\r\nrst:0x1 (POWERON_RESET),boot:0x13 (SPI_FAST_FLASH_BOOT)\r\nentry 0x400805e4\r\n"
)
UPDATE_PIECE = 128  # bytes that encoding_read is asked for at once
_OUT_BYTES = 65536


def compile_node(inputs: Inputs, plan: Plan, folder: Path) -> Path:
    """Compile the firmware of a plan into a shared library in `folder` and return its path."""
    board = plan.board
    out = folder / board.id
    generate(board, inputs.graph, inputs.weights, inputs.federation.tier_list(), inputs.federation.plan_settings(), out)
    defines = [f"-D{name}={value}" for name, value in (*link_defines(boards.PROJECT_ROOT, board.id), ("NODE_KEYED", 1))]
    flags = [*C_FLAGS, *CC_FLAGS, "-O2", "-shared", "-fPIC", f"-I{FIRMWARE}", f"-I{out}", *defines]
    library = out / "node.so"
    subprocess.run(["cc", *flags, *map(str, (*SOURCES, MEMORY_PORT)), "-o", str(library)], check=True)
    return library


@dataclass
class SimulatedNode:
    """One board: a private copy of its firmware's library (its state is static), and its own milliseconds.

    `write` is called with what it sends and the rate that its end of the wire has.
    """

    name: str
    uid: str  # 16 hexadecimal digits
    plan: Plan
    library: Path
    share: Share
    key: bytes | None = None
    write: Callable[[bytes, int], None] = lambda _data, _rate: None
    on_step: Callable[[int], None] = lambda _steps: None  # after each sample trained; counts from power-on
    forge: Callable[[bytes], bytes] = lambda data: data  # what it says instead
    slowness: float = 1.0  # times that it takes longer than its plan says
    boot: int = 0
    steps: int = 0

    def __post_init__(self) -> None:
        self._work: asyncio.TimerHandle | None = None
        self._boots: asyncio.TimerHandle | None = None
        self._inbox = bytearray()
        self._busy_until = self._hung_until = 0.0  # the loop's time
        images = (self.share.x, self.share.proxy[: self.plan.proxy])  # the proxy images lie behind the samples
        rows = [each.reshape(len(each), -1) for each in images if len(each)]
        self._features = np.ascontiguousarray(np.concatenate(rows), np.uint8)
        self._labels = np.ascontiguousarray(self.share.y, np.uint16)
        self._out = ctypes.create_string_buffer(_OUT_BYTES)
        self._loaded: ctypes.CDLL | None = None

    @property
    def rate(self) -> int:
        """Bits a second of its end of the wire."""
        changed = 0 if self._loaded is None else int(self._loaded.memory_rate())
        return changed or self.plan.board.training.bauds[0]

    def start(self) -> None:
        """Power on, or reset: RAM as the image has it, and another boot id."""
        self.stop()
        self._loop = asyncio.get_running_loop()
        self.boot += 1
        self._started = self._loop.time()
        self._busy_until = self._hung_until = 0.0
        self._loaded = library = ctypes.CDLL(str(self.library))
        library.memory_rate.restype = library.memory_pull.restype = ctypes.c_uint32
        library.memory_run.restype = ctypes.c_bool
        features, labels = (array.ctypes.data_as(ctypes.c_void_p) for array in (self._features, self._labels))
        library.memory_key(self.key)
        library.memory_identify(bytes.fromhex(self.uid), self.boot - 1)  # memory_boot counts it
        library.memory_boot(features, labels, len(self._labels), self._features.shape[1])
        library.node_start()
        if self.plan.board.mcu.startswith("esp32"):
            self.write(BOOT_TEXT, self.rate)

    def update(self, size: int) -> bytes:
        """Return so many bytes of the update that it offers."""
        assert self._loaded is not None
        out = ctypes.create_string_buffer(size)
        for offset in range(0, size, UPDATE_PIECE):
            self._loaded.encoding_read(offset, min(UPDATE_PIECE, size - offset), ctypes.byref(out, offset))
        return out.raw

    def stop(self) -> None:
        """Take its power away."""
        if self._boots is not None:
            self._boots.cancel()
            self._boots = None
        if self._work is not None:
            self._work.cancel()
            self._work = None
        if self._loaded is not None:
            _ctypes.dlclose(self._loaded._handle)  # loaded again, its memory is as the image has it
            self._loaded = None
        self._inbox.clear()

    def reset(self, seconds: float) -> None:
        """Lose what is in RAM, and be deaf for so long."""
        self.stop()
        self._boots = self._loop.call_later(seconds, self.start)

    def hear(self, data: bytes) -> None:
        """Bytes arrive; a board without power hears nothing."""
        if self._loaded is not None:
            self._inbox += data
            self._turn_at(self._busy_until)

    def hang(self, seconds: float) -> None:
        """Do nothing for so long; what arrives waits."""
        self._hung_until = self._loop.time() + seconds

    def wake(self) -> None:
        """A person looks after it: it has power, neither hangs nor dawdles, and its firmware is the right one."""
        self.slowness, self.forge = 1.0, lambda data: data
        if self._loaded is None:
            self.start()
        self._hung_until = self._busy_until = 0.0
        self._turn_at(0.0)

    def _turn_at(self, at: float) -> None:
        if self._work is not None:
            self._work.cancel()
        self._work = self._loop.call_at(max(at, self._loop.time(), self._hung_until), self._turn)

    def _turn(self) -> None:
        """Run until it waits or has trained one sample, which takes its time."""
        self._work = None
        now = self._loop.time()
        if now < self._hung_until:
            self._turn_at(now)
            return
        assert self._loaded is not None
        data, rate = bytes(self._inbox), self.rate  # what it sends leaves before it changes its rate
        self._inbox.clear()
        milliseconds = round((now - self._started) * 1000 + CLOCK_AT_BOOT) & 0xFFFFFFFF
        trained = self._loaded.memory_run(milliseconds, data, len(data))
        count = self._loaded.memory_pull(self._out, _OUT_BYTES)
        if trained:
            self._busy_until = now + self.plan.step_seconds * self.slowness
            self._turn_at(self._busy_until)
        elif data and self._loaded.memory_rate():
            self._turn_at(now + TRIAL_SECONDS)
        if count:
            self.write(self.forge(ctypes.string_at(self._out, count)), rate)
        if trained:
            self.steps += 1
            self.on_step(self.steps)
