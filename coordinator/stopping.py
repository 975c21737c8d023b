"""Which round is the best by the validation images, and when no more are run.

Both follow from the journal's lines alone, so that a resumed run goes the same way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .events import CheckpointWritten, Evaluated
from .journal import Line, of_kind


@dataclass(frozen=True)
class Standing:
    """A round, and how many of the validation images, 0 to 1, the widest tier gets right after it."""

    round: int
    accuracy: float


def ranking(lines: Sequence[Line], last: int) -> list[Standing]:
    """Return the rounds up to `last` that were judged by validation images, the best first; of equals the earlier."""
    judged = {
        line["round"]: next(iter(line["accuracy"].values()))  # the tiers stand there widest first
        for line in of_kind(lines, Evaluated)
        if line.get("images") == "validation" and line["accuracy"] and line["round"] <= last
    }
    return sorted((Standing(*item) for item in judged.items()), key=lambda each: (-each.accuracy, each.round))


def improves(lines: Sequence[Line], number: int, accuracy: float) -> bool:
    """Tell whether the widest tier's `accuracy` on the validation images after round `number` is the best so far."""
    earlier = ranking(lines, number - 1)
    return not earlier or accuracy > earlier[0].accuracy


def fruitless(lines: Sequence[Line], number: int) -> int:
    """Return how many rounds up to `number` have changed the weights since the best one of them."""
    best = ranking(lines, number)
    since = best[0].round if best else number
    return len({line["round"] for line in of_kind(lines, CheckpointWritten) if since < line["round"] <= number})
