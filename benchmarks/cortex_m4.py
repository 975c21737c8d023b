"""Cycles of a Cortex-M4F, estimated from its Technical Reference Manual's tables of instruction timings.

Assumed where the manual leaves it open: memory without wait states; a taken branch refills the pipeline in two cycles
(the manual says one to three); a division of integers takes seven (two to twelve). A single load or floating-point
store takes two cycles, or one straight after another load or store, because their phases overlap; an integer store one.
A floating-point result that the very next instruction reads takes one more. An instruction that its condition leaves
out counts as if it ran. Flash accelerators and contention on the bus are not in it: an estimate, no measurement.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from benchmarks.listing import Instruction, Listing

REFILL = 2
LONG = {
    "vdiv": 14, "vsqrt": 14, "vmla": 3, "vmls": 3, "vnmla": 3, "vnmls": 3, "vfma": 3, "vfms": 3, "vfnma": 3, "vfnms": 3,
    "mla": 2, "mls": 2, "udiv": 7, "sdiv": 7, "tbb": 2, "tbh": 2, "ldrd": 3, "strd": 3,
}  # fmt: skip
SEVERAL = ("ldm", "stm", "push", "pop", "vldm", "vstm", "vpush", "vpop")  # one cycle, and one a register
SINGLE = ("ldr", "str", "vldr", "vstr")
ARITHMETIC = ("vadd", "vsub", "vmul", "vnmul", "vdiv", "vsqrt", "vmla", "vmls", "vfma", "vfms", "vcvt", "vneg", "vabs")
READS_FIRST = ("vstr", "vstm", "vcmp", "vmla", "vmls", "vfma", "vfms")  # their first operand is read as well
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
    if name.startswith(SINGLE) and not name.startswith("str"):
        return (1 if before is not None and before.name.startswith(SINGLE) else 2) + waits
    return 1 + waits


def _reads_result(instruction: Instruction, before: Instruction) -> bool:
    if not before.name.startswith(ARITHMETIC):
        return False
    result = before.operands.split(",")[0].strip()
    operands = [operand.strip(" {}") for operand in instruction.operands.split(",")]
    return result in operands[0 if instruction.name.startswith(READS_FIRST) else 1 :]


def _listed(operands: str) -> int:
    """Count the words in braces."""
    inside = operands.partition("{")[2].partition("}")[0]
    spans = (REGISTERS.fullmatch(item.strip()) for item in inside.split(","))
    count = sum(int(span[3]) - int(span[2]) + 1 if span else 1 for span in spans)
    return 2 * count if inside.startswith("d") else count
