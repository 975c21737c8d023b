"""Robust rules over slices, against loops over single parameters and against what liars send."""

import itertools
from dataclasses import replace

import numpy as np
import pytest

from codegen.graph import Graph, Layer
from codegen.tiers import Tier, channel_order, sub_model
from coordinator.aggregation import Contribution, Weights, table
from coordinator.aggregation.robust import Rule, aggregator, clipped, distances, krum, median, trimmed_mean
from coordinator.aggregation.substructure import class_axes

CONV = Layer("conv", "conv2d", (4, 4, 1), (2, 2, 6), (3, 3), (2, 2), (0, 0), 0.1, True, True)
DENSE = Layer("dense", "dense", (2, 2, 6), (1, 1, 8), slope=0.1, bias=True, trainable=True)
LOGITS = Layer("logits", "dense", (1, 1, 8), (1, 1, 3), bias=True, trainable=True)
GRAPH = Graph("tiny", (CONV, DENSE, LOGITS), 3, True)
SHAPES = [tensor.shape for tensor in GRAPH.tensors]
ALL = (5, 5, 5)
RULES: tuple[Rule, ...] = ("clip", "median", "trimmed_mean", "krum")
FAULTY = 0.2
WIDTHS = (1.0, 1.0, 0.5, 0.5, 0.5, 0.25, 0.25)


def draw(seed: int) -> Weights:
    rng = np.random.default_rng(seed)
    return [rng.normal(size=shape).astype(np.float32) for shape in SHAPES]


WEIGHTS, COMMON = draw(99), draw(98)


def contribution(seed: int, width: float = 1.0, scale: float = 1.0, labels: tuple[int, ...] = ALL) -> Contribution:
    """Return an update that goes COMMON's way, and half as far one of its own, `scale` times."""
    cut = sub_model(GRAPH, Tier("any", width), channel_order(GRAPH, "rolling", 3, WEIGHTS))
    whole = [scale * (common + own / 2) for common, own in zip(COMMON, draw(seed), strict=True)]
    return Contribution(f"node-{seed}", cut, cut.cut(whole), 10, labels)


FLEET = [contribution(seed, width) for seed, width in enumerate(WIDTHS)]
UNEVEN = [
    replace(each, label_counts=labels)
    for each, labels in zip(FLEET, [ALL, (0, 5, 5), ALL, (5, 0, 0), (5, 5, 0), ALL, (5, 0, 5)], strict=True)
]


def join(rule: Rule, contributions: list[Contribution]) -> Weights:
    made = aggregator(rule, GRAPH, WEIGHTS, FAULTY)
    for each in contributions:
        made.add(each)
    return made.result()


def bits(weights: Weights) -> list[bytes]:
    return [tensor.tobytes() for tensor in weights]


def columns(contributions: list[Contribution]) -> dict[tuple[int, ...], list[float]]:
    """Return what is said of each parameter, in float64, written from the design's sentences."""
    said: dict[tuple[int, ...], list[float]] = {}
    for index, shape in enumerate(SHAPES):
        for place in itertools.product(*map(range, shape)):
            column = said[(index, *place)] = []
            for each in contributions:
                held = [list(axis).index(at) if at in axis else None for axis, at in
                        zip(each.sub_model.slices[index], place, strict=True)]  # fmt: skip
                axis = class_axes(GRAPH).get(index)
                if None not in held and (axis is None or each.label_counts[place[axis]]):
                    column.append(float(each.delta[index][tuple(held)]))
    return said


def one_median(column: list[float]) -> float:
    return sorted([*column, 0.0] if len(column) % 2 == 0 else column)[len(column) // 2]


def one_trimmed_mean(column: list[float]) -> float:
    count = len(column)
    trim = {1: 0, 2: None, 3: 1, 4: 1, 5: 1, 6: 2, 7: 2}[count]
    return one_median(column) if trim is None else sum(sorted(column)[trim : count - trim]) / (count - 2 * trim)


@pytest.mark.parametrize("block", [table.BLOCK, 1])
@pytest.mark.parametrize(("rule", "one"), [("median", one_median), ("trimmed_mean", one_trimmed_mean)])
@pytest.mark.parametrize("count", range(8))
def test_equals_a_loop_over_parameters(
    rule: Rule, one: object, count: int, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table, "BLOCK", block)
    result = join(rule, UNEVEN[:count])
    for (index, *place), column in columns(UNEVEN[:count]).items():
        old = float(WEIGHTS[index][tuple(place)])
        wanted = old + one(column) if column else old  # type: ignore[operator]
        assert result[index][tuple(place)] == pytest.approx(wanted, rel=1e-5, abs=1e-6)


COLUMNS = {  # of updates of one parameter: median, trimmed mean
    "alone": ([3.0], 3.0, 3.0),
    "two that agree": ([3.0, 1.0], 1.0, 1.0),
    "two that do not": ([3.0, -1.0], 0.0, 0.0),
    "one of three lies": ([1.0, 2.0, 900.0], 2.0, 2.0),
    "four": ([1.0, 2.0, 4.0, 900.0], 2.0, 3.0),
    "two of ten lie": ([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 900.0, -900.0], 4.0, 4.5),
    "nobody": ([], 0.0, 0.0),
}


@pytest.mark.parametrize("case", COLUMNS)
def test_columns_by_hand(case: str) -> None:
    column, middle, mean = COLUMNS[case]
    values = np.array([[*column, np.nan]], np.float32).T
    assert (median(values)[0], trimmed_mean(values, FAULTY)[0]) == (middle, mean)


@pytest.mark.parametrize("rule", RULES)
def test_the_order_of_nodes_changes_little_and_silence_nothing(rule: Rule) -> None:
    for one, other in zip(join(rule, UNEVEN), join(rule, UNEVEN[::-1]), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
    assert bits(join(rule, [])) == bits(WEIGHTS)


@pytest.mark.parametrize("rule", RULES)
def test_what_nobody_holds_keeps_its_bits(rule: Rule) -> None:
    result = join(rule, [contribution(seed, 0.5, labels=(5, 5, 0)) for seed in range(5)])
    kept = set(range(6)) - {int(at) for at in FLEET[2].sub_model.slices[1][0]}
    assert len(kept) == 3
    assert result[1][sorted(kept)].tobytes() == WEIGHTS[1][sorted(kept)].tobytes()
    assert result[5][2].tobytes() == WEIGHTS[5][2].tobytes() and result[5][0] != WEIGHTS[5][0]


@pytest.mark.parametrize("rule", RULES)
def test_frozen_tensors_are_untouched(rule: Rule) -> None:
    graph = replace(GRAPH, layers=(replace(CONV, trainable=False), DENSE, LOGITS))
    made = aggregator(rule, graph, WEIGHTS, FAULTY)
    for each in FLEET[:5]:
        first, *rest = each.sub_model.graph.layers
        cut = replace(each.sub_model.graph, layers=(replace(first, trainable=False), *rest))
        made.add(replace(each, sub_model=replace(each.sub_model, graph=cut), delta=each.delta[2:]))
    assert bits(made.result())[:2] == bits(WEIGHTS)[:2] and bits(made.result())[2] != bits(WEIGHTS)[2]


@pytest.mark.parametrize("rule", RULES)
def test_what_is_not_finite_never_enters(rule: Rule) -> None:
    bad = contribution(1)
    bad.delta[3][2] = np.nan
    with pytest.raises(ValueError, match="node-1 sent 1 values that are not finite"):
        join(rule, [bad])


HONEST = [contribution(seed, width) for seed, width in enumerate((1.0, 1.0, 1.0, 0.5, 0.5, 0.5, 0.25, 0.25))]
LIES = {
    "turned": [contribution(20, scale=-1.0), contribution(21, 0.5, scale=-1.0)],
    "turned and long": [contribution(20, scale=-8.0), contribution(21, 0.25, scale=-8.0)],
    "without bound": [contribution(20, scale=1e30), contribution(21, 0.25, scale=-1e30)],
}


@pytest.mark.parametrize("lies", LIES)
@pytest.mark.parametrize("rule", RULES)
def test_two_liars_of_ten_do_not_bend_it_far(rule: Rule, lies: str) -> None:
    """The step still goes where the honest nodes go, and is not longer."""
    steps = [
        np.concatenate([(new - old).ravel() for new, old in zip(join(rule, nodes), WEIGHTS, strict=True)])
        for nodes in (HONEST, [LIES[lies][0], *HONEST, LIES[lies][1]])
    ]
    honest, lied = (step.astype(np.float64) for step in steps)
    assert honest @ lied / np.linalg.norm(honest) / np.linalg.norm(lied) > 0.8
    assert np.linalg.norm(lied) < 1.5 * np.linalg.norm(honest)


def test_krum_drops_the_liars_even_where_nobody_else_is() -> None:
    narrow = [contribution(seed, 0.5) for seed in range(8)]
    assert krum([LIES["turned"][0], *narrow, contribution(21, scale=-1.0)], GRAPH, FAULTY) == narrow


@pytest.mark.parametrize(("nodes", "kept"), [(1, 1), (4, 4), (5, 4), (6, 5), (7, 5)])
def test_how_many_krum_keeps(nodes: int, kept: int) -> None:
    assert len(krum(FLEET[:nodes], GRAPH, FAULTY)) == kept


def test_distances_are_of_what_two_nodes_share() -> None:
    """In units of the usual square, parameter by parameter: the lower median of those who hold it."""
    said = [columns([each]) for each in UNEVEN]
    whole = np.array([[column[0] if column else np.nan for column in own.values()] for own in said])
    squares = [sorted(column[np.isfinite(column)] ** 2) for column in whole.T]
    usual = np.array([square[(len(square) - 1) // 2] if square else 0.0 for square in squares])
    found = distances(UNEVEN, GRAPH)
    for one, other in itertools.product(range(len(UNEVEN)), repeat=2):
        shared = np.isfinite(whole[one]) & np.isfinite(whole[other])
        apart = ((whole[one] - whole[other])[shared] ** 2).sum() / usual[shared].sum()
        assert found[one, other] == pytest.approx(apart, abs=1e-9)


def test_who_shares_nothing_is_infinitely_far() -> None:
    one, other = sub_model(GRAPH, Tier("one", 1.0)), sub_model(GRAPH, Tier("other", 1.0))
    lone = replace(other, slices=tuple(tuple(axis[:0] for axis in axes) for axes in other.slices))
    nothing = [np.zeros((0,) * len(shape), np.float32) for shape in SHAPES]
    pair = [Contribution("a", one, one.cut(COMMON), 1, ALL), Contribution("b", lone, nothing, 1, ALL)]
    assert distances(pair, GRAPH)[0, 1] == np.inf


def test_clipping_shortens_what_is_long_and_nothing_else() -> None:
    nodes = [*HONEST, contribution(20, 0.5, scale=100.0), contribution(21, scale=0.01)]
    found = clipped(nodes, GRAPH)
    for before, after in zip(nodes, found, strict=True):
        ratio = {float(new.ravel()[0] / old.ravel()[0]) for new, old in zip(after.delta, before.delta, strict=True)}
        assert len({round(each, 4) for each in ratio}) == 1
        assert (min(ratio) < 0.05) == (before.node == "node-20") and (before is after) == (before.node != "node-20")
    assert [each.delta for each in clipped(HONEST[:1], GRAPH)] == [HONEST[0].delta]
    assert clipped([], GRAPH) == []
