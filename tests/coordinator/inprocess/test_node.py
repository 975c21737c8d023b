"""A node in this process: it learns, the same seed gives the same bits, and what it cannot learn from it says."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import boards
from benchmarks.workloads import perceptron, with_kernel
from codegen.planner import Training, plan
from codegen.tiers import Tier
from codegen.weights import pack
from coordinator.inprocess.engine import Engine
from coordinator.inprocess.node import InProcessNode
from coordinator.rounds import NodeUnavailable, Order

SAMPLES, CLASSES = 64, 4


def bars() -> tuple[np.ndarray, np.ndarray]:
    """Return noise in which one stripe of four is bright: the class."""
    generator = np.random.default_rng(3)
    labels = (np.arange(SAMPLES) % CLASSES).astype(np.uint16)
    images = generator.integers(0, 100, (SAMPLES, 16))
    for image, label in zip(images, labels, strict=True):
        image[4 * label : 4 * label + 4] += 120
    return images.astype(np.uint8), labels


def an_engine(kernel: str, proxy: int = 0) -> Engine:
    """Return a perceptron of four classes, batch 1, with small random weights."""
    generator, graph, tier = np.random.default_rng(1), perceptron(16, 8, CLASSES), Tier("all", 1.0)
    weights = [(generator.normal(size=tensor.shape) / 3).astype(np.float32) for tensor in graph.tensors]
    board = with_kernel(boards.load("megaatmega2560"), kernel)
    settings = Training(batch=1, nested=False, encoding="weights", proxy=proxy)
    engine = Engine(plan(board, graph, (tier,), tier, settings), weights)
    engine.weights = pack(engine.plan, weights)
    return engine


def an_order(weights: bytes, **changes: Any) -> Order:
    """Return twenty epochs at batch 1."""
    order = Order(1, 7, 0.4, 0.0, 20, 1, False, "auto", np.zeros(CLASSES, np.float32), weights)
    return replace(order, **changes)


@pytest.mark.parametrize("kernel", boards.KERNELS)
def test_a_node_learns_and_the_same_seed_gives_the_same_bits(kernel: str) -> None:
    engine, (x, y) = an_engine(kernel), bars()
    start, node, twin = engine.weights, InProcessNode("a", engine, x, y), InProcessNode("b", engine, x, y)
    update = asyncio.run(node.train(an_order(start)))
    assert (engine.logits(x).argmax(1) == y).mean() > 0.95 and (update.samples, update.saturated) == (SAMPLES, 0)
    again = asyncio.run(twin.train(an_order(start)))
    other = asyncio.run(node.train(an_order(start, seed=8)))
    assert [tensor.tobytes() for tensor in again.delta] == [tensor.tobytes() for tensor in update.delta]
    assert [tensor.tobytes() for tensor in other.delta] != [tensor.tobytes() for tensor in update.delta]


@pytest.mark.parametrize(("changes", "learns"), [({}, False), ({"rehearsals": 2}, True)])
def test_a_node_rehearses_classes_that_it_has_no_samples_of(changes: Mapping[str, Any], learns: bool) -> None:
    (x, y), engine = bars(), an_engine("f32", SAMPLES)
    own = y < 2
    targets = np.zeros((SAMPLES, CLASSES), np.uint8)
    targets[np.arange(SAMPLES), y] = 255
    node = InProcessNode("a", engine, x[own], y[own], x)
    assert (node.plan.proxy, node.label_counts) == (SAMPLES, (16, 16, 0, 0))
    asyncio.run(node.train(an_order(engine.weights, targets=targets, **changes)))
    right = engine.logits(x).argmax(1) == y
    assert right[own].mean() > 0.95 and bool(right[~own].mean() > 0.95) == learns


def test_a_loss_that_is_not_finite_is_told() -> None:
    engine, (x, y) = an_engine("f32"), bars()
    with pytest.raises(NodeUnavailable, match="tier all"):
        asyncio.run(InProcessNode("a", engine, x, y).train(an_order(engine.weights, learning_rate=1e38, epochs=2)))
