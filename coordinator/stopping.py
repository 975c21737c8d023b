"""Which round is the best by the validation images, and when no more are run.

Both follow from the journal's lines alone, so that a resumed run goes the same way.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .events import CheckpointWritten, Evaluated
from .journal import Line, of_kind


@dataclass(frozen=True)
class Standing:
    """A round, and how many of the validation images, 0 to 1, are got right after it."""

    round: int
    accuracy: float  # by the widest tier
    mean: float  # over all tiers: decides where the widest are equal, as they often are of few images

    @property
    def merit(self) -> tuple[float, float]:
        """What makes a round better than another."""
        return self.accuracy, self.mean


def standing(number: int, shares: Mapping[str, float]) -> Standing:
    """Return how a round stands with these accuracies, by tier, the widest first."""
    values = list(shares.values())
    return Standing(number, values[0], math.fsum(values) / len(values))


def ranking(lines: Sequence[Line], last: int) -> list[Standing]:
    """Return the rounds up to `last` that were judged by validation images, the best first; of equals the earlier."""
    judged = {
        line["round"]: line["accuracy"]
        for line in of_kind(lines, Evaluated)
        if line.get("images") == "validation" and line["accuracy"] and line["round"] <= last
    }
    stood = (standing(*item) for item in sorted(judged.items()))
    return sorted(stood, key=lambda each: each.merit, reverse=True)  # reverse keeps equals in their order


def improves(lines: Sequence[Line], found: Standing) -> bool:
    """Tell whether a round is better than all before it."""
    earlier = ranking(lines, found.round - 1)
    return not earlier or found.merit > earlier[0].merit


def fruitless(lines: Sequence[Line], number: int) -> int:
    """Return how many rounds up to `number` have changed the weights since the best one of them."""
    best = ranking(lines, number)
    since = best[0].round if best else number
    return len({line["round"] for line in of_kind(lines, CheckpointWritten) if since < line["round"] <= number})
