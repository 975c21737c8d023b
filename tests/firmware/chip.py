"""The port of chip_port.c from outside: compiled for rv32imc and run in Unicorn, or for this machine. And a wire."""

from __future__ import annotations

import asyncio
import ctypes
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from benchmarks.bare import STACK, STOP, machine_for
from benchmarks.images import RV32IMC, link, load_image
from tests.firmware.conftest import CompileShared
from tests.firmware.node.harness import NODE, Build

ROOM = 8192  # as in chip_port.c
SOURCES = (*NODE, Path(__file__).with_name("chip_port.c"))
COMMON = sorted((NODE[0].parents[1] / "ports" / "common").glob("*.c"))


class Chip(Protocol):
    """Memory and functions of a running image."""

    def call(self, function: str) -> None: ...
    def read(self, symbol: str, count: int) -> bytes: ...
    def write(self, symbol: str, data: bytes) -> None: ...


class EmulatedChip:
    """An ESP32-C3's core, its image built in `folder` for the headers of `built`. Raises ToolError."""

    def __init__(self, built: Build, defines: Sequence[str], folder: Path) -> None:
        entry = ("-Wl,--entry=chip_start", "-Wl,--undefined=chip_poll", f"-I{built.include}")
        target = replace(RV32IMC, flags=(*RV32IMC.flags, *entry, *defines))
        self.image = link((*SOURCES, *COMMON, *RV32IMC.sources), target, folder)
        self._machine = machine_for(self.image)
        for address, contents in load_image(self.image, folder):
            self._machine.mem_write(address, contents)
        self._registers: Any = import_module("unicorn.riscv_const")

    def call(self, function: str) -> None:
        self._machine.reg_write(self._registers.UC_RISCV_REG_SP, STACK)
        self._machine.reg_write(self._registers.UC_RISCV_REG_RA, STOP)
        self._machine.emu_start(self.image.symbols[function], STOP)

    def read(self, symbol: str, count: int) -> bytes:
        return bytes(self._machine.mem_read(self.image.symbols[symbol], count))

    def write(self, symbol: str, data: bytes) -> None:
        self._machine.mem_write(self.image.symbols[symbol], data)


class NativeChip:
    """The same for this machine: the twin that the chip is held to."""

    def __init__(self, built: Build, defines: Sequence[str], compile_shared: CompileShared) -> None:
        self._library = compile_shared((*SOURCES, *COMMON), ("-O2", f"-I{built.include}", *defines))

    def call(self, function: str) -> None:
        getattr(self._library, function)()

    def read(self, symbol: str, count: int) -> bytes:
        return bytes((ctypes.c_char * count).in_dll(self._library, symbol))

    def write(self, symbol: str, data: bytes) -> None:
        ctypes.memmove((ctypes.c_char * len(data)).in_dll(self._library, symbol), data, len(data))


class Wire:
    """A session's port whose other end is a chip, turned once a millisecond of the event loop's time."""

    name = "chip"

    def __init__(self, chip: Chip) -> None:
        self._chip, self._coming, self._open = chip, bytearray(), True
        chip.call("chip_start")

    def start(self, on_data: Callable[[bytes], None], on_lost: Callable[[str], None]) -> None:  # noqa: ARG002
        self._on_data, self._loop = on_data, asyncio.get_running_loop()
        self._turn()

    def write(self, data: bytes) -> None:
        self._coming += data

    def set_baud(self, baud: int) -> None:
        raise AssertionError(f"this port has one rate, not {baud}")

    def close(self) -> None:
        self._open = False

    def _number(self, symbol: str) -> int:
        return int.from_bytes(self._chip.read(symbol, 4), "little")

    def _turn(self) -> None:
        if not self._open:
            return
        self._chip.write("chip_ms", int(self._loop.time() * 1000).to_bytes(4, "little"))
        if self._coming and self._number("chip_in_at") == self._number("chip_in_count"):
            taken = bytes(self._coming[:ROOM])
            del self._coming[:ROOM]
            self._chip.write("chip_in", taken)
            self._chip.write("chip_in_at", bytes(4))
            self._chip.write("chip_in_count", len(taken).to_bytes(4, "little"))
        self._chip.call("chip_poll")
        self._loop.call_later(0.001, self._turn)
        if count := self._number("chip_out_count"):
            sent = self._chip.read("chip_out", count)
            self._chip.write("chip_out_count", bytes(4))
            self._on_data(sent)
