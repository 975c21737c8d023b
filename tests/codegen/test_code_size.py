"""The flash that kernels take."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import pytest

from boards import PROJECT_ROOT
from codegen.code_size import CALL_BYTES, CALLS, MEASURED, code_bytes, kinds
from codegen.graph import Graph
from codegen.model_file import load_graph

AVR = MEASURED["atmelavr", "f32"]


def graph(trainable: tuple[str, ...] | None = None) -> Graph:
    """Return the example's graph: three convolutions and a dense layer."""
    return load_graph(PROJECT_ROOT / "examples" / "mnist" / "model.py", trainable, 1)[0]


@pytest.mark.parametrize(
    ("trainable", "expected"),
    [
        (None, ["first conv2d", "conv2d", "conv2d", "last dense"]),
        (("conv3", "logits"), ["frozen first conv2d", "frozen conv2d", "conv2d", "last dense"]),
        (("logits",), ["frozen first conv2d", "frozen conv2d", "frozen conv2d", "last dense"]),
    ],
)
def test_a_kind_counts_once_and_each_further_layer_a_little(
    trainable: tuple[str, ...] | None, expected: list[str]
) -> None:
    assert list(kinds(graph(trainable))) == expected
    again = len(expected) - len(set(expected))
    once = sum(AVR.kinds[kind] for kind in set(expected))
    assert code_bytes("atmelavr", "f32", graph(trainable)) == AVR.base + once + again * AVR.again


def test_every_kind_is_measured() -> None:
    windows = ("conv2d", "depthwise_conv2d")
    for measured, frozen in product(MEASURED.values(), ("", "frozen ")):
        assert {f"{frozen}{kind}" for kind in ("dense", *windows, "max_pool", "average_pool")} <= set(measured.kinds)
        assert {f"{frozen}first {kind}" for kind in ("dense", *windows)} <= set(measured.kinds)
        assert "last dense" in measured.kinds


def test_buffers_have_code_where_it_was_measured() -> None:
    whole, cortex = graph(), MEASURED["nordicnrf52", "f32"]
    alone = code_bytes("nordicnrf52", "f32", whole)
    assert code_bytes("nordicnrf52", "f32", whole, accumulates=True) == alone + cortex.kinds["gradients"]
    both = code_bytes("nordicnrf52", "f32", whole, accumulates=True, keeps_origin=True)
    assert both == alone + cortex.kinds["gradients"] + cortex.kinds["origin"]
    assert code_bytes("atmelavr", "f32", whole, True, True) == code_bytes("atmelavr", "f32", whole)


def test_where_nothing_was_measured_only_calls_count() -> None:
    whole = graph()
    assert code_bytes("espressif32", "f32", whole) == CALLS * CALL_BYTES * 4
    assert code_bytes("espressif32", "f32", replace(whole, layers=whole.layers[:1])) == CALLS * CALL_BYTES
