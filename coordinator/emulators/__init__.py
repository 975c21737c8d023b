"""Boards that are not there, but run the very image that would be flashed: the chip is emulated, not the firmware.

An emulator is a program that announces a port on its first line, as a native twin does, and ends on SIGTERM. It is
compiled when it is first asked for.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from boards import PROJECT_ROOT, Board
from coordinator.errors import ToolchainError

SOURCES = Path(__file__).parent
BUILT = PROJECT_ROOT / ".tierfed" / "emulators"
FLAGS = ("-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror")
PROGRAMS = {"simavr": "atmega"}  # what `emulation` in a board file says: the program that it means


@dataclass(frozen=True)
class Measured:
    """What an emulator says on SIGUSR1, and when it ends."""

    cycles: int
    awake: int  # cycles that it did not sleep
    stack: int  # bytes, of the deepest use
    untouched: int  # bytes between that and the data
    overruns: int  # bytes lost because those before had not been read


def command(kind: str, image: Path, board: Board, uid: str, pace: bool = False) -> list[str]:
    """Return what starts `image`, an ELF file, as the node `uid`: 16 hexadecimal digits.

    `pace` keeps emulated time from running ahead of the wall's. Raises ToolchainError.
    """
    return [str(build(kind)), str(image), board.mcu, str(board.frequency_hz), "--uid", uid, *["--pace"] * pace]


def build(kind: str) -> Path:
    """Compile an emulator unless it is there; return its path. Raises ToolchainError."""
    name = PROGRAMS[kind]
    arguments = [*FLAGS, *_needed()]
    sources = [SOURCES / f"{name}.c", SOURCES / "wire.c", SOURCES / "wire.h"]
    told = b"\0".join([*(source.read_bytes() for source in sources), *(text.encode() for text in arguments)])
    program = BUILT / hashlib.sha256(told).hexdigest()[:16] / name
    if program.exists():
        return program
    program.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=program.parent) as folder:  # others may be at it, too
        made = Path(folder) / name
        compiler = ["gcc", *map(str, sources[:2]), *arguments, "-o", str(made)]
        done = subprocess.run(compiler, capture_output=True, text=True, check=False)
        if done.returncode:
            tried = " ".join(compiler)
            raise ToolchainError(f"the emulator {name} could not be built; `{tried}` said:\n{done.stderr.strip()}")
        made.replace(program)
    return program


def _needed() -> list[str]:
    """Return the compiler's arguments for the library that does the work. Raises ToolchainError."""
    install = "apt-get install gcc libc6-dev libsimavr-dev"
    if shutil.which("gcc") is None:
        raise ToolchainError(f"gcc is missing; expected it to compile the emulator: {install}")
    if not Path("/usr/include/simavr/sim_avr.h").exists():
        raise ToolchainError(f"libsimavr's headers are missing; expected them to emulate an AVR: {install}")
    return ["-lsimavr"]


def read_measured(line: str) -> Measured:
    """Return what a line of its output says."""
    return Measured(**json.loads(line))
