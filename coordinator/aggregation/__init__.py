"""How the nodes' updates become the next global model. Knows nothing of links, ports or processes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from codegen.tiers import SubModel

Weights = list[npt.NDArray[np.float32]]  # the global tensors, in graph.tensors order


@dataclass(frozen=True)
class Contribution:
    """One node's part of a round."""

    node: str
    sub_model: SubModel  # whose slices say where `delta` belongs
    delta: Sequence[npt.NDArray[np.float32]]  # its trainable tensors: after training minus before
    samples: int  # it was trained on
    label_counts: tuple[int, ...]  # of those samples, per class
    loss: float = 1.0  # mean of its last epoch, as it says
    weight: float | None = None  # in a mean, as weighting.py has it; None: its samples

    @property
    def counts(self) -> float:
        """How much it counts in a mean."""
        return float(self.samples) if self.weight is None else self.weight


class Aggregator(Protocol):
    """Takes the contributions of a round one by one, in the order of the federation file, and joins them."""

    def add(self, contribution: Contribution) -> None:
        """Take one contribution; nothing of it is kept unless the method needs all of them at once."""

    def result(self) -> Weights:
        """Return the new global weights; the old ones stay as they are."""
