"""How unlike the labels are that a tier's parameters learn from."""

from __future__ import annotations

import math
from collections.abc import Sequence

APART = 0.45  # skew from which the mean of the nodes is distilled from their ensemble in every round


def skew(label_counts: Sequence[Sequence[int]], sizes: Sequence[int]) -> float:
    """Return how far the labels that some parameters learn from lie from all labels: 0, alike, to 1.

    label_counts: of nodes [nodes][classes]; sizes: of their sub-models. What only nodes of at least some size hold
    learns from their labels alone. The largest total variation distance of such nodes' label shares from those of all,
    less what chance alone would make of so few samples.
    """
    counts = [(size, row) for size, row in zip(sizes, label_counts, strict=True) if sum(row)]
    if not counts:
        return 0.0
    held = [_total([row for size, row in counts if size >= least]) for least in sorted({size for size, _ in counts})]
    whole = sum(held[0])
    return max(_distance(row, [count / whole for count in held[0]]) for row in held)


def _total(rows: Sequence[Sequence[int]]) -> list[int]:
    return [sum(column) for column in zip(*rows, strict=True)]


def _distance(counts: Sequence[int], shares: Sequence[float]) -> float:
    samples = sum(counts)
    apart = math.fsum(abs(count / samples - share) for count, share in zip(counts, shares, strict=True)) / 2
    chance = math.fsum(math.sqrt(2 * share * (1 - share) / (math.pi * samples)) for share in shares) / 2
    return max(0.0, apart - chance)
