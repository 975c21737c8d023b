"""Averaging over shared substructures: each global parameter moves by the mean of the nodes that hold it."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from codegen.graph import Graph
from codegen.tiers import SubModel
from coordinator.aggregation import Contribution, Weights, sums
from coordinator.deltas import Delta, UpdateError

Selection = tuple[slice, ...] | tuple[npt.NDArray[np.intp], ...]
Doubles = npt.NDArray[np.float64]
Axes = Sequence[npt.NDArray[np.intp]]


class Substructure:
    """The weighted mean of the deltas of the nodes that hold a parameter, added to its old value.

    Sums are float64: of each sub-model's nodes in the order of `add`, then of the sub-models in the order of their
    first nodes. Results are float32. A parameter that nobody holds keeps its bits, frozen tensors too. The output
    layer's column and bias of a class count only for nodes with samples of that label. Takes the memory of each
    sub-model once in float64, and of the last few updates as they came, whatever the number of nodes.
    """

    def __init__(self, graph: Graph, weights: Sequence[npt.NDArray[np.float32]]) -> None:
        """Begin a round from global `weights`, one array per graph.tensors."""
        self._graph, self._weights = graph, weights
        self._class_axes = class_axes(graph)
        self._cuts: list[_Cut] = []

    def add(self, contribution: Contribution) -> None:
        """Add one node's deltas; raises ValueError if they are not of the sub-model's shapes or, at the latest in
        `result`, not finite: then nothing comes of this round."""
        self._of(contribution.sub_model).add(contribution)

    def result(self) -> Weights:
        """Return the new global weights."""
        weights = [np.array(tensor, np.float32) for tensor in self._weights]
        parts = [cut.sums() for cut in self._cuts]
        for index, tensor in enumerate(self._graph.tensors):
            if tensor.trainable and parts:
                held = [(cut.sub_model.slices[index], next(part)) for cut, part in zip(self._cuts, parts, strict=True)]
                counts = [cut.counts(self._class_axes.get(index), len(tensor.shape)) for cut in self._cuts]
                sums.move(weights[index], *_joined(tensor.shape, held, counts))
        return weights

    def _of(self, sub_model: SubModel) -> _Cut:
        for alike in (operator.is_, _same):  # a round makes one object a tier and arithmetic
            for cut in self._cuts:
                if alike(cut.sub_model, sub_model):
                    return cut
        cut = _Cut(sub_model, list(self._class_axes))
        self._cuts.append(cut)
        return cut


class _Cut:
    """The sum over the nodes that hold one and the same part of the global model."""

    def __init__(self, sub_model: SubModel, by_class: Sequence[int]) -> None:
        """`by_class`: the tensors with an axis of classes, the last ones."""
        self.sub_model = sub_model
        graph = sub_model.graph
        self._plain = graph.parameters - sum(graph.tensors[at].size for at in by_class if graph.tensors[at].trainable)
        self._sums = np.zeros(graph.parameters)
        self._counts = np.zeros(1 + graph.classes)  # of what has no class, and of each class
        self._waiting: list[tuple[Contribution, Delta]] = []

    def add(self, contribution: Contribution) -> None:
        self._waiting.append((contribution, _delta(contribution)))
        if len(self._waiting) == sums.NODES:
            self._flush()

    def sums(self) -> Iterator[Doubles]:
        """Yield the sums of each trainable tensor."""
        self._flush()
        at = 0
        for shape in self.sub_model.graph.shapes:
            size = math.prod(shape)
            yield self._sums[at : at + size].reshape(shape)
            at += size

    def counts(self, class_axis: int | None, axes: int) -> Doubles:
        """Return what the nodes of a tensor's sums count together, to be broadcast along its axes."""
        counts = self._counts[:1] if class_axis is None else self._counts[1:]
        return counts.reshape([-1 if axis == class_axis else 1 for axis in range(axes)])

    def _flush(self) -> None:
        waiting, self._waiting = self._waiting, []
        if not waiting:
            return
        known = np.array([(1, *each.label_counts) for each, _ in waiting]) > 0
        weights = np.where(known, np.array([[each.counts] for each, _ in waiting]), 0.0)
        for row in weights:  # one after the other: the order of a sum is part of its bits
            self._counts += row
        blobs, q8 = [delta.blob for _, delta in waiting], [delta.q8 for _, delta in waiting]
        if not sums.add(self._sums, self._plain, blobs, q8, weights):
            for each, _ in waiting:
                check(each)


def check(contribution: Contribution) -> None:
    """Raise ValueError unless its deltas are finite and of its sub-model's shapes."""
    try:
        _delta(contribution).check()
    except UpdateError as error:
        raise ValueError(f"{contribution.node} {error}") from None


def _delta(contribution: Contribution) -> Delta:
    try:
        return Delta.of(contribution.sub_model.graph, contribution.delta)
    except UpdateError as error:
        raise ValueError(f"{contribution.node} {error}") from None


def _joined(
    shape: tuple[int, ...], held: Sequence[tuple[Axes, Doubles]], counts: Sequence[Doubles]
) -> tuple[Doubles, Doubles]:
    """Return the sums of a tensor over all cuts, where each holds it, and what they count together."""
    if len(held) == 1 and held[0][1].shape == shape and isinstance(selection(held[0][0])[0], slice):
        return held[0][1], counts[0]  # all of it, as it is
    total, counted = np.zeros(shape), np.zeros(shape)
    for (axes, part), count in zip(held, counts, strict=True):
        where = selection(axes)
        total[where] += part
        counted[where] += count
    return total, counted


def _same(one: SubModel, other: SubModel) -> bool:
    """Whether two sub-models take the same part of the global model."""
    return all(
        len(mine) == len(theirs) and all(map(np.array_equal, mine, theirs))
        for mine, theirs in zip(one.slices, other.slices, strict=True)
    )


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


def selection(axes: Axes) -> Selection:
    """Return what selects the product of `axes` from an array: views where every axis is a run, else index arrays."""
    runs = [len(axis) > 0 and bool((np.diff(axis) == 1).all()) for axis in axes]
    if all(runs):
        return tuple(slice(int(axis[0]), int(axis[-1]) + 1) for axis in axes)
    return tuple(np.ix_(*axes))
