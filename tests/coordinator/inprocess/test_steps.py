"""What a node does to an image before a step, and to the step itself, beside the same in numpy."""

from __future__ import annotations

import numpy as np
import pytest

import boards
from boards import PROJECT_ROOT
from codegen.model_file import load_graph
from codegen.planner import Training, plan
from codegen.protocol import Setup
from codegen.tiers import Tier
from codegen.weights import pack
from coordinator.inprocess.engine import Engine
from coordinator.streaming import hash32, training_order

TIER, SIDE, SAMPLES = Tier("micro", 0.125), 28, 12
NOTHING = np.zeros((0, SIDE * SIDE), np.uint8)


def an_engine(kernel: str) -> Engine:
    graph, weights = load_graph(PROJECT_ROOT / "examples" / "mnist" / "model.py", None, 1)
    board = boards.load({"f32": "esp32-s3-devkitc-1", "fixed": "esp32-c3-devkitm-1"}[kernel])
    engine = Engine(plan(board, graph, (TIER,), TIER, Training(batch=4, nested=False, shift=3)), weights)
    engine.weights = pack(engine.plan, engine.plan.sub_model.cut(weights))
    return engine


def trained(engine: Engine, x: np.ndarray, setup: Setup) -> bytes:
    start = engine.weights
    engine.round(setup, np.ascontiguousarray(x), (np.arange(SAMPLES) % 10).astype(np.uint16), NOTHING)
    after, engine.weights = engine.weights, start
    return after


def moved(image: np.ndarray, draw: int, most: int) -> np.ndarray:
    down, right = (draw & 0xFFFF) % (2 * most + 1) - most, (draw >> 16) % (2 * most + 1) - most
    padded = np.pad(image.reshape(SIDE, SIDE), most)
    return padded[most - down : most - down + SIDE, most - right : most - right + SIDE].reshape(-1)


@pytest.mark.parametrize("kernel", boards.KERNELS)
@pytest.mark.parametrize("most", [1, 3])
def test_images_are_moved_as_drawn(kernel: str, most: int) -> None:
    engine = an_engine(kernel)
    x = np.random.default_rng(1).integers(0, 256, (SAMPLES, SIDE * SIDE)).astype(np.uint8)
    setup = Setup(1, 77, 0.1, 0.0, 1, 4, 0, 0)
    by_hand = x.copy()
    for position in range(SAMPLES):
        index = training_order(setup.seed, 0, position, SAMPLES)
        by_hand[index] = moved(x[index], hash32(hash32(setup.seed) ^ position), most)
    shifted = Setup(1, 77, 0.1, 0.0, 1, 4, 0, 0, shift=most)
    assert trained(engine, x, shifted) == trained(engine, by_hand, setup) != trained(engine, x, setup)


@pytest.mark.parametrize(("most", "bounded"), [(1e-3, True), (1e6, False)])
def test_a_batch_moves_the_weights_no_further_than_its_bound(most: float, bounded: bool) -> None:
    engine = an_engine("f32")
    x = np.random.default_rng(1).integers(0, 256, (SAMPLES, SIDE * SIDE)).astype(np.uint8)
    before = np.frombuffer(engine.weights, "<f4")
    setup = Setup(1, 77, 0.5, 0.0, 1, SAMPLES, 0, 0, max_norm=most)
    step = float(np.linalg.norm(np.frombuffer(trained(engine, x, setup), "<f4").astype(np.float64) - before))
    free = trained(engine, x, Setup(1, 77, 0.5, 0.0, 1, SAMPLES, 0, 0))
    if bounded:
        assert step == pytest.approx(0.5 * most, rel=1e-3)
    else:
        assert trained(engine, x, setup) == free
