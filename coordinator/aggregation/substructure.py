"""Averaging over shared substructures: each global parameter moves by the mean of the nodes that hold it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from codegen.graph import Graph
from coordinator.aggregation import Contribution, Weights

Selection = tuple[slice, ...] | tuple[npt.NDArray[np.intp], ...]


class Substructure:
    """The weighted mean of the deltas of the nodes that hold a parameter, added to its old value.

    Sums are float64, in the order of `add`; results are float32. A parameter that nobody holds keeps its bits, frozen
    tensors too. The output layer's column and bias of a class count only for nodes with samples of that label. Takes
    the memory of two models in float64, whatever the number of nodes.
    """

    def __init__(self, graph: Graph, weights: Sequence[npt.NDArray[np.float32]]) -> None:
        """Begin a round from global `weights`, one array per graph.tensors."""
        self._weights = weights
        self._trainable = [index for index, tensor in enumerate(graph.tensors) if tensor.trainable]
        self._class_axes = class_axes(graph)
        self._sums = {index: np.zeros(weights[index].shape, np.float64) for index in self._trainable}
        self._counts = {index: np.zeros(weights[index].shape, np.float64) for index in self._trainable}

    def add(self, contribution: Contribution) -> None:
        """Add one node's deltas; raises ValueError if they are not finite or not of the sub-model's shapes."""
        check(contribution, self._trainable)
        known = np.flatnonzero(contribution.label_counts)
        for index, delta in zip(self._trainable, contribution.delta, strict=True):
            axes = contribution.sub_model.slices[index]
            if index in self._class_axes and len(known) < len(contribution.label_counts):
                axis = self._class_axes[index]
                axes, delta = (*axes[:axis], axes[axis][known], *axes[axis + 1 :]), delta.take(known, axis)
            where = selection(axes)
            self._sums[index][where] += contribution.counts * delta.astype(np.float64)
            self._counts[index][where] += contribution.counts

    def result(self) -> Weights:
        """Return the new global weights."""
        weights = [np.array(tensor, np.float32) for tensor in self._weights]
        for index in self._trainable:
            held = self._counts[index] > 0
            mean = self._sums[index][held] / self._counts[index][held]
            weights[index][held] = (weights[index][held] + mean).astype(np.float32)
        return weights


def check(contribution: Contribution, trainable: Sequence[int]) -> None:
    """Raise ValueError if the deltas of tensors `trainable` are not finite or not of the sub-model's shapes."""
    for index, delta in zip(trainable, contribution.delta, strict=True):
        shape = tuple(len(axis) for axis in contribution.sub_model.slices[index])
        if delta.shape != shape or not np.isfinite(delta).all():
            raise ValueError(f"{contribution.node}: tensor {index} of its update is not finite or of another shape")


def class_axes(graph: Graph) -> dict[int, int]:
    """Return which axis of the output layer's tensors is the classes: {tensor index: axis}."""
    layer = next(layer for layer in reversed(graph.layers) if layer.weighted)
    if layer.out_shape[2] != graph.classes:  # a map, flattened: a channel is not a class
        return {}
    kernel_axis = -2 if layer.kind == "depthwise_conv2d" else -1
    return {
        index: len(tensor.shape) + (kernel_axis if tensor.role == "kernel" else -1)
        for index, tensor in enumerate(graph.tensors)
        if tensor.layer == layer.name
    }


def selection(axes: Sequence[npt.NDArray[np.intp]]) -> Selection:
    """Return what selects the product of `axes` from an array: views where every axis is a run, else index arrays."""
    runs = [len(axis) > 0 and bool((np.diff(axis) == 1).all()) for axis in axes]
    if all(runs):
        return tuple(slice(int(axis[0]), int(axis[-1]) + 1) for axis in axes)
    return tuple(np.ix_(*axes))
