"""A node in this process: it learns, the same seed gives the same bits, and what it cannot learn from it says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import boards
from benchmarks.node import Node, Rate
from benchmarks.workloads import perceptron, with_kernel
from codegen.planner import Training, plan
from codegen.tiers import Tier

SAMPLES, CLASSES = 64, 4


def bars() -> tuple[np.ndarray, np.ndarray]:
    """Return noise in which one stripe of four is bright: the class."""
    generator = np.random.default_rng(3)
    labels = (np.arange(SAMPLES) % CLASSES).astype(np.uint16)
    images = generator.integers(0, 100, (SAMPLES, 16))
    for image, label in zip(images, labels, strict=True):
        image[4 * label : 4 * label + 4] += 120
    return images.astype(np.uint8), labels


def a_node(kernel: str, folder: Path) -> tuple[Node, list[np.ndarray]]:
    generator, graph, tier = np.random.default_rng(1), perceptron(16, 8, CLASSES), Tier("all", 1.0)
    weights = [(generator.normal(size=tensor.shape) / 3).astype(np.float32) for tensor in graph.tensors]
    board = with_kernel(boards.load("megaatmega2560"), kernel)
    planned = plan(board, graph, (tier,), tier, Training(batch=1, nested=False, encoding="weights"))
    return Node(planned, weights, folder), weights


@pytest.mark.parametrize("kernel", boards.KERNELS)
def test_a_node_learns_and_the_same_seed_gives_the_same_bits(kernel: str, tmp_path: Path) -> None:
    (node, weights), (x, y) = a_node(kernel, tmp_path), bars()
    rate = Rate(0.4, epochs=20)
    trained = node.round(weights, x, y, 7, rate)
    assert node.accuracy(x, y) > 0.95 and node.saturated == 0
    again, other = node.round(weights, x, y, 7, rate), node.round(weights, x, y, 8, rate)
    assert [tensor.tobytes() for tensor in again] == [tensor.tobytes() for tensor in trained]
    assert [tensor.tobytes() for tensor in other] != [tensor.tobytes() for tensor in trained]


def test_a_loss_that_is_not_finite_is_told(tmp_path: Path) -> None:
    (node, weights), (x, y) = a_node("f32", tmp_path), bars()
    with pytest.raises(ArithmeticError, match="tier all"):
        node.round(weights, x, y, 7, replace(Rate(1e38), epochs=2))
