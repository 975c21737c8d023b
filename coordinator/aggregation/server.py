"""Server optimisers: the mean update of a round as a gradient (Reddi et al. 2021: FedAvgM and FedAdam).

The moments are part of the run's state, float32, one array per tensor of the global model; frozen ones stay zero.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from coordinator.aggregation import Weights

Rule = Literal["none", "momentum", "adam"]
Moments = tuple[Weights, ...]  # none yet, or as many as the rule has

RATES = {"momentum": 1.0, "adam": 0.01}  # server learning rates that go without being said
SECOND = 0.99  # of adam: what the second moment keeps in a round
ADAPTIVITY = 1e-3  # of adam: added to the root of the second moment


@dataclass(frozen=True)
class Server:
    """A rule and its figures."""

    rule: Rule = "none"
    learning_rate: float | None = None  # None: the rule's own
    momentum: float = 0.9  # what the first moment keeps in a round

    def step(self, before: Weights, mean: Weights, moments: Moments) -> tuple[Weights, Moments]:
        """Return the weights and moments after a round that began with `before` and whose mean came to `mean`."""
        if self.rule == "none":
            return mean, ()
        updates = [new - old for new, old in zip(mean, before, strict=True)]
        rate, keeps = np.float32(self.learning_rate or RATES[self.rule]), np.float32(self.momentum)
        zeros = [np.zeros_like(tensor) for tensor in before]
        if self.rule == "momentum":
            first = [keeps * old + new for old, new in zip(*(moments or (zeros,)), updates, strict=True)]
            return [old + rate * step for old, step in zip(before, first, strict=True)], (first,)
        old_first, old_second = moments or (zeros, zeros)
        first = [old + (1 - keeps) * (new - old) for old, new in zip(old_first, updates, strict=True)]
        share = np.float32(1 - SECOND)
        second = [old + share * (new * new - old) for old, new in zip(old_second, updates, strict=True)]
        steps = [up / (np.sqrt(of) + np.float32(ADAPTIVITY)) for up, of in zip(first, second, strict=True)]
        return [old + rate * step for old, step in zip(before, steps, strict=True)], (first, second)


def averaged(average: Weights | None, weights: Weights, keeps: float) -> Weights | None:
    """Return the running mean of the weights over rounds, of which it `keeps` a share each time; None if nothing."""
    if keeps == 0:
        return None
    old, new = np.float32(keeps), np.float32(1 - keeps)
    return weights if average is None else [old * a + new * b for a, b in zip(average, weights, strict=True)]
