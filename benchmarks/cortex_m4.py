"""Cycles of a Cortex-M4F, estimated from Arm's Cortex-M4 Processor Technical Reference Manual (100166, once DDI 0439).

From its tables of processor and of FPU instructions, for memory without wait states, and from its section on load and
store timings: a load takes two cycles, one straight after a load whose result is not its address; nothing overlaps with
a store; an address that the instruction before has computed costs a cycle more.

Approximated, where the manual gives a range or is silent: a taken branch refills the pipeline in two cycles (one to
three); a division of integers takes seven (two to twelve); floating-point loads and stores overlap as the others do. A
sum, product or conversion of floats that the very next instruction reads takes one cycle more, as GCC's description of
the pipeline has it. An instruction that its condition leaves out counts as if it ran; nothing completes out of order.
Flash accelerators and contention on the bus are not in it: an estimate, no measurement.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from benchmarks.listing import Instruction, Listing

REFILL = 2
LONG = {
    "vdiv": 14, "vsqrt": 14, "vmla": 3, "vmls": 3, "vnmla": 3, "vnmls": 3, "vfma": 3, "vfms": 3, "vfnma": 3, "vfnms": 3,
    "udiv": 7, "sdiv": 7, "tbb": 2, "tbh": 2, "ldrd": 3, "strd": 3,
}  # fmt: skip
SEVERAL = ("ldm", "stm", "push", "pop", "vldm", "vstm", "vpush", "vpop")  # one cycle, and one a register
LOADS, STORES = ("ldr", "vldr"), ("str", "vstr")
ARITHMETIC = ("vadd", "vsub", "vmul", "vnmul", "vdiv", "vsqrt", "vmla", "vmls", "vfma", "vfms", "vcvt")
READS_FIRST = ("vstr", "vstm", "vcmp", "vmla", "vmls", "vfma", "vfms")  # their first operand is read as well
NO_RESULT = (*SEVERAL, *LOADS, *STORES, "v", "cmp", "cmn", "tst", "teq")  # that is computed in a core register
CORE = re.compile(r"\b(?:r\d+|sl|fp|ip|sp|lr)\b")
REGISTERS = re.compile(r"([a-z]+)(\d+)-[a-z]+(\d+)")


def cycles(listing: Listing, ways: Counter[tuple[int, int, int]]) -> int:
    """Return the estimate for code whose blocks (start, bytes, where it went next) ran so many times."""
    return sum(
        times * (block_cycles(listing.block(start, size)) + (REFILL if after != start + size else 0))
        for (start, size, after), times in ways.items()
    )


def block_cycles(block: Sequence[Instruction]) -> int:
    """Return the cycles of instructions that run one after the other, without the refill after a taken branch."""
    return sum(map(_cycles, block, (None, *block[:-1])))


def _cycles(instruction: Instruction, before: Instruction | None) -> int:
    name = instruction.name
    waits = 1 if before is not None and _reads_result(instruction, before) else 0
    if name.startswith(SEVERAL):
        return 1 + _listed(instruction.operands) + waits
    for start, count in LONG.items():
        if name.startswith(start):
            return count + waits
    if name.startswith(LOADS + STORES):
        return _access(instruction, before) + waits
    if name.startswith("vmov") and CORE.search(instruction.operands):
        return 2 + waits
    return 1 + waits


def _access(instruction: Instruction, before: Instruction | None) -> int:
    """Return the cycles of one load or store."""
    name, operands = instruction.name, instruction.operands
    if name.startswith("v") and operands.startswith("d"):
        return 3
    offset = operands.partition("[")[2].partition("]")[0].partition(",")[2]
    if name.startswith("str") and not CORE.search(offset):
        return 1
    if before is None or not before.name.startswith(LOADS) or before.name.startswith("ldrd"):
        return 2
    return 2 if _result(before) in _address(instruction) else 1


def _address(instruction: Instruction) -> list[str]:
    """Return the core registers that a load or store makes its address of."""
    if instruction.name.startswith(("push", "pop", "vpush", "vpop")):
        return ["sp"]
    if instruction.name.startswith(SEVERAL):
        return CORE.findall(instruction.operands.partition("{")[0])
    return CORE.findall(instruction.operands.partition("[")[2].partition("]")[0])


def _result(instruction: Instruction) -> str:
    return instruction.operands.partition(",")[0].strip()


def _reads_result(instruction: Instruction, before: Instruction) -> bool:
    """Say whether it waits for a result: an address for any computed one, anything else for a float's."""
    if not before.name.startswith(ARITHMETIC):
        return not before.name.startswith(NO_RESULT) and _result(before) in _address(instruction)
    operands = [operand.strip(" {}") for operand in instruction.operands.split(",")]
    return _result(before) in operands[0 if instruction.name.startswith(READS_FIRST) else 1 :]


def _listed(operands: str) -> int:
    """Count the words in braces."""
    inside = operands.partition("{")[2].partition("}")[0]
    spans = (REGISTERS.fullmatch(item.strip()) for item in inside.split(","))
    count = sum(int(span[3]) - int(span[2]) + 1 if span else 1 for span in spans)
    return 2 * count if inside.startswith("d") else count
