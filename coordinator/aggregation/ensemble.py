"""The ensemble: what the models that the nodes returned say of the proxy images together.

Lin et al. 2020 (FedDF) average logits; here each node's are centred first, because a model's logits have no origin. All
arithmetic is in an order and in operations that give the same bits on every machine.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from codegen.graph import Graph
from codegen.planner import Training
from codegen.tiers import SubModel, Tier, hidden_layers, sub_model
from codegen.weights import pack
from coordinator.aggregation import Contribution, Weights
from coordinator.aggregation.substructure import selection
from coordinator.inprocess.engine import Engine
from coordinator.inprocess.host import host_plan
from coordinator.state import TARGET_SUM, Targets

Images = npt.NDArray[np.uint8]  # [n, features...]
Flat = npt.NDArray[np.float64]

LN2_HIGH, LN2_LOW = 0.693147180369123816490, 1.90821492927058770002e-10
EXP_TERMS = 14  # of the series: exact to a few last places for |x| <= ln 2 / 2
LEAST_EXPONENT = -700.0  # what is smaller is 0 beside 1


class HostModel:
    """The global model in this process, at the width of every tier."""

    def __init__(self, graph: Graph, tiers: Sequence[Tier], weights: Weights, training: Training) -> None:
        """Compile it, with the frozen ones of `weights`. Raises CompilerError."""
        self.plan = host_plan(graph, tiers, training)
        self.engine = Engine(self.plan, weights)
        self._slices = {_channels(cut): (width, cut) for width, cut in enumerate(self._cuts(graph))}

    def _cuts(self, graph: Graph) -> list[SubModel]:
        return [sub_model(graph, tier) for tier in self.plan.widths]

    def load(self, weights: Weights) -> None:
        """Put global weights in."""
        self.engine.weights = pack(self.plan, weights)

    def logits(self, of: SubModel, tensors: Weights, images: Images) -> npt.NDArray[np.float32]:
        """Return what a sub-model with these trainable tensors says: [n, classes]. Whichever channels it was cut from,
        it computes what the first ones do with its weights in them."""
        width, cut = self._slices[_channels(of)]
        graph = self.plan.sub_model.graph
        whole = [np.zeros(tensor.shape, np.float32) for tensor in graph.tensors]
        trainable = [index for index, tensor in enumerate(graph.tensors) if tensor.trainable]
        for index, values in zip(trainable, tensors, strict=True):
            whole[index][selection(cut.slices[index])] = values
        self.load(whole)
        return self.engine.logits(images, width)


def _channels(cut: SubModel) -> tuple[int, ...]:
    return tuple(layer.out_shape[2] for layer in hidden_layers(cut.graph))


def rebuilt(contribution: Contribution, weights: Weights) -> Weights:
    """Return the trainable tensors of the model that a node returned; `weights`: the global ones that the round began
    with."""
    cut = contribution.sub_model
    before = [part for part, tensor in zip(cut.cut(weights), cut.graph.tensors, strict=True) if tensor.trainable]
    return [old + delta for old, delta in zip(before, contribution.delta, strict=True)]


class Ensemble:
    """Takes each node's logits on the proxy images, in the order of the federation file, and gives their targets."""

    def __init__(self, robust: bool = False) -> None:
        """robust: take the median of the logits, which a few lying models cannot bend far, instead of their mean."""
        self._robust = robust
        self._centred: list[Flat] = []

    def add(self, logits: npt.NDArray[np.float32]) -> None:
        """Take one model's logits: [proxy, classes]."""
        self._centred.append(_centred(logits))

    def targets(self) -> Targets:
        """Return the soft targets: softmax of the mean (or median) of the centred logits, in 1/255."""
        if self._robust:
            return quantised(softmax(np.median(self._centred, axis=0)))
        return quantised(softmax(sum(self._centred[1:], start=self._centred[0]) / len(self._centred)))


def _centred(logits: npt.NDArray[np.float32]) -> Flat:
    values = logits.astype(np.float64)
    return np.asarray(values - _total(values) / values.shape[1])


def _total(values: Flat) -> Flat:
    """Return the sums of the rows, [n, 1], taken from the left: numpy's own sums may be in any order."""
    return np.asarray(np.add.accumulate(values, axis=1)[:, -1:])


def softmax(logits: Flat) -> Flat:
    """Return the shares that logits [n, classes] stand for."""
    powers = _exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / _total(powers))


def _exp(x: Flat) -> Flat:
    """Return e to the power of what is not above 0: a C library's differs in its last places from the next one's."""
    x = np.maximum(x, LEAST_EXPONENT)
    doublings = np.rint(x / (LN2_HIGH + LN2_LOW))
    rest = x - doublings * LN2_HIGH - doublings * LN2_LOW
    series = np.ones_like(x)
    for term in range(EXP_TERMS, 0, -1):
        series = 1.0 + series * rest / term
    return np.ldexp(series, doublings.astype(np.int32))


def quantised(shares: Flat) -> Targets:
    """Return rows of u8 near 255 × `shares`, each of sum 255: what is cut off goes where most was, ties to the left."""
    scaled = shares * TARGET_SUM
    whole = np.floor(scaled).astype(np.int64)
    lacking = TARGET_SUM - whole.sum(axis=1, keepdims=True)
    order = np.argsort(whole - scaled, axis=1, kind="stable")
    rank = np.empty_like(order)
    np.put_along_axis(rank, order, np.arange(shares.shape[1])[None, :], axis=1)
    return np.asarray(whole + (rank < lacking), np.uint8)
