"""Boards that are not there, but run the very image that would be flashed: the chip is emulated, not the firmware.

An emulator is a program that announces a port on its first line, as a native twin does, and ends on SIGTERM.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from boards import Board
from coordinator.errors import ToolchainError

ATMEGA = Path(__file__).with_name("atmega.c")
FLAGS = ("-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror")


@dataclass(frozen=True)
class Measured:
    """What an emulated AVR says when it ends."""

    cycles: int
    awake: int  # cycles that it did not sleep
    stack: int  # bytes, of the deepest use
    untouched: int  # bytes between that and the data
    overruns: int  # bytes lost because the UART's two had not been read


def build_atmega(folder: Path) -> Path:
    """Compile the emulator of AVR boards into `folder` unless it is there; return its path. Raises ToolchainError."""
    program = folder / "atmega"
    if program.exists() and program.stat().st_mtime > ATMEGA.stat().st_mtime:
        return program
    if not Path("/usr/include/simavr/sim_avr.h").exists() or shutil.which("gcc") is None:
        needed = "apt-get install gcc libc6-dev libsimavr-dev"
        raise ToolchainError(f"gcc or libsimavr is missing; expected them to emulate an AVR: {needed}")
    folder.mkdir(parents=True, exist_ok=True)
    command = ["gcc", *FLAGS, str(ATMEGA), "-o", str(program), "-lsimavr"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ToolchainError(f"the emulator of AVR boards could not be built:\n{done.stderr.strip()}")
    return program


def atmega_command(program: Path, image: Path, board: Board, uid: str) -> list[str]:
    """Return what starts `image`, an ELF file, as the node `uid`: 16 hexadecimal digits."""
    return [str(program), str(image), board.mcu, str(board.frequency_hz), "--uid", uid]


def read_measured(line: str) -> Measured:
    """Return what the last line of its output says."""
    return Measured(**json.loads(line))
