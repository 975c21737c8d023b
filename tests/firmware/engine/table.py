"""Shapes, strides, paddings, slopes and narrower widths that every check goes through."""

from __future__ import annotations

from itertools import product
from typing import Literal

from tests.firmware.engine.layers import Kind, Layer

WINDOWS: tuple[Kind, ...] = ("conv2d", "depthwise", "max_pool", "average_pool")
PADDINGS: tuple[Literal["same", "valid"], ...] = ("same", "valid")

LAYERS = [
    Layer("dense", (1, 1, 7), 5),
    Layer("dense", (1, 1, 64), 16, slope=0.0),
    Layer("dense", (1, 1, 9), 10, slope=0.1, stored=(12, 10)),
    Layer("dense", (2, 3, 4), 10, slope=0.1, stored=(8, 10)),
    Layer("dense", (4, 4, 3), 3, slope=0.2, stored=(5, 7)),
    Layer("conv2d", (7, 7, 3), 5, (3, 3), slope=0.1),
    Layer("conv2d", (8, 6, 2), 4, (3, 3), (2, 2), "same", slope=0.1),
    Layer("conv2d", (7, 7, 4), 8, (3, 3), (2, 2), "same", slope=0.0),
    Layer("conv2d", (6, 9, 3), 17, (2, 5), (1, 3), "same", slope=0.3, stored=(4, 20)),
    Layer("conv2d", (5, 5, 2), 3, (1, 1), (2, 2), slope=0.0, stored=(4, 4)),
    Layer("conv2d", (5, 5, 2), 3, (2, 2), (3, 3)),
    Layer("conv2d", (1, 20, 3), 6, (1, 5), (1, 2), "same", slope=0.1),
    Layer("conv2d", (3, 3, 2), 4, (3, 3)),
    Layer("conv2d", (4, 4, 1), 32, (5, 5), padding="same", slope=0.1),
    Layer("depthwise", (7, 7, 3), 3, (3, 3), padding="same", slope=0.1),
    Layer("depthwise", (8, 7, 4), 4, (3, 3), (2, 2), "same", slope=0.0, stored=(6, 6)),
    Layer("depthwise", (6, 6, 2), 6, (3, 2), slope=0.2, stored=(3, 9)),
    Layer("depthwise", (9, 9, 2), 2, (2, 2), (3, 3)),
    Layer("max_pool", (6, 6, 3), kernel=(2, 2), stride=(2, 2)),
    Layer("max_pool", (7, 5, 2), kernel=(3, 3), stride=(2, 2), padding="same"),
    Layer("max_pool", (7, 7, 2), kernel=(3, 2), stride=(1, 2), slope=0.1),
    Layer("max_pool", (6, 5, 4), kernel=(6, 5), slope=0.0),
    Layer("average_pool", (6, 6, 3), kernel=(2, 2), stride=(2, 2), slope=0.1),
    Layer("average_pool", (7, 5, 2), kernel=(3, 3), stride=(2, 2), padding="same"),
    Layer("average_pool", (5, 5, 2), kernel=(3, 3), padding="same", slope=0.0),
    Layer("average_pool", (4, 7, 5), kernel=(4, 7), slope=0.1),
    *(
        Layer(kind, (8, 7, 2), 0 if kind.endswith("pool") else 4, (3, 2), (stride, stride), padding, slope=0.5)
        for kind, stride, padding in product(WINDOWS, (1, 2, 3), PADDINGS)
    ),
]
