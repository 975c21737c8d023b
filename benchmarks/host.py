"""A training step at batch 8 on one thread of this machine, beside TensorFlow."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.images import build_library
from benchmarks.workloads import Workload, dense_workload
from boards import Board, load

BATCH = 8
ROOM = 1 << 24  # bytes: enough for a gradient buffer at any tier
ROUNDS, SECONDS = 40, 0.02  # many short rounds: some of them are left alone


@dataclass(frozen=True)
class Times:
    """Nanoseconds a sample."""

    tierfed: float
    tensorflow: float


def measure(name: str, folder: Path) -> Times:
    """Return how long a sample takes in a step of BATCH. Raises ToolError."""
    workload = dense_workload(name, _roomy_board(), count=BATCH, batch=BATCH)
    library = ctypes.CDLL(str(build_library(workload, folder)))
    size = len(workload.packed)
    ctypes.memmove((ctypes.c_char * size).in_dll(library, "model_weights"), workload.packed, size)
    return Times(_nanoseconds(library.step_batches), _tensorflow(workload))


def _roomy_board() -> Board:
    board = load("esp32dev")
    return replace(board, ram=ROOM, flash=ROOM, training=replace(board.training, static_ram=ROOM))


def _tensorflow(workload: Workload) -> float:
    """Return the faster of TensorFlow's graph and of what XLA makes of it."""
    from codegen.quiet import import_keras

    import_keras()
    import numpy as np
    import tensorflow as tf

    from codegen.keras_model import keras_model

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    sub_model = workload.plan.sub_model
    model = keras_model(sub_model.graph)
    model.set_weights(sub_model.cut(workload.weights))
    inputs = tf.constant(workload.samples.reshape(-1, *sub_model.graph.input_shape).astype(np.float32) / 255)
    labels = tf.constant(np.arange(BATCH) % sub_model.graph.classes)

    def step() -> None:
        with tf.GradientTape() as tape:
            logits = model(inputs, training=True)
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
            loss = tf.reduce_mean(losses)
        variables = model.trainable_variables
        for variable, gradient in zip(variables, tape.gradient(loss, variables), strict=True):
            variable.assign_sub(workload.rate * gradient)

    def repeated(compiled: Any) -> Callable[[int], None]:
        def repeat(count: int) -> None:
            for _ in range(count):
                compiled()

        return repeat

    return min(_nanoseconds(repeated(tf.function(step, jit_compile=jit))) for jit in (False, True))


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
