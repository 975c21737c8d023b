"""The link compiles for every board without a warning and calls nothing but string.h's."""

from __future__ import annotations

import subprocess

import pytest

from tests.firmware.conftest import BARE, CompileProgram, require, undefined
from tests.firmware.link.clink import SOURCES

TARGETS = {
    "gcc": ("-O3", "-march=native"),
    "avr-gcc": ("-Os", "-mmcu=atmega2560"),
    "arm-none-eabi-gcc": ("-O2", "-mcpu=cortex-m4", "-mthumb"),
    **BARE,
}


@pytest.mark.parametrize(("mtu", "window"), [(74, 16), (248, 32)])
@pytest.mark.parametrize("compiler", TARGETS)
def test_needs_nothing(compile_program: CompileProgram, compiler: str, mtu: int, window: int) -> None:
    for source in SOURCES:
        flags = (*TARGETS[compiler], f"-DLINK_MTU={mtu}", f"-DLINK_WINDOW={window}", "-c", "-fno-pic")
        compiled = compile_program((source,), flags, compiler)
        assert undefined(compiler, compiled) <= {"memset", "memcpy", "memcpy_P", "link_crc16", "blake2s_rounds"}


@pytest.mark.parametrize("wrong", ["-DLINK_MTU=71", "-DLINK_MTU=249", "-DLINK_WINDOW=0", "-DLINK_WINDOW=33"])
def test_impossible_sizes_do_not_compile(wrong: str) -> None:
    frame = next(source for source in SOURCES if source.name == "frame.c")
    command = [require("gcc"), "-fsyntax-only", wrong, str(frame)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "must be" in done.stderr
