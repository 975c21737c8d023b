"""Whether an update can be what an honest node would give: its norm and its direction, beside those of the others.

A sign flip turns the cosine with whatever is trusted. FLTrust (Cao et al. 2021) trains on the server for that; here it
is the other updates, or the last step of the global weights. docs/experiments.md has the figures behind the limits,
and what they cannot tell.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from codegen.graph import Graph
from codegen.tiers import SubModel, Tier, sub_model
from coordinator.aggregation import Contribution, Weights
from coordinator.aggregation.substructure import selection
from coordinator.deltas import Delta

WITNESSES = 3  # other nodes that it takes to say what is usual
HUGE = 10.0  # times the usual norm
LEAST_GRADIENT = 0.1  # norm of a learning node's mean gradient: the others may not have begun to learn
HUGE_ALONE = 100.0  # times the norm of the weights, or of steps along gradients of norm 1
TINY = 0.1  # of the usual norm: what is smaller may point anywhere, and does no harm
AGREED = 0.12  # median cosine from which on the nodes are said to go one way
OPPOSED = -0.1  # cosine below which a node then goes another one
AGAINST = 0.0  # cosine with each of the others, below which an update is told of: no honest one's largest is
PLACES = 1 << 14  # of a tensor, at most: a thousand nodes take 64 MB and seconds, whatever the model
BLOCK = 1 << 11  # of them at a time in float64

Flat = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Suspect:
    """A contribution to be judged."""

    contribution: Contribution
    reach: float  # learning rate × steps: how far they go along gradients of norm 1


@dataclass(frozen=True)
class Verdict:
    """What is thought of a round's contributions."""

    refused: dict[str, str]  # nodes whose updates are not to be believed, and why: words that follow a name and a colon
    against: tuple[str, ...]  # other nodes, whose updates point away from every other


def judge(suspects: Sequence[Suspect], graph: Graph, weights: Weights, earlier: Weights | None) -> Verdict:
    """Judge all contributions of a round beside each other.

    `weights`: the global ones that the round began with; `earlier`: those before the last step, if there was one.
    """
    trainable = [index for index, tensor in enumerate(graph.tensors) if tensor.trainable]
    norms = [_delta(each.contribution).norm for each in suspects]
    held: dict[int, float] = {}  # by sub-model
    found = {}
    for index, suspect in enumerate(suspects):
        cut = suspect.contribution.sub_model
        if id(cut) not in held:
            held[id(cut)] = _norm(cut, weights, trainable)
        reason = _huge(index, suspects, norms, held[id(cut)])
        if reason:
            found[suspect.contribution.node] = reason
    kept = [index for index, each in enumerate(suspects) if each.contribution.node not in found]
    rest = [suspects[index].contribution for index in kept]
    if len(rest) <= WITNESSES:
        return Verdict(found, ())
    pairs, last = _cosines(rest, graph, weights, earlier)
    found |= _opposed(rest, [norms[index] for index in kept], _views(pairs, last))
    np.fill_diagonal(pairs, -1)
    away = pairs.max(axis=1) < AGAINST
    against = tuple(each.node for each, is_away in zip(rest, away, strict=True) if is_away and each.node not in found)
    return Verdict(found, against)


def _huge(index: int, suspects: Sequence[Suspect], norms: Sequence[float], held: float) -> str:
    """Return why an update is too large to be true; empty if it is not. `held`: the norm of its weights."""
    norm, own = norms[index], suspects[index]
    others = [
        norms[at] * max(1.0, own.contribution.samples / max(other.contribution.samples, 1))  # more steps go further
        for at, other in enumerate(suspects)
        if at != index
    ]
    if len(others) < WITNESSES:
        limit = HUGE_ALONE * max(held, own.reach)
        why = "its weights and steps explain"
    else:
        limit = HUGE * max(float(np.median(others)), LEAST_GRADIENT * own.reach)
        why = f"{len(others)} others let expect"
    return f"its update has norm {norm:.3g}, more than {limit:.3g}, the most that {why}" if norm > limit else ""


def _opposed(
    contributions: Sequence[Contribution], norms: Sequence[float], views: Iterable[tuple[str, list[float]]]
) -> dict[str, str]:
    """Return which updates point against where the others go, and why.

    Only views in which the others agree count, and none may speak for the update. Where they agree in none, as at the
    end of a training on unlike data, nobody is judged.
    """
    agreed = [(what, cosines) for what, cosines in views if np.median(cosines) >= AGREED]
    found = {}
    for index, contribution in enumerate(contributions):
        seen = [
            (cosines[index], what, usual)
            for what, cosines in agreed
            if (usual := _median_of_others(cosines, index)) >= AGREED
        ]
        tiny = norms[index] < TINY * _median_of_others(norms, index)
        if not tiny and seen and min(seen)[0] < OPPOSED and max(seen)[0] < 0:
            cosine, what, usual = min(seen)
            told = f"cosine {cosine:.2f} with {what}, where the others have {usual:.2f}"
            found[contribution.node] = f"its update points the other way: {told}"
    return found


def _views(pairs: Flat, last: list[float]) -> Iterator[tuple[str, list[float]]]:
    """Yield what the updates can be compared with, in words, and the cosine of each; as `_cosines` has them."""
    yield "the other updates", [_median_of_others(row, index) for index, row in enumerate(pairs.tolist())]
    if last:
        yield "the model's last step", last


def _cosines(
    contributions: Sequence[Contribution], graph: Graph, weights: Weights, earlier: Weights | None
) -> tuple[Flat, list[float]]:
    """Return the cosine of each two updates, [nodes, nodes], and of each with the model's last step, if there was
    one."""
    everyone, count = [*contributions], len(contributions)
    if earlier is not None:
        step = [new - old for tensor, new, old in zip(graph.tensors, weights, earlier, strict=True) if tensor.trainable]
        everyone.append(Contribution("", sub_model(graph, Tier("all", 1.0)), step, 0, ()))
    pairs = _pairs(everyone, [index for index, tensor in enumerate(graph.tensors) if tensor.trainable], weights)
    return pairs[:count, :count], [] if earlier is None else pairs[:count, count].tolist()


def _pairs(contributions: Sequence[Contribution], trainable: Sequence[int], weights: Weights) -> Flat:
    """Return the cosine of each two updates on what both hold: [nodes, nodes], 0 where they share nothing.

    Of a tensor with more than PLACES elements so many are looked at. Which, is drawn by the norms of all updates: who
    would hide a lie between them had to know the others' updates first.
    """
    deltas = [_delta(each) for each in contributions]
    drawn = hashlib.blake2s(np.sort([each.norm for each in deltas]).tobytes()).digest()
    random = np.random.default_rng(list(drawn))
    cuts = {id(each.sub_model): each.sub_model for each in contributions}
    kind = [list(cuts).index(id(each.sub_model)) for each in contributions]
    products, squares = np.zeros((len(deltas), len(deltas))), np.zeros((len(deltas), len(cuts)))
    starts = [0] * len(cuts)  # of the tensor in each sub-model's update
    for index in trainable:
        size = weights[index].size
        chosen = np.sort(random.choice(size, PLACES, replace=False)) if size > PLACES else np.arange(size)
        places = [_places(cut, index, weights[index].shape).reshape(-1)[chosen] for cut in cuts.values()]
        held = np.array([place >= 0 for place in places])
        values = np.zeros((len(deltas), chosen.size), np.float32)
        for row, delta, which in zip(values, deltas, kind, strict=True):
            row[held[which]] = delta.take(starts[which] + places[which][held[which]])
        for begin in range(0, chosen.size, BLOCK):
            block = values[:, begin : begin + BLOCK].astype(np.float64)
            products += size / chosen.size * (block @ block.T)
            squares += size / chosen.size * (block**2 @ held[:, begin : begin + BLOCK].T)
        starts = [start + cut.graph.tensors[index].size for start, cut in zip(starts, cuts.values(), strict=True)]
    shared = squares[:, kind]  # [i, j]: of i, on what j holds
    norms = np.sqrt(shared * shared.T)
    return np.divide(products, norms, out=np.zeros_like(products), where=norms > 0)


def _places(cut: SubModel, index: int, shape: tuple[int, ...]) -> npt.NDArray[np.intp]:
    """Return where each element of a global tensor is in a sub-model's: [shape], -1 if it is not."""
    places = np.full(shape, -1, np.intp)
    held = cut.graph.tensors[index]
    places[selection(cut.slices[index])] = np.arange(held.size).reshape(held.shape)
    return places


def _delta(contribution: Contribution) -> Delta:
    return Delta.of(contribution.sub_model.graph, contribution.delta)


def _norm(cut: SubModel, tensors: Weights, trainable: Sequence[int]) -> float:
    """Return the norm of what a sub-model takes of the trainable global tensors."""
    parts = (tensors[index][selection(cut.slices[index])].astype(np.float64) for index in trainable)
    return float(np.sqrt(sum((part**2).sum() for part in parts)))


def _median_of_others(values: Sequence[float], index: int) -> float:
    return float(np.median([*values[:index], *values[index + 1 :]]))
