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
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

from boards import PROJECT_ROOT, Board
from coordinator.errors import ToolchainError

SOURCES = Path(__file__).parent
BUILT = PROJECT_ROOT / ".tierfed" / "emulators"
FLAGS = ("-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror")
PROGRAMS = {"simavr": "atmega", "unicorn": "nrf52"}  # by what `emulation` in a board file says
SIMAVR = Path("/usr/include/simavr/sim_avr.h")


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
    chip = [board.mcu, str(board.frequency_hz)] if kind == "simavr" else [board.mcu]
    return [str(build(kind)), str(image), *chip, "--uid", uid, *["--pace"] * pace]


def build(kind: str) -> Path:
    """Compile an emulator unless it is there; return its path. Raises ToolchainError."""
    name, options = PROGRAMS[kind], [*FLAGS, *_library(kind)]
    sources = [path for which in (name, "wire") for path in sorted(SOURCES.glob(f"{which}*.[ch]"))]
    told = b"\0".join([*(option.encode() for option in options), *(path.read_bytes() for path in sources)])
    program = BUILT / hashlib.sha256(told).hexdigest()[:16] / name
    if program.exists():
        return program
    program.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=program.parent) as folder:  # others may be at it, too
        made = Path(folder) / name
        compiler = ["gcc", *(str(path) for path in sources if path.suffix == ".c"), *options, "-o", str(made)]
        done = subprocess.run(compiler, capture_output=True, text=True, check=False)
        if done.returncode:
            said = done.stderr.strip()
            raise ToolchainError(f"the emulator {name} could not be built; `{' '.join(compiler)}` said:\n{said}")
        made.replace(program)
    return program


def _library(kind: str) -> list[str]:
    """Return the compiler's options for the library that does the work. Raises ToolchainError."""
    name, install = PROGRAMS[kind], "apt-get install gcc libc6-dev" + " libsimavr-dev" * (kind == "simavr")
    if shutil.which("gcc") is None:
        raise ToolchainError(f"gcc is missing; expected it for the emulator {name}: {install}")
    if kind == "simavr":
        if not SIMAVR.exists():
            raise ToolchainError(f"{SIMAVR} is missing; expected it for the emulator {name}: {install}")
        return ["-lsimavr"]
    found = find_spec("unicorn")
    folder = Path(found.origin).parent if found and found.origin else None
    library = next((folder / "lib").glob("libunicorn.so*"), None) if folder else None
    if folder is None or library is None or not (folder / "include").is_dir():
        pip = "pip install 'unicorn>=2.1,<3'"
        raise ToolchainError(f"PyPI's unicorn is missing, or its library; expected it for the emulator {name}: {pip}")
    return ["-isystem", str(folder / "include"), str(library), f"-Wl,-rpath,{library.parent}"]


def read_measured(line: str) -> Measured:
    """Return what a line of its output says."""
    return Measured(**json.loads(line))
