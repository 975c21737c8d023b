"""Tiers, their order and their slices."""

from __future__ import annotations

import numpy as np
import pytest

from codegen.graph import Graph, Layer
from codegen.tiers import (
    DEFAULT_TIERS,
    Select,
    Tier,
    TierError,
    channel_order,
    channels,
    hidden_layers,
    nested,
    sub_model,
    tiers_from,
)


def graph(*, frozen: str = "") -> Graph:
    """Return conv 8, depthwise, pool, conv 6, dense 5 after Flatten, dense 3, for 6×6×2 samples."""
    layers = (
        Layer("conv", "conv2d", (6, 6, 2), (6, 6, 8), (3, 3), bias=True, trainable=True),
        Layer("depth", "depthwise_conv2d", (6, 6, 8), (6, 6, 8), (3, 3), bias=True, trainable=True),
        Layer("pool", "max_pool", (6, 6, 8), (3, 3, 8), (2, 2), (2, 2)),
        Layer("point", "conv2d", (3, 3, 8), (3, 3, 6), trainable=True),
        Layer("dense", "dense", (3, 3, 6), (1, 1, 5), bias=True, trainable=True),
        Layer("logits", "dense", (1, 1, 5), (1, 1, 3), bias=True, trainable=True),
    )
    kept = tuple(Layer(**{**vars(layer), "trainable": layer.name != frozen and layer.weighted}) for layer in layers)
    return Graph("g", kept, 3, softmax=False)


def counted(whole: Graph) -> list[np.ndarray]:
    """Return weights that are all different."""
    starts = np.cumsum([0, *(tensor.size for tensor in whole.tensors)])
    return [
        np.arange(start, start + tensor.size, dtype=np.float32).reshape(tensor.shape)
        for start, tensor in zip(starts, whole.tensors, strict=False)
    ]


def test_hidden_layers_make_channels_and_the_last_does_not_count() -> None:
    assert [layer.name for layer in hidden_layers(graph())] == ["conv", "point", "dense"]


@pytest.mark.parametrize(
    ("tier", "expected"),
    [
        (Tier("t", 1.0), (8, 6, 5)),
        (Tier("t", 0.5), (4, 3, 2)),
        (Tier("t", 0.01), (1, 1, 1)),
        (Tier("t", channels=(3, 6, 1)), (3, 6, 1)),
    ],
)
def test_channels_of_a_tier(tier: Tier, expected: tuple[int, ...]) -> None:
    assert channels(graph(), tier) == expected
    cut = sub_model(graph(), tier).graph
    assert tuple(layer.out_shape[2] for layer in hidden_layers(cut)) == expected
    assert [layer.out_shape[2] for layer in cut.layers[:3]] == [expected[0]] * 3
    assert (cut.input_shape, cut.classes, cut.layers[-1].out_shape) == ((6, 6, 2), 3, (1, 1, 3))


def test_default_tiers_come_widest_first() -> None:
    tiers = nested(graph(), list(reversed(tiers_from(DEFAULT_TIERS))))
    assert [tier.name for tier in tiers] == ["expanded", "base", "compact", "micro"]


@pytest.mark.parametrize(
    ("described", "sentence"),
    [
        ({"t": [1, 2]}, "tier 't' lists 2 channel counts; the model has 3 hidden layers: conv, point, dense"),
        ({"t": [9, 1, 1]}, "tier 't' keeps 9 channels of 'conv'; expected 1 to 8"),
        ({"t": [1, 0, 1]}, "tier 't' keeps 0 channels of 'point'; expected 1 to 6"),
        (
            {"a": [4, 2, 2], "b": [2, 3, 2]},
            "tiers 'a' and 'b' do not nest: 'b' has 3 channels of 'point' and 'a' 2; "
            "let one be the smaller in every layer",
        ),
    ],
)
def test_bad_tiers_are_refused(described: dict[str, float | list[int]], sentence: str) -> None:
    with pytest.raises(TierError) as error:
        nested(graph(), tiers_from(described))
    assert str(error.value) == sentence


def test_slices_follow_channels_through_flatten() -> None:
    order = (np.array([7, 1, 0, 2, 3, 4, 5, 6]), np.array([5, 0, 1, 2, 3, 4]), np.array([4, 3, 2, 1, 0]))
    sub = sub_model(graph(), Tier("t", channels=(2, 2, 1)), order)
    named = dict(zip(((t.layer, t.role) for t in sub.graph.tensors), sub.slices, strict=True))
    assert [axis.tolist() for axis in named["depth", "kernel"]] == [[0, 1, 2], [0, 1, 2], [7, 1], [0]]
    assert named["depth", "bias"][0].tolist() == [7, 1]
    assert [axis.tolist() for axis in named["point", "kernel"][2:]] == [[7, 1], [5, 0]]
    rows, columns = named["dense", "kernel"]
    assert rows.tolist() == [pixel * 6 + channel for pixel in range(9) for channel in (5, 0)]
    assert columns.tolist() == [4]
    assert [axis.tolist() for axis in named["logits", "kernel"]] == [[4], [0, 1, 2]]


@pytest.mark.parametrize("select", ["prefix", "rolling", "importance"])
def test_a_narrower_tier_is_a_prefix_of_a_wider_one(select: Select) -> None:
    whole = graph()
    weights = [np.sin(weight) for weight in counted(whole)]
    order = channel_order(whole, select, 3, weights)
    wide, narrow = sub_model(whole, Tier("w", 0.75), order), sub_model(whole, Tier("n", 0.3), order)
    held, cut = wide.cut(weights), narrow.cut(weights)
    inner = sub_model(wide.graph, Tier("i", channels=channels(narrow.graph, Tier("all", 1.0))))
    assert all(np.array_equal(a, b) for a, b in zip(inner.cut(held), cut, strict=True))


def test_orders() -> None:
    whole = graph()
    weights = counted(whole)
    weights[0] = np.zeros_like(weights[0])
    weights[0][..., 5] = -2
    weights[0][..., 2] = 1
    assert channel_order(whole, "prefix", 9, weights)[0].tolist() == list(range(8))
    assert channel_order(whole, "rolling", 9, weights)[0].tolist() == [1, 2, 3, 4, 5, 6, 7, 0]
    assert channel_order(whole, "importance", 9, weights)[0].tolist() == [5, 2, 0, 1, 3, 4, 6, 7]


@pytest.mark.parametrize(
    ("frozen", "rolls"),
    [
        ("", "conv point dense"),
        ("depth", "point dense"),
        ("point", "dense"),
        ("dense", "conv"),
        ("logits", "conv point"),
    ],
)
def test_channels_of_frozen_weights_stay(frozen: str, rolls: str) -> None:
    whole = graph(frozen=frozen)
    orders = channel_order(whole, "rolling", 1, counted(whole))
    rolled = [layer.name for layer, order in zip(hidden_layers(whole), orders, strict=True) if order[0] == 1]
    assert " ".join(rolled) == rolls
