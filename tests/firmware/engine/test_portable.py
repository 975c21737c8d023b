"""The same sources compile for the chips, need nothing of a C library, and touch no memory but their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.firmware.conftest import BARE, FIRMWARE, CompileProgram, undefined
from tests.firmware.engine.conftest import INCLUDE, SOURCES

ATMEGA = ("avr-gcc", ("-mmcu=atmega2560", "-Os"))
CORTEX_M4F = ("arm-none-eabi-gcc", ("-O2", "-mcpu=cortex-m4", "-mfpu=fpv4-sp-d16", "-mfloat-abi=hard"))


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.stem)
@pytest.mark.parametrize(
    "compiler, flags",
    [
        ATMEGA,
        (ATMEGA[0], (*ATMEGA[1], "-DENGINE_SAMPLES_IN_FLASH")),
        CORTEX_M4F,
        ("gcc", ("-O3", "-march=native")),
        *BARE.items(),
    ],
    ids=["atmega2560", "atmega2560-flash", "cortex-m4f", "host", "rv32imc", "xtensa"],
)
def test_compiles_without_a_warning(
    compile_program: CompileProgram, source: Path, compiler: str, flags: tuple[str, ...]
) -> None:
    compile_program([source], (*flags, "-c"), compiler)


@pytest.mark.parametrize("compiler, flags", [("gcc", ("-O2",)), CORTEX_M4F, *BARE.items()])
def test_needs_only_memory_functions(compile_program: CompileProgram, compiler: str, flags: tuple[str, ...]) -> None:
    """No allocator, no mathematics library, no printf."""
    needed = set()
    for source in SOURCES:
        needed |= undefined(compiler, compile_program([source], (*flags, "-c"), compiler))
    own = {symbol for symbol in needed if symbol.startswith(("engine_", "fixed_"))}
    assert needed - own <= {"memcpy", "memset", "memmove", "_GLOBAL_OFFSET_TABLE_"}


@pytest.mark.parametrize("block, tile, sse", [(0, 0, 0), (16, 0, 0), (16, 8, 0), (16, 0, 1)])
def test_memory_is_respected(compile_program: CompileProgram, block: int, tile: int, sse: int) -> None:
    sanitizers = "-fsanitize=address,undefined,float-cast-overflow"
    forms = (f"-DENGINE_BLOCK={block}", f"-DENGINE_TILE={tile}", f"-DENGINE_SSE={sse}")
    flags = (sanitizers, "-fno-sanitize-recover=all", "-g", *forms, INCLUDE, "-shared", "-fPIC")
    library = compile_program(SOURCES, flags)
    preload = subprocess.check_output(["gcc", "-print-file-name=libasan.so"], text=True).strip()
    environment = os.environ | {"LD_PRELOAD": preload, "ASAN_OPTIONS": "detect_leaks=0", "PYTHONMALLOC": "malloc"}
    done = subprocess.run(
        [sys.executable, "-m", "tests.firmware.engine.sanitized", str(library)],
        cwd=FIRMWARE.parent, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
