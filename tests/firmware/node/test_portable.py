"""What the node asks of a chip: no allocator, no libc beyond string.h, and the RAM that plans count on."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import boards
from benchmarks.workloads import EXAMPLE, TIERS, with_kernel
from codegen.header import model_header
from codegen.model_file import load_graph
from codegen.planner import Training, best, plan
from codegen.protocol_header import protocol_header
from codegen.tiers import Tier, tiers_from
from tests.firmware.conftest import BARE, CompileProgram, undefined
from tests.firmware.node.harness import FIRMWARE, KEYED, NODE, Build, small_graph

AVR = ("-mmcu=atmega2560", "-Os")
ARM = ("-mcpu=cortex-m4", "-mthumb", "-mfloat-abi=hard", "-mfpu=fpv4-sp-d16", "-O2")
HOST = ("-O2", "-fno-pie", "-fno-stack-protector", "-U_FORTIFY_SOURCE")
TARGETS = {"gcc": HOST, "avr-gcc": AVR, "arm-none-eabi-gcc": ARM, **BARE}
STRING_H = {"memcpy", "memmove", "memset", "memcmp", "memcpy_P"}  # the last one: from AVR's flash
PARTS = tuple(sorted(path for part in ("node", "link") for path in (FIRMWARE / part).glob("*.c")))


def symbols(compiler: str, objects: Path, *options: str) -> list[list[str]]:
    """Return the fields of each line of nm."""
    nm = compiler.replace("gcc", "nm")
    done = subprocess.run([nm, *options, str(objects)], capture_output=True, text=True, check=True)
    return [line.split() for line in done.stdout.splitlines()]


@pytest.mark.parametrize("way", ["accumulating", "fixed"])
@pytest.mark.parametrize("compiler", TARGETS)
def test_no_allocator_is_linked(
    compiler: str, way: str, builds: dict[str, Build], compile_program: CompileProgram
) -> None:
    flags = (*TARGETS[compiler], *builds[way].flags, "-r", "-nostdlib")
    wanted = undefined(compiler, compile_program(NODE, flags, compiler))
    assert {symbol for symbol in wanted if symbol.startswith("port_")} == {
        "port_baud_supported", "port_boot_id", "port_identity", "port_milliseconds", "port_read", "port_sample",
        "port_sample_count", "port_set_baud", "port_write",
    }  # fmt: skip
    assert {symbol for symbol in wanted if not symbol.startswith("port_")} <= STRING_H


@pytest.mark.parametrize("kernel", boards.KERNELS)
@pytest.mark.parametrize("tier", TIERS)
@pytest.mark.parametrize("compiler", BARE)
def test_every_tier_of_the_example_compiles(
    compiler: str, tier: Tier, kernel: str, compile_program: CompileProgram, tmp_path: Path
) -> None:
    graph, _ = load_graph(EXAMPLE, None, 1)
    board = with_kernel(boards.load("esp32-c3-devkitm-1"), kernel)
    planned = plan(board, graph, TIERS, tier, Training())
    nothing = [np.zeros(tensor.shape, np.float32) for tensor in graph.tensors]
    (tmp_path / "model.h").write_text(model_header(planned, nothing))
    (tmp_path / "protocol.h").write_text(protocol_header())
    flags = (*TARGETS[compiler], *Build(planned, tmp_path, board.training.mtu, board.training.window).flags)
    compile_program(PARTS, (*flags, "-r", "-nostdlib"), compiler)


def static_ram(
    compiler: str, built: Build, sources: Sequence[Path], compile_program: CompileProgram, more: Sequence[str] = ()
) -> int:
    """Bytes of variables, without the model's arrays; on AVR constants are in RAM too."""
    flags = (*TARGETS[compiler], *built.flags, *more, "-r", "-nostdlib")
    kinds = "bdBDrR" if compiler == "avr-gcc" else "bdBD"
    lines = symbols(compiler, compile_program(sources, flags, compiler), "-S", "-t", "d")
    sizes = [(fields[3], int(fields[1])) for fields in lines if len(fields) == 4 and fields[2] in kinds]
    return sum(size for symbol, size in sizes if not symbol.startswith("model_"))


@pytest.mark.parametrize("compiler", ["avr-gcc", "arm-none-eabi-gcc"])
def test_static_ram_grows_with_the_link_as_planned(
    compiler: str, builds: dict[str, Build], compile_program: CompileProgram
) -> None:
    def planned(mtu: int, window: int) -> int:
        board = boards.load("nrf52_dk")
        board = replace(board, training=replace(board.training, mtu=mtu, window=window))
        return best(board, small_graph(), tiers_from({"full": 1.0}), Training()).ram_parts["link"]

    def actual(mtu: int, window: int) -> int:
        built = replace(builds["fused"], mtu=mtu, window=window)
        return static_ram(compiler, built, PARTS, compile_program)

    padding = 0 if compiler == "avr-gcc" else 3  # an array of words ends at a word
    assert abs(actual(248, 16) - actual(74, 4) - planned(248, 16) + planned(74, 4)) <= padding


@pytest.mark.parametrize("compiler", ["avr-gcc", "arm-none-eabi-gcc"])
@pytest.mark.parametrize("mtu", [74, 248])
def test_a_key_takes_the_ram_that_is_planned(
    compiler: str, mtu: int, builds: dict[str, Build], compile_program: CompileProgram
) -> None:
    built = replace(builds["fused"], mtu=mtu)
    board = replace(built.plan.board, training=replace(built.plan.board.training, mtu=mtu))
    graph, training = small_graph(), Training(batch=1, encoding="weights", keyed=frozenset({board.id}))
    planned = best(board, graph, tiers_from({"full": 1.0, "half": 0.5}), training).ram_parts["key"]
    plain, keyed = (static_ram(compiler, built, PARTS, compile_program, flags) for flags in ((), (KEYED,)))
    assert keyed - plain == pytest.approx(planned, abs=2)  # an ARM pads to whole words
