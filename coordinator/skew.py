"""How unlike the nodes' labels are."""

from __future__ import annotations

import math
from collections.abc import Sequence

EVEN = 0.1  # skew below which nodes count as alike


def skew(label_counts: Sequence[Sequence[int]]) -> float:
    """Return how far the label shares of nodes [nodes][classes] lie from those of all together: 0, alike, to 1.

    The mean over the nodes of the total variation distance, less what chance alone would make of so few samples.
    """
    counts = [row for row in label_counts if sum(row)]
    if not counts:
        return 0.0
    whole = math.fsum(sum(row) for row in counts)
    shares = [math.fsum(column) / whole for column in zip(*counts, strict=True)]
    return math.fsum(_distance(row, shares) for row in counts) / len(counts)


def _distance(counts: Sequence[int], shares: Sequence[float]) -> float:
    samples = sum(counts)
    apart = math.fsum(abs(count / samples - share) for count, share in zip(counts, shares, strict=True)) / 2
    chance = math.fsum(math.sqrt(2 * share * (1 - share) / (math.pi * samples)) for share in shares) / 2
    return max(0.0, apart - chance)
