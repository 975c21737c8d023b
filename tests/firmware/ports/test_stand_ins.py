"""The Arduino port compiles for every core that is not packaged, against declarations of what it uses of that core."""

from __future__ import annotations

import pytest

from tests.firmware.conftest import BARE, CompileProgram
from tests.firmware.ports.cores import CORES, PORT, RATES, flags_for

CORTEX_M4 = ("arm-none-eabi-g++", ("-mcpu=cortex-m4", "-mthumb", "-O2"))
RV32IMC = ("riscv64-unknown-elf-g++", BARE["riscv64-unknown-elf-gcc"])


@pytest.mark.parametrize("core", CORES)
def test_compiles_without_a_warning(core: str, compile_program: CompileProgram) -> None:
    compiler, flags = RV32IMC if core.startswith("esp32") else CORTEX_M4
    link = (
        "-DLINK_MTU=248",
        "-DLINK_WINDOW=16",
        *(f"-DLINK_BAUD{name}={rate}" for name, rate in zip(("", "_MAX"), RATES, strict=True)),
    )
    compile_program(PORT, (*flags, *flags_for(core), *link, "-r", "-nostdlib"), compiler)
