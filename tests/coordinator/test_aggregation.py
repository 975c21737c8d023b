"""Substructure averaging against loops over single parameters."""

import itertools
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codegen.graph import Graph, Layer
from codegen.protocol import Q8_BLOCK
from codegen.tiers import Order, SubModel, Tier, channel_order, sub_model
from coordinator.aggregation import Contribution, Weights
from coordinator.aggregation.substructure import Substructure, class_axes, selection
from coordinator.aggregation.sums import NODES
from coordinator.deltas import Delta

CONV = Layer("conv", "conv2d", (4, 4, 1), (2, 2, 6), (3, 3), (2, 2), (0, 0), 0.1, True, True)
DENSE = Layer("dense", "dense", (2, 2, 6), (1, 1, 8), slope=0.1, bias=True, trainable=True)
LOGITS = Layer("logits", "dense", (1, 1, 8), (1, 1, 3), bias=True, trainable=True)
GRAPH = Graph("tiny", (CONV, DENSE, LOGITS), 3, True)
WIDTHS = [1.0, 0.5, 0.25]
ALL = (5, 5, 5)


def draw(shapes: list[tuple[int, ...]], seed: int) -> Weights:
    rng = np.random.default_rng(seed)
    return [(rng.normal(size=shape) * 10.0 ** rng.integers(-4, 4)).astype(np.float32) for shape in shapes]


def old_weights() -> Weights:
    return draw([tensor.shape for tensor in GRAPH.tensors], 99)


def contribution(
    seed: int, width: float, samples: int = 10, labels: tuple[int, ...] = ALL, order: Order | None = None
) -> Contribution:
    cut = sub_model(GRAPH, Tier(f"w{width}", width), order)
    delta = draw([tensor.shape for tensor in cut.graph.tensors if tensor.trainable], seed)
    return Contribution(f"node-{seed}", cut, delta, samples, labels)


def average(contributions: list[Contribution], graph: Graph = GRAPH) -> Weights:
    aggregator = Substructure(graph, old_weights())
    for each in contributions:
        aggregator.add(each)
    return aggregator.result()


def oracle(contributions: list[Contribution], index: int, place: tuple[int, ...]) -> Fraction:
    """Return what a parameter becomes, in exact arithmetic, written from the design's sentences."""
    total, weights = Fraction(0), Fraction(0)
    axes = class_axes(GRAPH)
    for each in contributions:
        axes_held = zip(each.sub_model.slices[index], place, strict=True)
        held = [np.flatnonzero(axis == at) for axis, at in axes_held]
        if any(len(found) == 0 for found in held):
            continue
        if index in axes and each.label_counts[place[axes[index]]] == 0:
            continue
        total += Fraction(each.counts) * Fraction(float(each.delta[index][tuple(int(found[0]) for found in held)]))
        weights += Fraction(each.counts)
    old = Fraction(float(old_weights()[index][place]))
    return old + total / weights if weights else old


def check(contributions: list[Contribution]) -> None:
    """Compare each parameter with the oracle: a rounding to float32 is allowed, and float64's for sums of this size."""
    for index, tensor in enumerate(average(contributions)):
        for place in itertools.product(*map(range, tensor.shape)):
            exact = oracle(contributions, index, place)
            slack = 0.5 * float(np.spacing(np.float32(abs(float(exact))))) + 1e-9
            assert abs(Fraction(float(tensor[place])) - exact) <= slack


def encoded(each: Contribution, q8: bool) -> Contribution:
    """Return the contribution with its delta as it comes off the wire."""
    flat = np.concatenate([tensor.reshape(-1) for tensor in each.delta])
    blob = b""
    for start in range(0, flat.size if q8 else 0, Q8_BLOCK):
        block = flat[start : start + Q8_BLOCK]
        scale = np.float32(np.abs(block).max() / 127)
        blob += scale.tobytes() + np.rint(block / scale).astype(np.int8).tobytes()
    return replace(each, delta=Delta(each.sub_model.graph, blob or flat.tobytes(), q8))


def bits(weights: Weights) -> list[bytes]:
    return [tensor.tobytes() for tensor in weights]


@given(
    st.lists(
        st.tuples(
            st.sampled_from(WIDTHS),
            st.integers(1, 10**6),
            st.sampled_from([ALL, (0, 3, 4), (0, 0, 9), (7, 0, 1)]),
            st.sampled_from(["prefix", "rolling", "importance"]),
            st.sampled_from([None, False, True]),
        ),
        max_size=5,
    ),
    st.integers(1, 20),
)
@settings(deadline=None, max_examples=40)
def test_equals_the_oracle(nodes: list[tuple[float, int, tuple[int, ...], str, bool | None]], number: int) -> None:
    contributions = []
    for seed, (width, samples, labels, select, q8) in enumerate(nodes):
        order = channel_order(GRAPH, select, number, old_weights())  # type: ignore[arg-type]
        each = contribution(seed, width, samples, labels, order)
        contributions.append(each if q8 is None else encoded(each, q8))
    check(contributions)


@pytest.mark.parametrize("count", [NODES - 1, NODES, NODES + 1, 3 * NODES + 2])
def test_any_number_of_nodes(count: int) -> None:
    """However many are added at a time, and whatever some of them know."""
    rng = np.random.default_rng(count)
    nodes = [
        replace(encoded(contribution(seed, width, seed + 1), bool(seed % 2)), weight=float(rng.uniform(0.1, 9)))
        for seed, width in enumerate(rng.choice(WIDTHS, count).tolist())
    ]
    check([replace(each, label_counts=(1, seed % 3, 1)) for seed, each in enumerate(nodes)])


def test_slices_decide_and_not_the_object_that_holds_them() -> None:
    nodes = [contribution(seed, width) for seed, width in enumerate([1.0, 0.5, 1.0, 0.5, 0.5])]
    cuts = {each.sub_model.tier.name: each.sub_model for each in nodes}
    shared = [replace(each, sub_model=cuts[each.sub_model.tier.name]) for each in nodes]
    assert bits(average(nodes)) == bits(average(shared))


def test_sums_are_of_one_width_after_the_other() -> None:
    """In float64 and in this order, to the bit: what is 2^60 goes before what is 1 is added."""
    cuts = [contribution(seed, width, 1) for seed, width in enumerate([1.0, 0.5, 1.0])]
    sizes = (2.0**60, 1.0, -(2.0**60))
    nodes = [
        replace(each, delta=[np.full_like(tensor, size) for tensor in each.delta])
        for each, size in zip(cuts, sizes, strict=True)
    ]
    old, new = old_weights()[1][0], average(nodes)[1][0]
    assert new == np.float32(float(old) + 1 / 3) != np.float32(old)


def test_a_mean_by_hand() -> None:
    """What both hold is the weighted mean; what only the wide one holds is its own."""
    wide, narrow = contribution(1, 1.0, samples=30), contribution(2, 0.5, samples=10)
    result, old = average([wide, narrow]), old_weights()
    before, mine, yours = (Fraction(float(bias[0])) for bias in (old[1], wide.delta[1], narrow.delta[1]))
    assert result[1][0] == pytest.approx(float(before + (30 * mine + 10 * yours) / 40), rel=1e-6)
    assert result[1][5] == np.float32(float(old[1][5]) + float(wide.delta[1][5]))


def test_what_nobody_holds_keeps_its_bits() -> None:
    old = old_weights()
    old[0][0, 0, 0, 5] = np.float32(-0.0)
    aggregator = Substructure(GRAPH, old)
    aggregator.add(contribution(1, 0.5))
    result = aggregator.result()
    assert result[0][..., 3:].tobytes() == old[0][..., 3:].tobytes()
    assert result[1][3:].tobytes() == old[1][3:].tobytes()
    assert not (result[0][..., :3] == old[0][..., :3]).any()
    assert bits(average([])) == bits(old_weights())


def test_output_counts_only_for_known_labels() -> None:
    old, result = old_weights(), average([contribution(1, 1.0, labels=(0, 4, 0))])
    for index in (4, 5):
        changed = (result[index] != old[index]).reshape(-1, 3).any(axis=0)
        assert changed.tolist() == [False, True, False]
    assert (result[2] != old[2]).all()


def test_frozen_tensors_are_untouched() -> None:
    frozen = replace(GRAPH, layers=(replace(CONV, trainable=False), DENSE, LOGITS))
    cut = sub_model(frozen, Tier("all", 1.0))
    deltas = draw([tensor.shape for tensor in cut.graph.tensors if tensor.trainable], 1)
    result = average([Contribution("a", cut, deltas, 1, ALL)], frozen)
    assert bits(result)[:2] == bits(old_weights())[:2]
    assert bits(result)[2] != bits(old_weights())[2]


@pytest.mark.parametrize("labels", [ALL, (0, 4, 0)])
@pytest.mark.parametrize("place", [(3, 2), (5, 0)])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_never_enters(value: float, place: tuple[int, int], labels: tuple[int, ...]) -> None:
    nodes = [contribution(seed, 1.0, labels=labels) for seed in range(NODES)]
    nodes[1].delta[place[0]][place[1]] = value
    for count in (2, NODES):
        with pytest.raises(ValueError, match="node-1 sent 1 values that are not finite"):
            average(nodes[:count])


def test_other_shapes_never_enter() -> None:
    wide, narrow = contribution(1, 1.0), contribution(1, 0.5)
    with pytest.raises(ValueError, match="node-1 sent an update that does not have the shapes"):
        average([replace(wide, delta=narrow.delta)])
    with pytest.raises(ValueError):
        average([replace(wide, delta=wide.delta[:-1])])


def test_old_weights_are_left_alone() -> None:
    old = old_weights()
    aggregator = Substructure(GRAPH, old)
    aggregator.add(contribution(1, 1.0))
    aggregator.result()
    assert bits(old) == bits(old_weights())


def test_class_axes_of_other_ends() -> None:
    pool = Layer("pool", "average_pool", (2, 2, 3), (1, 1, 3), (2, 2), (2, 2))
    conv = replace(CONV, out_shape=(2, 2, 3))
    depthwise = Layer("dw", "depthwise_conv2d", (2, 2, 3), (2, 2, 3), (1, 1), bias=True, trainable=True)
    assert class_axes(Graph("g", (conv, pool), 3, True)) == {0: 3, 1: 0}
    assert class_axes(Graph("g", (conv, depthwise, pool), 3, True)) == {2: 2, 3: 0}
    assert class_axes(Graph("g", (conv,), 12, True)) == {}


@pytest.mark.parametrize(("axes", "view"), [(([0, 1], [2, 3]), True), (([1, 0], [2]), False), (([0, 2],), False)])
def test_runs_are_views(axes: tuple[list[int], ...], view: bool) -> None:
    where = selection([np.array(axis) for axis in axes])
    assert isinstance(where[0], slice) is view
    whole = np.arange(25).reshape(5, 5)[:, 0] if len(axes) == 1 else np.arange(25).reshape(5, 5)
    np.testing.assert_array_equal(whole[where], whole[np.ix_(*axes)])


def test_every_tier_is_cut_by_the_same_slices() -> None:
    """What pack sends and what the aggregator changes are the same parameters."""
    cut: SubModel = sub_model(GRAPH, Tier("half", 0.5))
    for tensor, axes in zip(cut.cut(old_weights()), cut.slices, strict=True):
        assert tensor.shape == tuple(len(axis) for axis in axes)
