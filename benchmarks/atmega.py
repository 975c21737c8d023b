"""Steps on an ATmega under simavr: exact cycles."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

from benchmarks.images import TARGETS, Image, Run, ToolError, run_tool
from benchmarks.workloads import Workload

LIBRARY = "libsimavr-dev"


def run(image: Image, workload: Workload, steps: Sequence[int], folder: Path) -> Run:
    """Take a step with each of the examples that `steps` names and count the last. Raises ToolError."""
    return call(image, workload.packed, steps, folder)


def call(image: Image, memory: bytes, arguments: Sequence[int], folder: Path) -> Run:
    """Put `memory` into model_weights, call step_run with each of `arguments`, count the last. Raises ToolError."""
    program = folder / "simavr-steps"
    if not program.exists():
        _build(program)
    addresses = (image.symbols[name] for name in ("step_run", "_end", "model_weights"))
    command = [str(program), str(image.path), image.target.mcu, *map(str, addresses), str(len(memory))]
    done = subprocess.run(command, input=memory + bytes(arguments), capture_output=True, check=False)
    if done.returncode != 0:
        raise ToolError(f"simavr failed: {done.stderr.decode(errors='replace').strip()}")
    line, _, weights = done.stdout.partition(b"\n")
    cycles, stack = map(int, line.split())
    return Run(weights, stack, cycles=cycles)


def _build(program: Path) -> None:
    flags = ("-std=gnu99", "-O2", "-Wall", "-Wextra", "-Werror")
    source = TARGETS / "simavr.c"
    if not Path("/usr/include/simavr/sim_avr.h").exists():
        raise ToolError(f"libsimavr is not installed; expected it for the ATmega: apt-get install {LIBRARY}")
    run_tool("gcc", "gcc libc6-dev", "simavr", *flags, str(source), "-o", str(program), "-lsimavr")
