"""trainable = "auto": how many leading layers have to stay in flash, and what is said of it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from codegen.freezing import auto, freeze
from codegen.graph import Graph, Layer
from codegen.planner import PlanError, Training, best, plan
from codegen.tiers import Tier
from tests.codegen.support import Array, board

TIERS = (Tier("all", 1.0), Tier("half", 0.5))
TRAINING = Training(batch=1, encoding="weights")
LAYERS = (
    Layer("first", "conv2d", (8, 8, 1), (4, 4, 8), (3, 3), (2, 2), bias=True, trainable=True),
    Layer("pool", "max_pool", (4, 4, 8), (2, 2, 8), (2, 2), (2, 2)),
    Layer("second", "conv2d", (2, 2, 8), (1, 1, 16), (2, 2), bias=True, trainable=True),
    Layer("logits", "dense", (1, 1, 16), (1, 1, 3), bias=True, trainable=True),
)
WHOLE = Graph("g", LAYERS, 3, softmax=False)
WEIGHTS: list[Array] = [np.ones(tensor.shape, np.float32) for tensor in WHOLE.tensors]
FREED = (  # what the narrowest tier needs in RAM with none, one and two layers frozen
    plan(board(), graph, TIERS, TIERS[1], TRAINING).ram
    for graph in (WHOLE, freeze(WHOLE, WEIGHTS, ["first"]), freeze(WHOLE, WEIGHTS, ["first", "second"]))
)
NONE, ONE, TWO = FREED


@pytest.mark.parametrize(
    ("ram", "frozen", "sentence"),
    [
        (NONE, (), "auto: no layer is frozen, because every board holds a tier of the whole model"),
        (NONE - 1, ("first",), "auto: first is frozen, because small would be short by 1 bytes of RAM"),
        (ONE, ("first",), f"auto: first is frozen, because small would be short by {NONE - ONE} bytes of RAM"),
        (
            ONE - 1,
            ("first", "second"),
            "auto: first and second are frozen, because small would be short by 1 bytes of RAM with second trained",
        ),
        (
            TWO,
            ("first", "second"),
            f"auto: first and second are frozen, because small would be short by {ONE - TWO} bytes of RAM "
            "with second trained",
        ),
    ],
)
def test_as_few_layers_are_frozen_as_the_smallest_board_needs(ram: int, frozen: tuple[str, ...], sentence: str) -> None:
    small = replace(board(ram=ram), id="small")
    found = auto([board(), small, board()], WHOLE, WEIGHTS, TIERS, TRAINING)
    assert (found.layers, found.sentence) == (frozen, sentence)
    assert [layer.name for layer in found.graph.layers if layer.weighted and not layer.trainable] == list(frozen)
    assert found.graph.frozen_crc == freeze(WHOLE, WEIGHTS, frozen).frozen_crc
    assert (found.graph.frozen_crc != 0) == bool(frozen)
    assert best(small, found.graph, TIERS, TRAINING).fits


def test_the_last_layer_is_not_frozen_and_the_error_says_what_is_missing() -> None:
    with pytest.raises(PlanError) as error:
        auto([board(), board(ram=TWO - 1)], WHOLE, WEIGHTS, TIERS, TRAINING)
    assert str(error.value) == (
        "tier half needs 1 bytes of RAM more than bench has; no tier fits, though every layer but logits is frozen: "
        "add a narrower tier to [tiers], or use a larger board"
    )


def test_flash_is_told_from_ram() -> None:
    need = plan(board(), WHOLE, TIERS, TIERS[1], TRAINING).flash
    with pytest.raises(PlanError, match="bytes of flash more"):  # frozen weights only take more of it
        auto([board(flash=need - 1)], WHOLE, WEIGHTS, TIERS, TRAINING)


def test_what_keras_does_not_train_is_not_counted() -> None:
    graph = freeze(WHOLE, WEIGHTS, ["first"])
    found = auto([board(ram=ONE)], graph, WEIGHTS, TIERS, TRAINING)
    assert (found.layers, found.graph) == ((), graph)
