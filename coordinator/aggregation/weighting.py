"""What a node counts in a mean, and how little it can gain by a lie about that."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np

from coordinator.aggregation import Contribution

Weighting = Literal["samples", "inverse_loss", "uniform"]

MOST = 4.0  # times the round's median weight: one liar of ten nodes has less than a third, however it lies
LEAST_LOSS = 1e-6  # nobody is trusted to have learnt its samples better than that


def weighted(contributions: Sequence[Contribution], rule: Weighting) -> list[Contribution]:
    """Return the contributions of a round with what each counts: its samples, 1 / its loss, or 1 (FedAvg's weights,
    McMahan et al. 2017, need no loss and trust the counts).

    Counts and losses are the nodes' own words. What exceeds MOST times the median counts as that much; to say too
    little only makes a node count less.
    """
    if not contributions:
        return []
    weights = np.array([_weight(each, rule) for each in contributions], np.float64)
    bounded = np.minimum(weights, MOST * np.median(weights)).tolist()
    return [replace(each, weight=weight) for each, weight in zip(contributions, bounded, strict=True)]


def _weight(contribution: Contribution, rule: Weighting) -> float:
    if rule == "inverse_loss":
        return 1 / max(contribution.loss, LEAST_LOSS)
    return float(contribution.samples) if rule == "samples" else 1.0
