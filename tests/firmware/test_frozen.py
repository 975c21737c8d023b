"""Frozen layers: an AVR reads their weights from flash, and trains the rest to what its native twin trains it to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import boards
from benchmarks.images import ATMEGA2560, build
from benchmarks.workloads import Workload
from codegen.graph import Graph, Kind, Layer
from codegen.planner import Training, plan
from codegen.tiers import Tier
from tests.firmware.test_equal_bits import on_the_chip, on_the_host

SHAPE = {"conv2d": (3, 3), "depthwise_conv2d": (3, 3), "dense": (1, 1)}


def frozen_workload(kinds: Sequence[Kind]) -> Workload:
    """Return a network of these kinds of layers, all frozen, before a dense one that learns."""
    generator = np.random.default_rng(4)
    layers, shape = [], (8, 8, 2)
    for index, kind in enumerate(kinds):
        out = (1, 1, 6) if kind == "dense" else (*shape[:2], shape[2] if kind == "depthwise_conv2d" else 5)
        pad = (1, 1) if SHAPE[kind] == (3, 3) else (0, 0)
        layers.append(Layer(f"l{index}", kind, shape, out, SHAPE[kind], pad=pad, slope=0.1, bias=True))
        shape = out
    layers.append(Layer("logits", "dense", shape, (1, 1, 4), bias=True, trainable=True))
    graph, tier = Graph("frozen", tuple(layers), 4, softmax=True), Tier("all", 1.0)
    board = boards.load(ATMEGA2560.board)
    board = replace(board, training=replace(board.training, kernel="f32"))
    planned = plan(board, graph, (tier,), tier, Training(batch=1, encoding="weights"))
    weights = [(generator.normal(size=tensor.shape) / 3).astype(np.float32) for tensor in graph.tensors]
    return Workload(planned, weights, generator.integers(0, 256, (8, graph.features)).astype(np.uint8), 0.02)


@pytest.mark.parametrize(
    "kinds", [("conv2d", "depthwise_conv2d", "conv2d", "dense"), ("depthwise_conv2d",), ("dense",)], ids=" ".join
)
def test_an_avr_reads_frozen_weights_from_its_flash(kinds: Sequence[Kind], tmp_path: Path) -> None:
    workload, steps = frozen_workload(kinds), list(range(8))
    chip = on_the_chip(workload, steps, ATMEGA2560, tmp_path / "chip")
    twin = on_the_host(workload, steps, tmp_path / "host")
    assert chip.weights == twin != workload.packed
    ram = {array.name: array.bytes for array in workload.plan.arrays if array.section != "flash"}
    image = build(workload, ATMEGA2560, tmp_path / "chip")
    assert set(ram) == {"model_weights", "model_arena", "model_shape"}
    assert image.static_ram <= sum(ram.values()) + 1  # a section ends at an even address
