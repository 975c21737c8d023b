"""Whether an update can be what an honest node would give: its norm and its direction, beside those of the others.

A sign flip turns the cosine with whatever is trusted. FLTrust (Cao et al. 2021) trains on the server for that; here it
is the other updates, or the last step of the global weights. docs/experiments.md has the figures behind the limits,
and what they cannot tell.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from codegen.graph import Graph
from coordinator.aggregation import Contribution, Weights
from coordinator.aggregation.substructure import selection

WITNESSES = 3  # other nodes that it takes to say what is usual
HUGE = 10.0  # times the usual norm
LEAST_GRADIENT = 0.1  # norm of a learning node's mean gradient: the others may not have begun to learn
HUGE_ALONE = 100.0  # times the norm of the weights, or of steps along gradients of norm 1
TINY = 0.1  # of the usual norm: what is smaller may point anywhere, and does no harm
AGREED = 0.12  # median cosine from which on the nodes are said to go one way
OPPOSED = -0.1  # cosine below which a node then goes another one

Flat = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Suspect:
    """A contribution to be judged."""

    contribution: Contribution
    reach: float  # learning rate × steps: how far they go along gradients of norm 1


def implausible(suspects: Sequence[Suspect], graph: Graph, weights: Weights, earlier: Weights | None) -> dict[str, str]:
    """Return which nodes' updates are not to be believed and why, in words that follow the name and a colon.

    `weights`: the global ones that the round began with; `earlier`: those before the last step, if there was one.
    """
    trainable = [index for index, tensor in enumerate(graph.tensors) if tensor.trainable]
    norms = [float(np.linalg.norm(_flat(each.contribution.delta))) for each in suspects]
    found = {}
    for index, suspect in enumerate(suspects):
        held = float(np.linalg.norm(_cut(suspect.contribution, weights, trainable)))
        reason = _huge(index, suspects, norms, held)
        if reason:
            found[suspect.contribution.node] = reason
    kept = [index for index, each in enumerate(suspects) if each.contribution.node not in found]
    rest = [suspects[index].contribution for index in kept]
    views = _views(rest, trainable, weights, earlier)
    return found | _opposed(rest, [norms[index] for index in kept], views)


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
    if len(contributions) <= WITNESSES:
        return {}
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


def _views(
    contributions: Sequence[Contribution], trainable: Sequence[int], weights: Weights, earlier: Weights | None
) -> Iterator[tuple[str, list[float]]]:
    """Yield what the updates can be compared with, in words, and the cosine of each."""
    pairs = _pairs(contributions, trainable, weights)
    yield "the other updates", [_median_of_others(row, index) for index, row in enumerate(pairs.tolist())]
    if earlier is not None:
        step = [new.astype(np.float64) - old for new, old in zip(weights, earlier, strict=True)]
        yield "the model's last step", [_cosine(each, step, trainable) for each in contributions]


def _pairs(contributions: Sequence[Contribution], trainable: Sequence[int], weights: Weights) -> Flat:
    """Return the cosine of each two updates on what both hold: [nodes, nodes], 0 where they share nothing."""
    count = len(contributions)
    products, squares = np.zeros((count, count)), np.zeros((count, count))
    for place, index in enumerate(trainable):
        deltas, held = np.zeros((2, count, *weights[index].shape))
        for row, each in enumerate(contributions):
            where = selection(each.sub_model.slices[index])
            deltas[row][where] = each.delta[place]
            held[row][where] = 1
        deltas, held = deltas.reshape(count, -1), held.reshape(count, -1)
        products += deltas @ deltas.T
        squares += deltas**2 @ held.T  # [i, j]: of i, on what j holds
    norms = np.sqrt(squares * squares.T)
    return np.divide(products, norms, out=np.zeros_like(products), where=norms > 0)


def _flat(tensors: Sequence[npt.NDArray[np.float32]]) -> Flat:
    return np.concatenate([tensor.astype(np.float64).reshape(-1) for tensor in tensors])


def _cut(contribution: Contribution, tensors: Sequence[npt.NDArray[Any]], trainable: Sequence[int]) -> Flat:
    """Return what a node's sub-model takes of the trainable global tensors, flat."""
    slices = contribution.sub_model.slices
    return np.concatenate(
        [np.asarray(tensors[index][selection(slices[index])], np.float64).reshape(-1) for index in trainable]
    )


def _cosine(contribution: Contribution, tensors: Sequence[Flat], trainable: Sequence[int]) -> float:
    """Return the cosine of an update with global tensors, on its own slice; 0 if one is null."""
    own, other = _flat(contribution.delta), _cut(contribution, tensors, trainable)
    norms = float(np.linalg.norm(own) * np.linalg.norm(other))
    return float(own @ other) / norms if norms else 0.0


def _median_of_others(values: Sequence[float], index: int) -> float:
    return float(np.median([*values[:index], *values[index + 1 :]]))
