"""Rules that a few lying nodes cannot bend far, over slices: a parameter is a matter among the nodes that hold it.

Published rules are for updates of one size. Here "usual" is told parameter by parameter, as the median of the squares
of those who hold it, so that a wide node's update is compared with what wide nodes send, and two nodes on what both
hold. A part that only liars hold is theirs under any rule but Krum's, which drops nodes whole; plausibility.py is
there for that, too. docs/experiments.md has the figures behind the constants.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from codegen.graph import Graph
from coordinator.aggregation import Aggregator, Contribution, Weights
from coordinator.aggregation.substructure import Substructure, check
from coordinator.aggregation.table import Table, tables

Rule = Literal["none", "clip", "median", "trimmed_mean", "krum"]
Flat = npt.NDArray[np.float64]

CLIP = 1.5  # times the usual length, beyond which an update is shortened


def aggregator(rule: Rule, graph: Graph, weights: Weights, faulty: float) -> Aggregator:
    """Return what joins a round's contributions by `rule`, from global `weights`, one array per graph.tensors.

    `faulty`: the share of the nodes, 0 to 0.5, that the trimmed mean and Krum reckon with."""
    return Substructure(graph, weights) if rule == "none" else Robust(rule, graph, weights, faulty)


class Robust:
    """Keeps the contributions of a round, because a rule needs all of them at once; satisfies Aggregator.

    Clipping and Krum take the nodes' weights for what is left; the median and the trimmed mean count every node alike,
    so that there is nothing to gain by a weight.
    """

    def __init__(self, rule: Rule, graph: Graph, weights: Weights, faulty: float) -> None:
        """Begin a round from global `weights`."""
        self._rule, self._graph, self._weights, self._faulty = rule, graph, weights, faulty
        self._contributions: list[Contribution] = []

    def add(self, contribution: Contribution) -> None:
        """Take one contribution. Raises ValueError as Substructure does."""
        check(contribution)
        self._contributions.append(contribution)

    def result(self) -> Weights:
        """Return the new global weights; what nobody holds keeps its bits."""
        if self._rule == "median":
            return self._moved(median)
        if self._rule == "trimmed_mean":
            return self._moved(lambda table: trimmed_mean(table, self._faulty))
        left = self._contributions
        mean = Substructure(self._graph, self._weights)
        for each in clipped(left, self._graph) if self._rule == "clip" else krum(left, self._graph, self._faulty):
            mean.add(each)
        return mean.result()

    def _moved(self, rule: Callable[[Table], Flat]) -> Weights:
        weights = [np.array(tensor, np.float32) for tensor in self._weights]
        for index, block, table in tables(self._graph, self._contributions):
            part = weights[index][..., block]
            held = ~np.isnan(table).all(axis=0).reshape(part.shape)
            moved = (part + rule(table).reshape(part.shape)).astype(np.float32)
            part[held] = moved[held]
        return weights


def median(table: Table) -> Flat:
    """Return the median of each column of [nodes, parameters], NaN left out (Yin et al. 2018); 0 for an empty one.

    Of an even number, the middle value nearer to zero, or zero between them: as if the old weight had a vote. So of two
    holders none can turn what the other learns.
    """
    ordered, counts = _ordered(table)
    return _middle(ordered, counts)


def trimmed_mean(table: Table, faulty: float) -> Flat:
    """Return the mean of each column of [nodes, parameters], NaN left out, without the `faulty` share of its values,
    rounded up, at either end (Yin et al. 2018); of two values, as `median`; 0 for an empty column."""
    ordered, counts = _ordered(table)
    trim = np.minimum(_liars(faulty, counts), np.maximum(counts - 1, 0) // 2)
    rows = np.arange(len(table))[:, None]
    kept = np.where((rows >= trim) & (rows < counts - trim), ordered, 0).sum(axis=0, dtype=np.float64)
    return np.where(counts == 2, _middle(ordered, counts), kept / np.maximum(counts - 2 * trim, 1))


def clipped(contributions: Sequence[Contribution], graph: Graph) -> list[Contribution]:
    """Return the contributions, those longer than CLIP times what is usual shortened to that.

    An update's length counts beside the usual one of its own parameters; the median of that over the nodes is usual.
    """
    squares, typical = np.zeros(len(contributions)), np.zeros(len(contributions))
    for _, _, table in tables(graph, contributions):
        held = ~np.isnan(table)
        squares += np.square(np.where(held, table, 0), dtype=np.float64).sum(axis=1)
        typical += held @ _typical(table)
    lengths = np.sqrt(_ratio(squares, typical))
    limit = CLIP * float(np.median(lengths)) if len(lengths) else math.inf
    return [
        each if length <= limit or not math.isfinite(limit) else _scaled(each, limit / length)
        for each, length in zip(contributions, lengths.tolist(), strict=True)
    ]


def krum(contributions: Sequence[Contribution], graph: Graph, faulty: float) -> list[Contribution]:
    """Return the contributions without those farthest from their neighbours: multi-Krum (Blanchard et al. 2017).

    Of n nodes f are dropped, the `faulty` share, rounded up, but so few that n >= 2 f + 3. A node's score is the sum of
    the squared distances to the n - f - 2 nodes next to it, each over what both hold and beside what is usual there;
    who shares nothing with so many has nobody to speak for it.
    """
    count = len(contributions)
    liars = min(int(_liars(faulty, np.array(count))), (count - 3) // 2)
    if liars < 1:
        return list(contributions)
    apart = distances(contributions, graph)
    np.fill_diagonal(apart, math.inf)
    scores = np.sort(apart, axis=1)[:, : count - liars - 2].sum(axis=1)
    chosen = np.sort(np.argsort(scores, kind="stable")[: count - liars])
    return [contributions[index] for index in chosen.tolist()]


def distances(contributions: Sequence[Contribution], graph: Graph) -> Flat:
    """Return the squared distance of each two updates on what both hold, in units of the usual squared length there:
    [nodes, nodes], infinite where they share nothing."""
    count = len(contributions)
    products, squares, typical, shared = np.zeros((4, count, count))
    for _, _, table in tables(graph, contributions):
        held = ~np.isnan(table)
        values = np.where(held, table, 0).astype(np.float64)
        mask = held.astype(np.float64)
        products += values @ values.T
        squares += values**2 @ mask.T  # [i, j]: of i, on what j holds
        typical += (mask * _typical(table)) @ mask.T
        shared += mask @ mask.T
    apart = _ratio(np.maximum(squares + squares.T - 2 * products, 0), typical)
    return np.where(shared > 0, apart, math.inf)


def _liars(faulty: float, counts: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
    return np.asarray(np.ceil(faulty * counts - 1e-9), np.intp)  # 0.2 of 35 is 7, not a little more


def _ordered(table: Table) -> tuple[Table, npt.NDArray[np.intp]]:
    """Return the columns in order, NaN last, and how many of each are not."""
    return np.sort(table, axis=0), (~np.isnan(table)).sum(axis=0)


def _middle(ordered: Table, counts: npt.NDArray[np.intp]) -> Flat:
    low, high = (
        np.take_along_axis(ordered, at[None], axis=0)[0] for at in (np.maximum(counts - 1, 0) // 2, counts // 2)
    )
    return np.where(counts > 0, np.clip(0.0, low, high), 0.0)


def _typical(table: Table) -> Flat:
    """Return the median of the squares of each column, the lower of two; 0 for an empty one."""
    ordered, counts = _ordered(np.abs(table))
    middle = np.take_along_axis(ordered, np.maximum(counts - 1, 0)[None] // 2, axis=0)[0].astype(np.float64)
    return np.where(counts > 0, middle**2, 0.0)


def _ratio(squares: Flat, typical: Flat) -> Flat:
    """Return squares in units of what is typical: infinite where nothing else is."""
    empty = np.where(squares > 0, math.inf, 0.0)
    return np.divide(squares, typical, out=empty, where=typical > 0)


def _scaled(contribution: Contribution, factor: float) -> Contribution:
    return replace(contribution, delta=[(factor * delta).astype(np.float32) for delta in contribution.delta])
