"""Compile the firmware's C for tests: the flags are the build's own, and every warning is an error."""

from __future__ import annotations

import ctypes
import hashlib
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import pytest

FIRMWARE = Path(__file__).resolve().parents[2] / "firmware"
WARNINGS = ("-ffp-contract=off", "-Wall", "-Wextra", "-Wconversion", "-Werror")
STRICT = ("-std=c99", *WARNINGS)
STRICT_CXX = ("-std=gnu++11", *WARNINGS)  # the standard that Arduino's oldest core asks for
FREESTANDING = ("-ffreestanding", f"-I{FIRMWARE.parent / 'benchmarks' / 'targets' / 'freestanding'}")
# Compilers that come without a C library: the ESP32-C3's instructions, and the nearest to an ESP32's that is packaged
BARE = {
    "riscv64-unknown-elf-gcc": ("-O2", "-march=rv32imc", "-mabi=ilp32", *FREESTANDING),
    "xtensa-lx106-elf-gcc": ("-O2", "-mlongcalls", *FREESTANDING),
}
PACKAGES = {
    "gcc": "gcc",
    "avr-gcc": "gcc-avr avr-libc",
    "avr-g++": "gcc-avr avr-libc",
    "arm-none-eabi-gcc": "gcc-arm-none-eabi libnewlib-arm-none-eabi",
    "arm-none-eabi-g++": "gcc-arm-none-eabi libnewlib-arm-none-eabi",
    "riscv64-unknown-elf-gcc": "gcc-riscv64-unknown-elf",
    "riscv64-unknown-elf-g++": "gcc-riscv64-unknown-elf",
    "xtensa-lx106-elf-gcc": "gcc-xtensa-lx106",
}


class CompileShared(Protocol):
    def __call__(self, sources: Sequence[Path], flags: Sequence[str] = ("-O2",)) -> ctypes.CDLL:
        """Compile `sources` with the host's gcc into a shared library and load it; the same request loads it once."""


class CompileProgram(Protocol):
    def __call__(self, sources: Sequence[Path], flags: Sequence[str] = ("-O2",), compiler: str = "gcc") -> Path:
        """Compile `sources` into a program, or what `flags` say instead (-c, -shared); return its path."""


def require(tool: str) -> str:
    """Return the path of a compiler, or fail with the command that installs it."""
    path = shutil.which(tool)
    if path is None:
        pytest.fail(f"{tool} is missing: apt-get install {PACKAGES.get(tool, tool)}", pytrace=False)
    return path


def undefined(compiler: str, compiled: Path) -> set[str]:
    """Return the symbols that an object asks for, but for those that begin with __: the compiler's own arithmetic."""
    nm = require(re.sub("g(cc|[+][+])$", "nm", compiler))
    listing = subprocess.run([nm, "-u", str(compiled)], capture_output=True, text=True, check=True).stdout
    return {name for line in listing.splitlines() if not (name := line.split()[-1]).startswith("__")}


@pytest.fixture(scope="session")
def compile_program(tmp_path_factory: pytest.TempPathFactory) -> CompileProgram:
    folder = tmp_path_factory.mktemp("compiled")

    def compile_once(sources: Sequence[Path], flags: Sequence[str] = ("-O2",), compiler: str = "gcc") -> Path:
        request = "\0".join([compiler, *flags, *map(str, sources)])
        target = folder / hashlib.sha256(request.encode()).hexdigest()[:16]
        if not target.exists():
            strict = STRICT_CXX if compiler.endswith("++") else STRICT
            command = [require(compiler), *strict, *flags, *map(str, sources), "-o", str(target)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode != 0:
                pytest.fail(f"{' '.join(command)}\n{done.stderr}", pytrace=False)
        return target

    return compile_once


@pytest.fixture(scope="session")
def compile_shared(compile_program: CompileProgram) -> CompileShared:
    def load(sources: Sequence[Path], flags: Sequence[str] = ("-O2",)) -> ctypes.CDLL:
        return ctypes.CDLL(str(compile_program(sources, (*flags, "-shared", "-fPIC"))))

    return load
