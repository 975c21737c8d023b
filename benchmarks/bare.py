"""Steps on a core without a chip around it, under Unicorn: every basic block is seen, so every instruction counts."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.cortex_m4 import cycles
from benchmarks.images import CORTEX_M4F, PAINT, Image, Run, ToolError, disassembly, load_image
from benchmarks.listing import Listing, read_listing
from benchmarks.workloads import Workload

if TYPE_CHECKING:
    import numpy as np

FLASH, RAM, SIZE = 0x00010000, 0x20000000, 2 << 20  # as in targets/bare.ld
STOP = 0x8000  # where a step returns to: mapped, empty, never run
STACK = RAM + SIZE - 16


@dataclass
class Trace:
    """The basic blocks of a step in the order they ran, 64 bits each: where it starts, and its bytes."""

    blocks: array[int] = field(default_factory=lambda: array("Q"))

    def record(self, _machine: Any, address: int, size: int, _data: Any) -> None:
        """Unicorn's block hook."""
        self.blocks.append(address << 16 | size)

    def ways(self) -> Counter[tuple[int, int, int]]:
        """Count each (start, bytes, where it went next); 0 after the last one."""
        import numpy as np

        blocks = np.frombuffer(self.blocks, np.uint64)
        following = np.append(blocks[1:] >> np.uint64(16), np.uint64(0))
        pairs: np.ndarray = np.stack([blocks, following], axis=1)
        found, counts = np.unique(pairs, axis=0, return_counts=True)
        return Counter(
            {
                (int(block) >> 16, int(block) & 0xFFFF, int(after)): int(count)
                for (block, after), count in zip(found, counts, strict=True)
            }
        )


def run(image: Image, workload: Workload, steps: Sequence[int], folder: Path, count: bool = True) -> Run:
    """Take a step with each of the examples that `steps` names; `count` says whether the last is counted.

    Raises ToolError.
    """
    machine = machine_for(image)
    for address, contents in load_image(image, folder):
        machine.mem_write(address, contents)
    weights = image.symbols["model_weights"]
    machine.mem_write(weights, workload.packed)
    floor = image.symbols["image_end"]
    machine.mem_write(floor, bytes([PAINT]) * (STACK - floor))
    trace = Trace()
    if count:  # from the start: code that ran unseen would stay unseen
        machine.hook_add(import_module("unicorn").UC_HOOK_BLOCK, trace.record)
    for step in steps:
        del trace.blocks[:]
        call_step(machine, image, step)
    stack = STACK - floor - _untouched(machine.mem_read(floor, STACK - floor))
    after = bytes(machine.mem_read(weights, len(workload.packed)))
    if not count:
        return Run(after, stack)
    listing, ways = read_listing(disassembly(image)), trace.ways()
    estimate = cycles(listing, ways) if image.target is CORTEX_M4F else 0
    return Run(after, stack, instructions(listing, ways), estimate)


def instructions(listing: Listing, ways: Counter[tuple[int, int, int]]) -> int:
    """Return how many instructions ran."""
    return sum(times * len(listing.block(start, size)) for (start, size, _), times in ways.items())


def machine_for(image: Image) -> Any:
    """Return the emulated core, its memory empty. Raises ToolError."""
    try:
        unicorn: Any = import_module("unicorn")
    except ImportError as error:
        what = f"unicorn is not installed; expected it for {image.target.name}"
        raise ToolError(f"{what}: pip install unicorn") from error
    if image.target is CORTEX_M4F:
        machine = unicorn.Uc(unicorn.UC_ARCH_ARM, unicorn.UC_MODE_THUMB | unicorn.UC_MODE_MCLASS)
        machine.ctl_set_cpu_model(import_module("unicorn.arm_const").UC_CPU_ARM_CORTEX_M4)
    else:
        machine = unicorn.Uc(unicorn.UC_ARCH_RISCV, unicorn.UC_MODE_RISCV32)
    machine.mem_map(0, FLASH + SIZE)
    machine.mem_map(RAM, SIZE)
    return machine


def call_step(machine: Any, image: Image, example: int) -> None:
    """Call step_run and let it return."""
    if image.target is CORTEX_M4F:
        arm = import_module("unicorn.arm_const")
        registers, thumb = (arm.UC_ARM_REG_SP, arm.UC_ARM_REG_LR, arm.UC_ARM_REG_R0), 1
    else:
        riscv = import_module("unicorn.riscv_const")
        registers, thumb = (riscv.UC_RISCV_REG_SP, riscv.UC_RISCV_REG_RA, riscv.UC_RISCV_REG_A0), 0
    for register, value in zip(registers, (STACK, STOP | thumb, example), strict=True):
        machine.reg_write(register, value)
    machine.emu_start(image.symbols["step_run"] | thumb, STOP)


def _untouched(memory: bytes) -> int:
    return len(memory) - len(memory.lstrip(bytes([PAINT])))
