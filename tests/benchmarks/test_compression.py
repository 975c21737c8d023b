"""The benchmark of 8-bit updates: what they save, and that feedback gives back what rounding took."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest

from benchmarks.compression import FEEDBACK, FLOAT32, ROUNDED, WAYS, WEIGHTS, Cost, Member, costs, ratio
from benchmarks.encoder import Encoder
from coordinator.shares import Share
from tests.coordinator.inprocess.test_node import CLASSES, an_engine, an_order, bars

ROUNDS = 8


@pytest.mark.parametrize("parameters", [398, 998, 2210, 6138, 19178])
def test_an_update_of_any_tier_of_the_example_is_at_least_3_9_times_smaller(parameters: int) -> None:
    scales = -(-parameters // 256)
    assert ratio(parameters) == 4 * parameters / (parameters + 4 * scales) >= 3.9


def test_feedback_gives_back_what_rounding_took(tmp_path: Path) -> None:
    """The same round again and again, with the same draws: without feedback each rounds the same way. Weights in 8 bits
    differ by as much, of themselves."""
    engine, (x, y) = an_engine("f32"), bars()
    encoder = Encoder(engine.plan.sub_model.graph.parameters, tmp_path / "encoder")
    order = an_order(engine.weights, epochs=1)
    moved = {}
    for way in WAYS:
        member = Member("a", engine, Share(x, y, CLASSES), encoder, way)
        deltas = [asyncio.run(member.train(order)).delta for _ in range(ROUNDS)]
        moved[way] = np.concatenate([np.sum(tensors, axis=0).reshape(-1) for tensors in zip(*deltas, strict=True)])
    scale = np.abs(moved[FLOAT32]).max() / ROUNDS / 127
    error = {way: np.abs(moved[way] - moved[FLOAT32]).max() / scale for way in (ROUNDED, FEEDBACK)}
    assert error[FEEDBACK] < 1.05 < ROUNDS / 2 < error[ROUNDED]
    largest = np.abs(np.frombuffer(engine.weights, "<f4")).max()  # after the last, as after each
    assert 0 < np.abs(moved[WEIGHTS] - moved[FLOAT32]).max() / ROUNDS <= 1.001 * largest / 127


def test_costs_are_of_pairs_of_seeds() -> None:
    found = costs([{"a": 90.0, "b": 80.0}, {"a": 92.0, "b": 80.0}], [{"a": 89.0, "b": 80.0}, {"a": 90.0, "b": 80.5}])
    assert found == {"a": Cost(1.5, 0.5), "b": Cost(-0.25, 0.25), "mean": Cost(0.625, 0.125)}
