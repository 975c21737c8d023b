"""`trainable = "auto"`: the fewest leading layers frozen into flash with which every board holds a tier."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from boards import Board
from codegen.graph import Graph, frozen_crc
from codegen.planner import Plan, PlanError, Training, plan
from codegen.tiers import Tier, nested

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Freezing:
    """A graph, and which of its leading layers were frozen for which board's sake."""

    graph: Graph
    layers: tuple[str, ...] = ()
    reason: str = ""

    @property
    def sentence(self) -> str:
        """What a plan says of it."""
        if not self.layers:
            return "auto: no layer is frozen, because every board holds a tier of the whole model"
        *others, last = self.layers
        names = f"{', '.join(others)} and {last} are" if others else f"{last} is"
        return f"auto: {names} frozen, because {self.reason}"


def auto(
    boards: Sequence[Board], graph: Graph, weights: Sequence[np.ndarray], tiers: Sequence[Tier], training: Training
) -> Freezing:
    """Freeze as few leading layers as let each of `boards` hold at least its narrowest tier.

    `weights` are the global ones, in `graph.tensors` order: frozen, they are part of the model that both sides must
    agree on. Raises PlanError if not even the last layer can be trained on some board, and TierError.
    """
    names = [layer.name for layer in graph.layers if layer.trainable]
    narrowest = nested(graph, tiers)[-1]
    found = Freezing(graph)
    for count in range(len(names)):
        found = replace(found, graph=freeze(graph, weights, names[:count]), layers=tuple(names[:count]))
        plans = [plan(board, found.graph, tiers, narrowest, training) for board in boards]
        worst = max(plans, key=lambda made: made.missing_bytes)
        if worst.fits:
            return found
        with_last = f" with {names[count]} trained" if count else ""
        found = replace(found, reason=f"{_short(worst)}{with_last}")
    raise PlanError(
        f"{worst.reason}, though every layer but {names[-1]} is frozen: "
        "add a narrower tier to [tiers], or use a larger board"
    )


def freeze(graph: Graph, weights: Sequence[np.ndarray], names: Sequence[str]) -> Graph:
    """Return the graph with these layers frozen."""
    layers = tuple(replace(layer, trainable=layer.trainable and layer.name not in names) for layer in graph.layers)
    frozen = replace(graph, layers=layers)
    return replace(frozen, frozen_crc=frozen_crc(frozen, weights))


def _short(worst: Plan) -> str:
    what = "RAM" if worst.missing_ram else "flash"
    return f"{worst.board.id} would be short by {worst.missing_bytes:,} bytes of {what}"
