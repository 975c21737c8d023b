"""Which updates are believed, beside which others."""

from itertools import product

import numpy as np
import pytest

from codegen.graph import Graph, Layer
from codegen.tiers import Tier, sub_model
from coordinator.aggregation import Contribution, Weights
from coordinator.aggregation.plausibility import PLACES, Suspect, _pairs, judge

HIDDEN = Layer("hidden", "dense", (1, 1, 40), (1, 1, 16), slope=0.1, bias=True, trainable=True)
LOGITS = Layer("logits", "dense", (1, 1, 16), (1, 1, 3), bias=True, trainable=True)
GRAPH = Graph("tiny", (HIDDEN, LOGITS), 3, True)
SHAPES = [tensor.shape for tensor in GRAPH.tensors]
REACH = 10.0


def draw(seed: int, norm: float = 1.0) -> Weights:
    rng = np.random.default_rng(seed)
    tensors = [rng.normal(size=shape) for shape in SHAPES]
    length = np.sqrt(sum((tensor**2).sum() for tensor in tensors))
    return [(tensor * norm / length).astype(np.float32) for tensor in tensors]


WEIGHTS, COMMON = draw(1, norm=5.0), draw(2)


def suspect(
    seed: int, common: float = 1.0, own: float = 1.0, scale: float = 1.0, width: float = 1.0, samples: int = 10
) -> Suspect:
    """Return an update of norm `scale` that goes `common` parts of COMMON's way and `own` parts of its own."""
    cut = sub_model(GRAPH, Tier("any", width))
    whole = [common * way + own * noise for way, noise in zip(COMMON, draw(seed), strict=True)]
    delta = cut.cut(whole)
    length = np.sqrt(sum((tensor.astype(np.float64) ** 2).sum() for tensor in delta))
    delta = [(tensor * (scale / length)).astype(np.float32) for tensor in delta]
    return Suspect(Contribution(f"node-{seed}", cut, delta, samples, (4, 3, 3)), REACH)


HONEST = [suspect(seed, width=width) for seed, width in ((10, 1.0), (11, 0.5), (12, 1.0), (13, 0.25))]
SCATTERED = [suspect(seed, common=0.0) for seed in range(20, 26)]
ASLEEP = [suspect(seed, scale=0.001) for seed in (30, 31, 32)]  # that have not begun to learn
LAST = [new - step for new, step in zip(WEIGHTS, draw(3, norm=0.5), strict=True)]  # the step was another way
SAME = [new - step for new, step in zip(WEIGHTS, COMMON, strict=True)]

CASES = {
    "honest": (HONEST, None, {}),
    "honest, narrow": ([suspect(seed, width=0.125) for seed in range(40, 45)], None, {}),
    "flipped": ([*HONEST, suspect(9, common=-1.0)], None, {"node-9": "points the other way"}),
    "flipped, narrow": ([*HONEST, suspect(9, common=-1.0, width=0.25)], None, {"node-9": "points the other way"}),
    "two flipped": (
        [suspect(8, common=-1.0), *HONEST, suspect(9, common=-1.0)],
        None,
        {"node-8": "points the other way", "node-9": "points the other way"},
    ),
    "flipped, among too few": ([*HONEST[:2], suspect(9, common=-1.0)], None, {}),
    "flipped, but tiny": ([*HONEST, suspect(9, common=-1.0, scale=0.05)], None, {}),
    "flipped, where nobody agrees": ([*SCATTERED, suspect(9, common=-1.0)], None, {}),
    "flipped, against the last step": (
        [*(suspect(seed, common=0.3) for seed in range(50, 56)), suspect(9, common=-0.5)],
        SAME,
        {"node-9": "with the model's last step"},
    ),
    "against the last step as all are": ([*(suspect(seed, common=-1.0) for seed in range(50, 54))], SAME, {}),
    "another last step": (HONEST, LAST, {}),
    "huge": (
        [*HONEST, suspect(9, scale=10.1)],
        None,
        {"node-9": "norm 10.1, more than 10, the most that 4"},
    ),
    "nearly huge": ([*HONEST, suspect(9, scale=9.9)], None, {}),
    "huge and flipped": (
        [*HONEST, suspect(9, common=-1.0, scale=1e30)],
        None,
        {"node-9": "norm 1e+30, more than"},
    ),
    "much from many samples": ([*HONEST, suspect(9, scale=40, samples=50)], None, {}),
    "huge for many samples": ([*HONEST, suspect(9, scale=51, samples=50)], None, {"node-9": "more than 50"}),
    "the first to learn": ([*ASLEEP, suspect(9, scale=9.9)], None, {}),
    "too much for the first to learn": ([*ASLEEP, suspect(9, scale=10.1)], None, {"node-9": "more than 10"}),
    "alone": ([suspect(9, scale=999.0)], None, {}),
    "huge, alone": (
        [suspect(9, scale=1001.0)],
        None,
        {"node-9": "more than 1e+03, the most that its weights"},
    ),
    "nobody": ([], SAME, {}),
}


@pytest.mark.parametrize("case", CASES)
def test_who_is_believed(case: str) -> None:
    suspects, earlier, expected = CASES[case]
    found = judge(suspects, GRAPH, WEIGHTS, earlier).refused
    assert found.keys() == expected.keys()
    for node, reason in expected.items():
        assert reason in found[node]


@pytest.mark.parametrize("case", CASES)
def test_the_order_changes_no_verdict(case: str) -> None:
    suspects, earlier, expected = CASES[case]
    assert judge(suspects[::-1], GRAPH, WEIGHTS, earlier).refused.keys() == expected.keys()


def test_cosines_are_of_what_two_nodes_share() -> None:
    contributions = [each.contribution for each in HONEST]
    pairs = _pairs(contributions, range(len(SHAPES)), WEIGHTS)
    for row, column in product(range(len(HONEST)), repeat=2):
        one, other = (_spread(contributions[at]) for at in (row, column))
        shared = np.isfinite(one) & np.isfinite(other)
        one, other = one[shared], other[shared]
        assert pairs[row, column] == pytest.approx(one @ other / np.sqrt((one @ one) * (other @ other)))


def _spread(contribution: Contribution) -> np.ndarray:
    """Return the update in its place among all parameters, NaN where the node holds none."""
    parts: list[np.ndarray] = []
    for shape, axes, delta in zip(SHAPES, contribution.sub_model.slices, contribution.delta, strict=True):
        whole = np.full(shape, np.nan)
        whole[np.ix_(*axes)] = delta
        parts.append(whole.reshape(-1))
    return np.concatenate(parts)


def test_large_tensors_are_judged_by_a_sample() -> None:
    """Twice as many elements as are looked at; half of the nodes hold half of them."""
    layer = Layer("logits", "dense", (1, 1, 2 * PLACES // 8), (1, 1, 8), trainable=True)
    inputs = Layer("inputs", "dense", (1, 1, 4), (1, 1, 2 * PLACES // 8), slope=0.1, trainable=True)
    graph, rng = Graph("wide", (inputs, layer), 8, True), np.random.default_rng(5)
    common = [rng.normal(size=shape).astype(np.float32) for shape in graph.shapes]
    cuts = [sub_model(graph, Tier("any", width)) for width in (1.0, 0.5)]
    nodes = []
    for node in range(8):
        sign = -1 if node == 5 else 1
        whole = [sign * way + rng.normal(size=way.shape).astype(np.float32) for way in common]
        nodes.append(Contribution(f"node-{node}", cuts[node % 2], cuts[node % 2].cut(whole), 10, (1,) * 8))
    found = judge([Suspect(each, REACH) for each in nodes], graph, common, None).refused
    assert list(found) == ["node-5"] and "the other way" in found["node-5"]
    pairs = _pairs(nodes, range(2), common)
    for row, column in product(range(1, 8, 2), repeat=2):
        one, other = (np.concatenate([part.ravel() for part in nodes[at].delta]).astype(float) for at in (row, column))
        exact = one @ other / np.sqrt((one @ one) * (other @ other))
        assert pairs[row, column] == pytest.approx(exact, abs=0.03)


AGAINST: dict[str, tuple[list[Suspect], tuple[str, ...]]] = {
    "honest": (HONEST, ()),
    "one that is refused": ([*HONEST, suspect(9, common=-1.0)], ()),
    "one that is too short to be refused": ([*HONEST, suspect(9, common=-1.0, scale=0.05)], ("node-9",)),
    "where the others agree too little": (
        [*(suspect(seed, common=0.3) for seed in range(50, 56)), suspect(9, common=-1.0)],
        ("node-9",),
    ),
    "among too few": ([*HONEST[:2], suspect(9, common=-1.0)], ()),
    "nobody": ([], ()),
}


@pytest.mark.parametrize("case", AGAINST)
def test_who_points_away_from_every_other(case: str) -> None:
    suspects, expected = AGAINST[case]
    assert judge(suspects, GRAPH, WEIGHTS, None).against == expected
