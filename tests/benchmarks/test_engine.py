"""The benchmark of the engine: that it counts what runs, and that nothing is skipped while it counts."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import boards
from benchmarks import bare, host
from benchmarks.cortex_m4 import block_cycles
from benchmarks.engine import Job
from benchmarks.frameworks import Step, pytorch_steps, tensorflow_steps
from benchmarks.images import RV32IMC, ToolError, build, build_library, load_image, run_tool
from benchmarks.listing import read_listing
from benchmarks.workloads import Workload, dense_workload

NETWORK = "64-16-10"
Steps = Callable[[Workload], Iterator[Step]]
FRAMEWORKS: list[Steps] = [tensorflow_steps, *([pytorch_steps] if find_spec("torch") else [])]


@pytest.mark.parametrize("target, counted", [("m4f", "instructions"), ("atmega2560", "cycles")])
def test_a_step_costs_the_same_every_time(target: str, counted: str, tmp_path: Path) -> None:
    first, second = (Job(target, NETWORK).run(tmp_path / str(time)) for time in range(2))
    assert first == second
    parameters = 64 * 16 + 16 + 16 * 10 + 10
    sizes = {"f32": 4 * parameters, "fixed": 4 + 2 * parameters}
    for kernel, found in first.items() if counted not in first else [("f32", first)]:
        assert found[counted] > 0
        assert found["ram_bytes"] == sizes[kernel] + found["ram_bytes_beyond_parameters"]
        assert 0 < found["stack_bytes"] < found["ram_bytes_beyond_parameters"] < 1024 < found["flash_bytes"]


def test_blocks_hold_every_instruction_that_ran(tmp_path: Path) -> None:
    workload = dense_workload(NETWORK, boards.load(RV32IMC.board))
    image = build(workload, RV32IMC, tmp_path)
    counted = bare.run(image, workload, [0], tmp_path).instructions
    assert counted == one_by_one(image, workload.packed, tmp_path)


def one_by_one(image: Any, weights: bytes, folder: Path) -> int:
    """Count the instructions of a step by stopping at each."""
    import unicorn

    machine, ran = bare.machine_for(image), [0]
    for address, contents in load_image(image, folder):
        machine.mem_write(address, contents)
    machine.mem_write(image.symbols["model_weights"], weights)

    def count(*_: Any) -> None:
        ran[0] += 1

    machine.hook_add(unicorn.UC_HOOK_CODE, count)
    bare.call_step(machine, image, 0)
    return ran[0]


def test_no_multiply_accumulate_of_the_measured_step_is_skipped(tmp_path: Path) -> None:
    """Every weight moves: no input was zero, and no gradient."""
    workload = dense_workload(NETWORK, boards.load("nrf52840_dk"))
    library = ctypes.CDLL(str(build_library(workload, tmp_path)))
    weights = np.ctypeslib.as_array((ctypes.c_float * (len(workload.packed) // 4)).in_dll(library, "model_weights"))
    weights[:] = before = np.frombuffer(workload.packed, "<f4")
    library.step_run(0)
    assert (weights != before).all()


@pytest.mark.parametrize(
    "lines, expected",
    [
        (["adds\tr3, #1"], 1),
        (["vldr\ts15, [r2]"], 2),
        (["vldr\ts15, [r2]", "vldr\ts14, [r3]"], 3),
        (["vldr\td0, [r2]"], 3),
        (["ldr\tr1, [r0, #0]", "ldr.w\tr3, [r1, r2]"], 4),
        (["ldr.w\tr1, [r0], #4", "str\tr1, [r2, r3]"], 3),
        (["str\tr1, [r2, r3]"], 2),
        (["str\tr1, [r2, #4]", "ldr.w\tr3, [r4]"], 3),
        (["add.w\tr3, r3, #4", "vldr\ts0, [r3]"], 4),
        (["add.w\tr3, r3, #4", "vldmia\tr3!, {s0-s3}"], 7),
        (["cmp\tr3, #4", "ldr\tr1, [r3, #0]"], 3),
        (["mla\tr0, r1, r2, r3"], 1),
        (["vmov\ts0, r3"], 2),
        (["vmov.f32\ts0, s1"], 1),
        (["vmul.f32\ts15, s15, s14", "vadd.f32\ts0, s0, s13"], 2),
        (["vmul.f32\ts15, s15, s14", "vadd.f32\ts0, s0, s15"], 3),
        (["vmul.f32\ts15, s15, s14", "vstr\ts15, [r2]"], 4),
        (["vldmia\tr3!, {s12-s15}"], 5),
        (["ldmia.w\tsp!, {r4, r5, r6, pc}"], 5),
        (["vdiv.f32\ts0, s1, s2"], 14),
        (["vdivne.f32\ts0, s1, s2"], 14),
    ],
    ids=lambda value: "; ".join(value) if isinstance(value, list) else str(value),
)
def test_cycles_follow_the_published_timings(lines: list[str], expected: int) -> None:
    text = "\n".join(f"   {0x10000 + 4 * at:x}:\t{line}\t@ a comment" for at, line in enumerate(lines))
    listing = read_listing(text)
    assert block_cycles(listing.block(0x10000, 4 * len(lines))) == expected


@pytest.mark.parametrize("steps", FRAMEWORKS, ids=lambda steps: str(steps.__name__))
def test_a_framework_trains_our_network(steps: Steps, tmp_path: Path) -> None:
    """As far as rounding goes: the engine's own first two losses. PyTorch is tried where it is installed."""
    batch = host.workload("mnist_micro")
    library = ctypes.CDLL(str(build_library(batch, tmp_path)))
    library.step_batches.restype = ctypes.c_float
    ctypes.memmove(
        (ctypes.c_char * len(batch.packed)).in_dll(library, "model_weights"), batch.packed, len(batch.packed)
    )
    ours = [library.step_batches(1) for _ in range(2)]
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        theirs = pool.submit(two_losses, steps, batch).result()
    assert ours[0] > ours[1] and ours == pytest.approx(theirs, rel=1e-5)


def two_losses(steps: Steps, batch: Workload) -> list[float]:
    """Return the losses of the first way's first two steps."""
    step = next(steps(batch))
    return [float(step()) for _ in range(2)]


def test_a_missing_tool_is_named_with_what_installs_it() -> None:
    with pytest.raises(ToolError, match=r"no-such-gcc is not installed; .* apt-get install no-such-package"):
        run_tool("no-such-gcc", "no-such-package", "a test")


def test_an_unknown_target_is_refused_in_a_sentence() -> None:
    command = [sys.executable, "-m", "benchmarks.engine", "--only", "z80"]
    done = subprocess.run(command, cwd=boards.PROJECT_ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "z80" in done.stderr and "m4f" in done.stderr
