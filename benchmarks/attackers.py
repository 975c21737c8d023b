"""Nodes that lie: what they send instead of what they learnt, for trials of robust aggregation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import numpy as np

Attack = Literal["flip", "random"]
SEED_STREAM = 0x4C49  # keeps these draws apart from every other use of a seed


@dataclass(frozen=True)
class Attackers:
    """Nodes, by number, that all do the same: turn the signs of their update, or send noise of its length."""

    nodes: frozenset[int]
    attack: Attack
    scale: float = 1.0  # times the honest length; plausibility.py refuses from ten on
    seed: int = 0

    def sent(self, node: int, number: int, delta: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Return what `node` sends in round `number` in place of its honest `delta`, which others send as it is."""
        import numpy as np

        if node not in self.nodes:
            return list(delta)
        if self.attack == "flip":
            return [(-self.scale * tensor).astype(np.float32) for tensor in delta]
        rng = np.random.default_rng([self.seed, SEED_STREAM, node, number])
        noise = [rng.normal(size=tensor.shape) for tensor in delta]
        factor = self.scale * _length(delta) / _length(noise)
        return [(factor * tensor).astype(np.float32) for tensor in noise]


def drawn(seed: int, nodes: int, count: int, attack: Attack, scale: float = 1.0) -> Attackers:
    """Return `count` attackers among `nodes`, drawn from `seed`."""
    import numpy as np

    chosen = np.random.default_rng([seed, SEED_STREAM]).choice(nodes, count, replace=False)
    return Attackers(frozenset(chosen.tolist()), attack, scale, seed)


def _length(tensors: Sequence[np.ndarray]) -> float:
    return float(sum((tensor.astype("f8") ** 2).sum() for tensor in tensors) ** 0.5)
