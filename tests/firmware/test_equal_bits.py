"""The law of equal bits, on the chips: the very images that boards run train to what their native twin trains to."""

from __future__ import annotations

import ctypes
from pathlib import Path

import numpy as np
import pytest

import boards
from benchmarks import atmega, bare
from benchmarks.images import ATMEGA2560, CORTEX_M4F, RV32IMC, Run, Target, ToolError, build, build_library
from benchmarks.workloads import Workload, ordinary_workload, with_kernel
from codegen.weights import unpack

STEPS = {"64-16-10": 200, "mnist_base": 16, "mnist_micro": 8}


def on_the_host(workload: Workload, steps: list[int], folder: Path) -> bytes:
    """Return the weights after `steps` on this machine."""
    library = ctypes.CDLL(str(build_library(workload, folder)))
    weights = (ctypes.c_char * len(workload.packed)).in_dll(library, "model_weights")
    ctypes.memmove(weights, workload.packed, len(workload.packed))
    for step in steps:
        library.step_run(step)
    return bytes(weights)


def on_the_chip(workload: Workload, steps: list[int], target: Target, folder: Path) -> Run:
    """Return what came of `steps` in the emulator; a tool that is missing fails by its name."""
    try:
        image = build(workload, target, folder)
        if target.mcu:
            return atmega.run(image, workload, steps, folder)
        return bare.run(image, workload, steps, folder, count=False)
    except ToolError as error:
        pytest.fail(str(error), pytrace=False)


@pytest.mark.parametrize(
    "target, network, kernel",
    [
        (CORTEX_M4F, "64-16-10", "f32"),
        (ATMEGA2560, "64-16-10", "f32"),
        (RV32IMC, "64-16-10", "f32"),
        (CORTEX_M4F, "mnist_base", "f32"),  # convolutions go back by pixel there, by element on the host
        (ATMEGA2560, "mnist_micro", "f32"),  # and on rows of two and four channels, in assembler
        *((target, "64-16-10", "fixed") for target in (CORTEX_M4F, ATMEGA2560, RV32IMC)),
        *((target, "mnist_micro", "fixed") for target in (CORTEX_M4F, ATMEGA2560, RV32IMC)),
    ],
    ids=lambda value: getattr(value, "name", value),
)
def test_chips_and_native_twin_train_to_the_same_bits(
    target: Target, network: str, kernel: str, tmp_path: Path
) -> None:
    workload = ordinary_workload(network, with_kernel(boards.load(target.board), kernel), count=8)
    steps = [step % 8 for step in range(STEPS[network])]
    twin = on_the_host(workload, steps, tmp_path / "host")
    chip = on_the_chip(workload, steps, target, tmp_path / "chip")
    before, expected = (
        np.concatenate([values.ravel() for values in unpack(workload.plan, weights)])
        for weights in (workload.packed, twin)
    )
    assert np.isfinite(expected).all() and (before != expected).mean() > 0.5
    assert chip.weights == twin
