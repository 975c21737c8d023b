"""The arena: nothing that lives at the same time overlaps, and it is as small as can be."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from boards import PROJECT_ROOT
from codegen.graph import Graph, Kind, Layer
from codegen.memory import Buffer, buffers, fixed_buffers, place
from codegen.model_file import load_graph
from codegen.tiers import DEFAULT_TIERS, sub_model, tiers_from

BUFFERS = st.lists(
    st.tuples(st.integers(1, 50), st.integers(0, 9), st.integers(0, 9), st.sampled_from([1, 2, 4])),
    min_size=1,
    max_size=12,
)


def lower_bound(kept: Sequence[Buffer]) -> int:
    """Return the most bytes needed at one step: no arena can be smaller."""
    return max(sum(b.bytes for b in kept if b.first <= step <= b.last) for step in {b.first for b in kept})


@settings(max_examples=100, derandomize=True, deadline=None)
@given(sizes=BUFFERS)
def test_what_lives_together_does_not_overlap(sizes: list[tuple[int, int, int, int]]) -> None:
    kept = [
        Buffer(index, "out", align * size, min(first, last), max(first, last), align)
        for index, (size, first, last, align) in enumerate(sizes)
    ]
    arena = place(kept)
    assert lower_bound(kept) <= arena.bytes <= sum(buffer.bytes + 3 for buffer in kept)
    assert arena.bytes % 4 == 0
    assert all(arena.offsets[buffer.layer, "out"] % buffer.align == 0 for buffer in kept)
    for one, other in combinations(kept, 2):
        if one.meets(other):
            low, high = sorted((one, other), key=lambda buffer: arena.offsets[buffer.layer, "out"])
            assert arena.offsets[low.layer, "out"] + low.bytes <= arena.offsets[high.layer, "out"]


@pytest.mark.parametrize("accumulates", [False, True])
def test_example_reaches_the_lower_bound(accumulates: bool) -> None:
    graph, _ = load_graph(PROJECT_ROOT / "examples" / "mnist" / "model.py", None, 1)
    sizes = {}
    for tier in tiers_from(DEFAULT_TIERS):
        kept = buffers(sub_model(graph, tier).graph, accumulates)
        sizes[tier.name] = place(kept).bytes
        assert sizes[tier.name] == lower_bound(kept)
    # a1 1568 + a2 784 + a3 256, and conv3's gradient 576, or the logits 40
    assert sizes["micro"] == (2648 if accumulates else 3184)


def test_example_in_fixed_point_is_near_the_lower_bound() -> None:
    graph, _ = load_graph(PROJECT_ROOT / "examples" / "mnist" / "model.py", None, 1)
    for tier in tiers_from({**DEFAULT_TIERS, "nano": 1 / 16}):
        kept = fixed_buffers(sub_model(graph, tier).graph)
        assert lower_bound(kept) <= place(kept).bytes <= lower_bound(kept) + 4  # exponents make odd sizes


def test_frozen_layers_in_fixed_point_need_room_for_no_step() -> None:
    graph, _ = load_graph(PROJECT_ROOT / "examples" / "mnist" / "model.py", ["conv2", "logits"], 1)
    lives = {(b.role, b.layer): (b.first, b.last) for b in fixed_buffers(graph) if b.role != "out"}
    assert lives == {
        ("line", 0): (0, 0),
        ("filter", 0): (0, 0),
        ("filter", 1): (1, 1),
        ("filter", 2): (2, 2),
        ("logits", 3): (3, 4),
        ("step", 3): (5, 5),
        ("filter_back", 2): (6, 6),  # frozen, but gradients pass
    }


def test_frozen_layers_below_keep_nothing_for_the_way_back() -> None:
    graph, _ = load_graph(PROJECT_ROOT / "examples" / "mnist" / "model.py", ["logits"], 1)
    lives = [(buffer.role, buffer.first, buffer.last) for buffer in buffers(graph, accumulates=False)]
    assert lives == [("out", 0, 1), ("out", 1, 2), ("out", 2, 5), ("out", 3, 5)]


@pytest.mark.parametrize(
    ("kind", "kernel", "expected"),
    [
        ("max_pool", (1, 1), 0),
        ("max_pool", (2, 2), 32),  # 2 bits × 5 × 5 × 5, in whole floats
        ("max_pool", (3, 3), 64),
        ("average_pool", (2, 2), None),
    ],
)
def test_pooling_keeps_its_places_in_bits(kind: Kind, kernel: tuple[int, int], expected: int | None) -> None:
    layers = (
        Layer("conv", "conv2d", (9, 9, 1), (9, 9, 5), trainable=True),
        Layer("pool", kind, (9, 9, 5), (5, 5, 5), kernel, (2, 2)),
        Layer("logits", "dense", (5, 5, 5), (1, 1, 3), trainable=True),
    )
    found = {buffer.role: buffer.bytes for buffer in buffers(Graph("g", layers, 3, softmax=False), accumulates=True)}
    assert found.get("argmax") == expected
