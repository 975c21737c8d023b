"""What a node counts, and what it gains by a lie."""

import numpy as np
import pytest

from codegen.graph import Graph, Layer
from codegen.tiers import Tier, sub_model
from coordinator.aggregation import Contribution
from coordinator.aggregation.substructure import Substructure
from coordinator.aggregation.weighting import MOST, Weighting, weighted

LOGITS = Layer("logits", "dense", (1, 1, 4), (1, 1, 2), bias=True, trainable=True)
GRAPH = Graph("tiny", (LOGITS,), 2, True)
CUT = sub_model(GRAPH, Tier("all", 1.0))


def contribution(samples: int, loss: float = 1.0, step: float = 1.0) -> Contribution:
    delta = [np.full(tensor.shape, step, np.float32) for tensor in GRAPH.tensors]
    return Contribution(f"node-{samples}", CUT, delta, samples, (1, 1), loss)


CASES: dict[str, tuple[Weighting, list[tuple[int, float]], list[float]]] = {
    "by samples": ("samples", [(10, 1.0), (20, 9.0), (30, 0.1)], [10, 20, 30]),
    "all alike": ("uniform", [(10, 1.0), (20, 9.0), (30, 0.1)], [1, 1, 1]),
    "by inverse loss": ("inverse_loss", [(10, 0.5), (20, 1.0), (30, 2.0)], [2, 1, 0.5]),
    "a count that lies": ("samples", [(10, 1.0), (12, 1.0), (14, 1.0), (10**6, 1.0)], [10, 12, 14, 13 * MOST]),
    "a loss that lies": ("inverse_loss", [(1, 0.5), (1, 1.0), (1, 1e-30)], [2, 1, 2 * MOST]),
    "a loss of nothing": ("inverse_loss", [(1, 0.5), (1, 1.0), (1, 0.0), (1, -1.0)], [2, 1, 1e6, 1e6]),
    "a loss that is huge": ("inverse_loss", [(1, 0.5), (1, 1.0), (1, 1e300)], [2, 1, 1e-300]),
    "alone": ("samples", [(10**6, 1.0)], [10**6]),
    "nobody": ("samples", [], []),
}


@pytest.mark.parametrize("case", CASES)
def test_what_a_node_counts(case: str) -> None:
    rule, said, expected = CASES[case]
    found = weighted([contribution(*each) for each in said], rule)
    assert [each.counts for each in found] == pytest.approx(expected)


def test_without_a_weight_the_samples_count() -> None:
    assert contribution(7).counts == 7


@pytest.mark.parametrize("rule", ["samples", "inverse_loss"])
def test_one_liar_of_ten_has_less_than_a_third(rule: Weighting) -> None:
    honest, liar = [contribution(100) for _ in range(9)], contribution(10**6, 1e-30, step=-1.0)
    mean = Substructure(GRAPH, [delta * 0 for delta in liar.delta])
    for each in weighted([*honest, liar], rule):
        mean.add(each)
    assert mean.result()[1][0] == pytest.approx((9 - MOST) / (9 + MOST)) and MOST / (9 + MOST) < 1 / 3
