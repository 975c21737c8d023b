"""The ensemble and what is learnt from it, on a small model that is compiled once."""

from functools import cache
from typing import Any

import numpy as np
import pytest

from codegen.graph import Graph, Layer
from codegen.planner import Training
from codegen.tiers import Tier, channel_order, sub_model, tiers_from
from coordinator.aggregation import Contribution, Weights
from coordinator.aggregation.distillation import Lesson, distil, shifted
from coordinator.aggregation.ensemble import Ensemble, HostModel, quantised, rebuilt, softmax

FROZEN = Layer("frozen", "dense", (1, 1, 12), (1, 1, 8), slope=0.1, bias=True, trainable=False)
HIDDEN = Layer("hidden", "dense", (1, 1, 8), (1, 1, 8), slope=0.1, bias=True, trainable=True)
LOGITS = Layer("logits", "dense", (1, 1, 8), (1, 1, 3), bias=True, trainable=True)
GRAPH = Graph("tiny", (FROZEN, HIDDEN, LOGITS), 3, True)
TIERS = tiers_from({"half": 0.5, "whole": 1.0})
RANDOM = np.random.default_rng(0)
IMAGES = RANDOM.integers(0, 256, (50, 12)).astype(np.uint8)


def weights(seed: int) -> Weights:
    """Frozen ones are the same whatever the seed."""
    trained = np.random.default_rng(seed)
    frozen = np.random.default_rng(99)
    return [
        (trained if tensor.trainable else frozen).normal(0, 0.5, tensor.shape).astype(np.float32)
        for tensor in GRAPH.tensors
    ]


@cache
def host() -> HostModel:
    return HostModel(GRAPH, TIERS, weights(1), Training())


def forward(tensors: Weights, images: np.ndarray) -> np.ndarray:
    """The same network in float64."""
    x = images / 255.0
    for at in range(0, len(tensors), 2):
        x = x @ tensors[at].astype(np.float64) + tensors[at + 1]
        x = np.where(x > 0, x, 0.1 * x) if at + 2 < len(tensors) else x
    return x


def probabilities(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


@pytest.mark.parametrize("tier", TIERS)
@pytest.mark.parametrize("select", ["prefix", "rolling", "importance"])
def test_a_returned_model_says_what_it_says_on_its_board(tier: Tier, select: Any) -> None:
    before = weights(2)
    cut = sub_model(GRAPH, tier, channel_order(GRAPH, select, 3, before))
    trainable = [part for part, of in zip(cut.cut(before), cut.graph.tensors, strict=True) if of.trainable]
    delta = [RANDOM.normal(0, 0.1, part.shape).astype(np.float32) for part in trainable]
    tensors = rebuilt(Contribution("a", cut, delta, 9, (3, 3, 3)), before)
    for part, old, change in zip(tensors, trainable, delta, strict=True):
        np.testing.assert_array_equal(part, old + change)
    found = host().logits(cut, tensors, IMAGES)
    np.testing.assert_allclose(found, forward([*cut.cut(before)[:2], *tensors], IMAGES), atol=1e-4)


def test_the_ensemble_is_the_softmax_of_the_mean_of_centred_logits() -> None:
    ensemble, parts = Ensemble(), [RANDOM.normal(0, 3, (40, 5)).astype(np.float32) + shift for shift in (0, 100, -7)]
    for part in parts:
        ensemble.add(part)
    targets = ensemble.targets()
    mean = np.mean([part - part.mean(axis=1, keepdims=True) for part in parts], axis=0)
    assert targets.dtype == np.uint8 and (targets.sum(axis=1, dtype=int) == 255).all()
    np.testing.assert_allclose(targets / 255, probabilities(mean), atol=1 / 255)


@pytest.mark.parametrize("robust", [False, True])
def test_one_that_lies_bends_a_mean_and_not_a_median(robust: bool) -> None:
    honest = RANDOM.normal(0, 3, (40, 5)).astype(np.float32)
    ensemble = Ensemble(robust)
    for noise in (0.1, 0.1, 0.1, 0.1):
        ensemble.add(honest + RANDOM.normal(0, noise, honest.shape).astype(np.float32))
    ensemble.add(-1000 * honest)
    agreed = (ensemble.targets().argmax(axis=1) == honest.argmax(axis=1)).mean()
    assert agreed > 0.9 if robust else agreed < 0.1


def test_shares_are_those_of_the_c_library_but_for_the_last_places() -> None:
    logits = np.concatenate([RANDOM.normal(0, 20, (200, 7)), [[0.0, -2000.0, -700.5, -1e-9, -40.0, -0.3466, -745.0]]])
    np.testing.assert_allclose(softmax(logits), probabilities(logits), rtol=1e-13, atol=1e-300)


@pytest.mark.parametrize(
    ("shares", "expected"),
    [
        ([1.0, 0.0, 0.0], [255, 0, 0]),
        ([1 / 3, 1 / 3, 1 / 3], [85, 85, 85]),
        ([0.5, 0.5, 0.0], [128, 127, 0]),
        ([0.001, 0.997, 0.002], [0, 254, 1]),
    ],
)
def test_rows_of_bytes_sum_to_255(shares: list[float], expected: list[int]) -> None:
    assert quantised(np.array([shares])).tolist() == [expected]


def lesson(seed: int = 1) -> Lesson:
    return Lesson(30, 0.02, (seed, 1))


def test_every_width_learns_what_the_ensemble_says() -> None:
    truth = softmax(3 * forward(weights(3), IMAGES))
    targets, start = quantised(truth), weights(4)
    learnt = distil(host(), start, IMAGES, targets, lesson())
    for tier in TIERS:
        cut = sub_model(GRAPH, tier)
        before, after = (
            -(truth * np.log(probabilities(forward(cut.cut(tensors), IMAGES)))).sum(axis=1).mean()
            for tensors in (start, learnt)
        )
        assert after < 0.6 * before, tier.name
    for old, new, tensor in zip(start, learnt, GRAPH.tensors, strict=True):
        assert (old.tobytes() == new.tobytes()) != tensor.trainable
    again = distil(host(), start, IMAGES, targets, lesson())
    assert [tensor.tobytes() for tensor in again] == [tensor.tobytes() for tensor in learnt]
    other = distil(host(), start, IMAGES, targets, lesson(2))
    assert other[2].tobytes() != learnt[2].tobytes()


def test_pictures_are_moved_and_other_samples_are_not() -> None:
    pictures = RANDOM.integers(1, 256, (60, 28, 28)).astype(np.uint8)
    moved = shifted(pictures, (28, 28, 1), np.random.default_rng(1)).reshape(60, 28, 28)
    places = set()
    for before, after in zip(pictures, moved, strict=True):
        found = [
            (down, right) for down in range(-2, 3) for right in range(-2, 3)
            if (np.pad(before, 2)[2 - down : 30 - down, 2 - right : 30 - right] == after).all()
        ]  # fmt: skip
        assert len(found) == 1
        places.update(found)
    assert len(places) > 15
    for shape in ((1, 1, 12), (12, 1, 1), (8, 8, 1)):
        samples = RANDOM.integers(1, 256, (5, *shape)).astype(np.uint8)
        assert (shifted(samples, shape, np.random.default_rng(1)) == samples).all()
