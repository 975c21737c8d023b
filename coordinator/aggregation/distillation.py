"""Distillation: the global model learns what the ensemble says of the proxy images, at every tier's width at once.

Lin et al. 2020 (FedDF), with the sandwich rule of slimmable networks (Yu et al. 2019): the loss is the sum over all
widths. An image counts by the square of how sure the ensemble is of it. Adam (Kingma and Ba 2015).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from codegen.weights import unpack
from coordinator.aggregation import Weights
from coordinator.aggregation.ensemble import HostModel, Images
from coordinator.state import TARGET_SUM, Targets

BATCH = 20
FIRST, SECOND, TINY = 0.9, 0.999, 1e-7  # Adam's
SHIFT, SHIFT_SHARE = 2, 14  # pixels that an image is moved by, at most, and no more than a 14th of its side
SEED_STREAM = 0x5044  # keeps these draws apart from every other use of the federation's seed

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Lesson:
    """How long, and how fast."""

    epochs: int
    learning_rate: float  # falls to 0 in even steps
    seed: Sequence[int]  # of the order and of the shifts


def distil(model: HostModel, weights: Weights, images: Images, targets: Targets, lesson: Lesson) -> Weights:
    """Return the global weights after distillation from `weights`; frozen ones stay as they are.

    images: u8 [n, height, width, channels], or whatever shape of as many features; targets: [n, classes].
    """
    rng = np.random.default_rng([*lesson.seed, SEED_STREAM])
    engine, widths = model.engine, range(len(model.plan.widths))
    model.load(weights)
    held, gradient = engine.view("model_weights"), engine.view("model_gradients")
    gradient[:] = 0
    soft = targets.astype(np.float32) / np.float32(TARGET_SUM)
    sure = soft.max(axis=1) ** 2
    adam, steps, done = Adam(len(held)), lesson.epochs * -(-len(images) // BATCH), 0
    for _ in range(lesson.epochs):
        moved, order = shifted(images, model.plan.sub_model.graph.input_shape, rng), rng.permutation(len(images))
        for start in range(0, len(order), BATCH):
            batch = order[start : start + BATCH]
            for width in widths:
                engine.gradient(width, moved[batch], soft[batch], sure[batch], 1 / len(batch))
            adam.step(held, gradient, lesson.learning_rate * (1 - done / steps))
            gradient[:] = 0
            done += 1
    learnt = iter(unpack(model.plan, engine.weights))
    tensors = model.plan.sub_model.graph.tensors
    return [next(learnt) if tensor.trainable else old for tensor, old in zip(tensors, weights, strict=True)]


class Adam:
    """Adam on one flat array. Float32, each operation rounded: the same bits everywhere."""

    def __init__(self, size: int) -> None:
        self._first, self._second = np.zeros((2, size), np.float32)
        self._powers = [1.0, 1.0]

    def step(self, weights: Floats, gradient: Floats, rate: float) -> None:
        """Move `weights`, in place."""
        self._first += np.float32(1 - FIRST) * (gradient - self._first)
        self._second += np.float32(1 - SECOND) * (gradient * gradient - self._second)
        self._powers = [self._powers[0] * FIRST, self._powers[1] * SECOND]
        first, second = (np.float32(1 / (1 - power)) for power in self._powers)
        weights -= np.float32(rate) * (self._first * first) / (np.sqrt(self._second * second) + np.float32(TINY))


def shifted(images: Images, shape: tuple[int, int, int], rng: np.random.Generator) -> Images:
    """Return the images, each moved by up to SHIFT pixels both ways, what comes in being 0; contiguous, u8. What is no
    picture, or a small one, stays as it is."""
    most = min(SHIFT, min(shape[:2]) // SHIFT_SHARE)
    pictures = images.reshape(-1, *shape)
    if most == 0:
        return np.ascontiguousarray(pictures)
    height, width = shape[:2]
    padded = np.pad(pictures, ((0, 0), (most, most), (most, most), (0, 0)))
    places = rng.integers(0, 2 * most + 1, (len(images), 2))
    moved = np.empty_like(pictures)
    for to, image, (top, left) in zip(moved, padded, places.tolist(), strict=True):
        to[:] = image[top : top + height, left : left + width]
    return moved
