"""How good every tier's slice of the global model is, on images that no node has."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from codegen.graph import Graph
from codegen.keras_model import keras_model, shaped
from codegen.quiet import import_keras
from codegen.tiers import SubModel

BATCH = 2000  # images at once: large enough for TensorFlow, small enough for a laptop's memory


def preload() -> None:
    """Import TensorFlow, which takes seconds: for a thread of its own while something else is waited for."""
    import_keras()


class Evaluator:
    """Keras models of all tiers, made once; `accuracy` may be called from a worker thread."""

    def __init__(self, images: npt.NDArray[np.float32], labels: npt.NDArray[Any], graph: Graph) -> None:
        """Take test images [n, ...] as the model sees them, and their labels [n]."""
        self._images = images.reshape(-1, *graph.input_shape)
        self._labels = labels
        self._predictors: dict[Graph, tuple[Any, Callable[[Any], Any]]] = {}

    def accuracy(self, tiers: Sequence[SubModel], weights: Sequence[npt.NDArray[np.float32]]) -> dict[str, float]:
        """Return the share of right answers, 0 to 1, of each tier's slice of the global `weights`."""
        return {cut.tier.name: self._correct(cut, weights) / len(self._labels) for cut in tiers}

    def _correct(self, cut: SubModel, weights: Sequence[npt.NDArray[np.float32]]) -> int:
        model, predict = self._predictor(cut.graph)
        model.set_weights(shaped(model, cut.cut(weights)))
        right = 0
        for start in range(0, len(self._labels), BATCH):
            block = slice(start, start + BATCH)
            right += int((predict(self._images[block]).numpy() == self._labels[block]).sum())
        return right

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
