"""How good every tier's slice of the global model is, class by class, on images that no node has."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from codegen.graph import Graph
from codegen.keras_model import keras_model, shaped
from codegen.quiet import import_keras
from codegen.tiers import SubModel

Confusion = npt.NDArray[np.int64]  # [classes, classes]: images by what they show (row) and what is answered (column)

BATCH = 2000  # images at once: large enough for TensorFlow, small enough for a laptop's memory


def preload() -> None:
    """Import TensorFlow, which takes seconds: for a thread of its own while something else is waited for."""
    import_keras()


def accuracy(counted: Confusion) -> float:
    """Return the share of right answers, 0 to 1."""
    return float(np.trace(counted) / counted.sum())


def per_class(counted: Confusion) -> list[float | None]:
    """Return the share of right answers among the images of each class, to four digits; None: there are no images."""
    shown = counted.sum(axis=1)
    return [round(int(right) / int(of), 4) if of else None for right, of in zip(np.diag(counted), shown, strict=True)]


class Evaluator:
    """Keras models of all tiers, made once; `confusion` may be called from a worker thread."""

    def __init__(self, images: npt.NDArray[np.float32], labels: npt.NDArray[Any], graph: Graph) -> None:
        """Take images [n, ...] as the model sees them, and their labels [n]."""
        self._images = images
        self._labels = labels.astype(np.int64)
        self._classes = graph.classes
        self._predictors: dict[Graph, tuple[Any, Callable[[Any], Any]]] = {}

    def accuracy(self, tiers: Sequence[SubModel], weights: Sequence[npt.NDArray[np.float32]]) -> dict[str, float]:
        """Return the share of right answers, 0 to 1, of each tier's slice of the global `weights`."""
        return {tier: accuracy(counted) for tier, counted in self.confusion(tiers, weights).items()}

    def confusion(self, tiers: Sequence[SubModel], weights: Sequence[npt.NDArray[np.float32]]) -> dict[str, Confusion]:
        """Return what each tier's slice of the global `weights` answers."""
        return {cut.tier.name: self._count(cut, weights) for cut in tiers}

    def _count(self, cut: SubModel, weights: Sequence[npt.NDArray[np.float32]]) -> Confusion:
        model, predict = self._predictor(cut.graph)
        model.set_weights(shaped(model, cut.cut(weights)))
        counted = np.zeros(self._classes**2, np.int64)
        for start in range(0, len(self._labels), BATCH):
            block = slice(start, start + BATCH)
            images = self._images[block].reshape(-1, *cut.graph.input_shape)
            cells = self._labels[block] * self._classes + predict(images).numpy()
            counted += np.bincount(cells, minlength=len(counted))
        return counted.reshape(self._classes, self._classes)

    def _predictor(self, graph: Graph) -> tuple[Any, Callable[[Any], Any]]:
        """Return a graph's Keras model and its compiled argmax."""
        if graph not in self._predictors:
            preload()
            import tensorflow as tf

            model = keras_model(graph)
            argmax = tf.function(
                lambda images: tf.argmax(model(images, training=False), axis=1),
                autograph=False,
                input_signature=[tf.TensorSpec((None, *graph.input_shape), tf.float32)],
            )
            self._predictors[graph] = model, argmax
        return self._predictors[graph]
