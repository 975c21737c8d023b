"""Frozen layers: an AVR reads their weights from flash, and trains the rest to what its native twin trains it to."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import boards
from benchmarks.images import ATMEGA328P, ATMEGA2560, Target, build
from benchmarks.workloads import Workload, with_kernel
from boards import Board
from codegen.freezing import auto
from codegen.graph import Graph, Kind, Layer
from codegen.planner import Training, plan
from codegen.tiers import Tier
from tests.firmware.test_equal_bits import on_the_chip, on_the_host

ONLY, TRAINING = Tier("only", 1.0), Training(batch=1, encoding="weights")
FIXED_RAM = 2 + 4  # fixed_state and fixed_saturated
SHAPE = {"conv2d": (3, 3), "depthwise_conv2d": (3, 3), "dense": (1, 1)}


def frozen_workload(kinds: Sequence[Kind], kernel: str) -> Workload:
    """Return a network of these kinds of layers, all frozen, before a dense one that learns."""
    side = 12 if kinds[0] == "dense" else 8  # fixed point sums a dense layer's 256 inputs at a time
    layers, shape = [], (side, side, 2)
    for index, kind in enumerate(kinds):
        out = (1, 1, 6) if kind == "dense" else (*shape[:2], shape[2] if kind == "depthwise_conv2d" else 5)
        pad = (1, 1) if SHAPE[kind] == (3, 3) else (0, 0)
        layers.append(Layer(f"l{index}", kind, shape, out, SHAPE[kind], pad=pad, slope=0.1, bias=True))
        shape = out
    layers.append(Layer("logits", "dense", shape, (1, 1, 4), bias=True, trainable=True))
    graph = Graph("frozen", tuple(layers), 4, softmax=True)
    return workload_on(with_kernel(boards.load(ATMEGA2560.board), kernel), graph)


def workload_on(board: Board, graph: Graph) -> Workload:
    planned = plan(board, graph, (ONLY,), ONLY, TRAINING)
    samples = np.random.default_rng(4).integers(0, 256, (8, graph.features)).astype(np.uint8)
    return Workload(planned, random_weights(graph), samples, 0.02)


def random_weights(graph: Graph) -> list[np.ndarray[Any, Any]]:
    generator = np.random.default_rng(3)
    return [(generator.normal(size=tensor.shape) / 3).astype(np.float32) for tensor in graph.tensors]


def train(workload: Workload, target: Target, folder: Path) -> None:
    """Hold the chip to its twin, and its RAM to what is not frozen."""
    steps = list(range(8))
    chip = on_the_chip(workload, steps, target, folder / "chip")
    twin = on_the_host(workload, steps, folder / "host")
    assert chip.weights == twin != workload.packed
    ram = {array.name: array.bytes for array in workload.plan.arrays if array.section != "flash"}
    assert not {name for name in ram if "_kernel_" in name or "_bias_" in name}
    own = FIXED_RAM if workload.plan.kernel == "fixed" else 0
    image = build(workload, target, folder / "chip")
    assert image.static_ram <= sum(ram.values()) + own + 1  # a section ends at an even address


@pytest.mark.parametrize("kernel", ["f32", "fixed"])
@pytest.mark.parametrize(
    "kinds", [("conv2d", "depthwise_conv2d", "conv2d", "dense"), ("depthwise_conv2d",), ("dense",)], ids=" ".join
)
def test_an_avr_reads_frozen_weights_from_its_flash(kinds: Sequence[Kind], kernel: str, tmp_path: Path) -> None:
    train(frozen_workload(kinds, kernel), ATMEGA2560, tmp_path)


def test_auto_trains_on_an_uno_what_it_cannot_hold(tmp_path: Path) -> None:
    layers = [
        Layer(f"conv{index}", "conv2d", shape, out, (3, 3), (2, 2), slope=0.1, bias=True, trainable=True)
        for index, (shape, out) in enumerate(pairwise([(16, 16, 1), (8, 8, 6), (4, 4, 12), (2, 2, 16)]), 1)
    ]
    layers.append(Layer("pool", "average_pool", (2, 2, 16), (1, 1, 16), (2, 2), (2, 2)))
    layers.append(Layer("logits", "dense", (1, 1, 16), (1, 1, 10), bias=True, trainable=True))
    graph, uno = Graph("uno", tuple(layers), 10, softmax=True), with_kernel(boards.load("uno"), "fixed")
    assert plan(uno, graph, (ONLY,), ONLY, TRAINING).missing_ram > 2048
    found = auto([uno], graph, random_weights(graph), (ONLY,), TRAINING)
    assert found.layers == ("conv1", "conv2", "conv3")
    workload = workload_on(uno, found.graph)
    assert workload.plan.fits
    train(workload, ATMEGA328P, tmp_path)
