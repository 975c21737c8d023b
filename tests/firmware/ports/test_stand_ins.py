"""The Arduino port compiles for every core that is not packaged, against declarations of what it uses of that core."""

from __future__ import annotations

import pytest

from tests.firmware.conftest import CompileProgram
from tests.firmware.ports.cores import CORES, FREESTANDING, PORT, flags_for

CORTEX_M4 = ("arm-none-eabi-g++", ("-mcpu=cortex-m4", "-mthumb", "-O2"))
RV32IMC = ("riscv64-unknown-elf-g++", ("-march=rv32imc", "-mabi=ilp32", "-O2", *FREESTANDING))


@pytest.mark.parametrize("core", CORES)
def test_compiles_without_a_warning(core: str, compile_program: CompileProgram) -> None:
    compiler, flags = RV32IMC if core.startswith("esp32") else CORTEX_M4
    compile_program(PORT, (*flags, *flags_for(core), "-r", "-nostdlib"), compiler)
