"""A training step at batch 8 on one thread of this machine, beside TensorFlow and PyTorch."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from benchmarks.frameworks import Step, pytorch_steps, tensorflow_steps
from benchmarks.images import build_library
from benchmarks.workloads import Workload, dense_workload
from boards import Board, load

BATCH = 8
ROOM = 1 << 24  # bytes: enough for a gradient buffer at any tier
ROUNDS, SECONDS = 150, 0.02  # many short rounds: some of them are left alone


@dataclass(frozen=True)
class Times:
    """Nanoseconds a sample. None: PyTorch is not installed."""

    tierfed: float
    tensorflow: float
    pytorch: float | None


def measure(name: str, folder: Path) -> Times:
    """Return how long a sample takes in a step of BATCH. Raises ToolError."""
    batch = workload(name)
    return Times(_alone(_tierfed, batch, folder), _alone(_tensorflow, batch), _alone(_pytorch, batch))


def _alone(measurement: Callable[..., Any], *arguments: object) -> Any:
    """Run in a process of its own: frameworks in one process slow each other down."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(measurement, *arguments).result()


def _tierfed(batch: Workload, folder: Path) -> float:
    library = ctypes.CDLL(str(build_library(batch, folder)))
    size = len(batch.packed)
    ctypes.memmove((ctypes.c_char * size).in_dll(library, "model_weights"), batch.packed, size)
    return _nanoseconds(library.step_batches)


def _tensorflow(batch: Workload) -> float:
    return min(_nanoseconds(_repeated(step)) for step in tensorflow_steps(batch))


def _pytorch(batch: Workload) -> float | None:
    try:
        return min(_nanoseconds(_repeated(step)) for step in pytorch_steps(batch))
    except ImportError:
        return None


def workload(name: str) -> Workload:
    """Return a step of BATCH for any tier of the example."""
    return dense_workload(name, _roomy_board(), count=BATCH, batch=BATCH)


def _roomy_board() -> Board:
    board = load("esp32dev")
    return replace(board, ram=ROOM, flash=ROOM, training=replace(board.training, static_ram=ROOM))


def _repeated(step: Step) -> Callable[[int], None]:
    def repeat(count: int) -> None:
        for _ in range(count):
            step()

    return repeat


def _nanoseconds(repeat: Callable[[int], Any]) -> float:
    """Return the least time of a sample over several rounds: what disturbs a measurement only ever adds to it."""
    repeat(3)
    count = 1
    while (seconds := _seconds(repeat, count)) < SECONDS:
        count = max(2 * count, int(count * SECONDS / max(seconds, 1e-6)))
    return min(_seconds(repeat, count) for _ in range(ROUNDS)) / count / BATCH * 1e9


def _seconds(repeat: Callable[[int], Any], count: int) -> float:
    """Return the processor's time, in all threads: what else runs on this machine does not count."""
    before = time.process_time()
    repeat(count)
    return time.process_time() - before
