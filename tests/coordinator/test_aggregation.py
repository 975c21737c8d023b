"""Substructure averaging against loops over single parameters."""

import itertools
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codegen.graph import Graph, Layer
from codegen.tiers import Order, SubModel, Tier, channel_order, sub_model
from coordinator.aggregation import Contribution, Weights
from coordinator.aggregation.substructure import Substructure, class_axes, selection

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


def oracle(contributions: list[Contribution]) -> Weights:
    """The same with one dense float64 loop a parameter, written from the design's sentences."""
    result = old_weights()
    axes = class_axes(GRAPH)
    for index, tensor in enumerate(GRAPH.tensors):
        for place in itertools.product(*map(range, tensor.shape)):
            total, samples = 0.0, 0
            for each in contributions:
                axes_held = zip(each.sub_model.slices[index], place, strict=True)
                held = [np.flatnonzero(axis == at) for axis, at in axes_held]
                if any(len(found) == 0 for found in held):
                    continue
                if index in axes and each.label_counts[place[axes[index]]] == 0:
                    continue
                total += each.samples * float(each.delta[index][tuple(int(found[0]) for found in held)])
                samples += each.samples
            if samples:
                result[index][place] = np.float32(float(result[index][place]) + total / samples)
    return result


def bits(weights: Weights) -> list[bytes]:
    return [tensor.tobytes() for tensor in weights]


@given(
    st.lists(
        st.tuples(
            st.sampled_from(WIDTHS),
            st.integers(1, 10**6),
            st.sampled_from([ALL, (0, 3, 4), (0, 0, 9), (7, 0, 1)]),
            st.sampled_from(["prefix", "rolling", "importance"]),
        ),
        max_size=5,
    ),
    st.integers(1, 20),
)
@settings(deadline=None, max_examples=40)
def test_equals_the_oracle(nodes: list[tuple[float, int, tuple[int, ...], str]], number: int) -> None:
    contributions = [
        contribution(seed, width, samples, labels, channel_order(GRAPH, select, number, old_weights()))  # type: ignore[arg-type]
        for seed, (width, samples, labels, select) in enumerate(nodes)
    ]
    assert bits(average(contributions)) == bits(oracle(contributions))


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


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_never_enters(value: float) -> None:
    bad = contribution(1, 1.0)
    bad.delta[3][2] = value
    with pytest.raises(ValueError, match="node-1: tensor 3"):
        average([bad])


def test_other_shapes_never_enter() -> None:
    wide, narrow = contribution(1, 1.0), contribution(1, 0.5)
    with pytest.raises(ValueError, match="another shape"):
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
