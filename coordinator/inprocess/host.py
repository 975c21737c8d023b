"""This machine as if it were a board: float32, a gradient buffer, and no limit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from boards import Board
from boards import Training as BoardTraining
from codegen.graph import Graph
from codegen.planner import Plan, Training, plan
from codegen.tiers import Tier, nested

_LIMIT = 1 << 40  # bytes

HOST = Board(
    id="host", name="this machine", mcu="host", frequency_hz=1, ram=_LIMIT, flash=_LIMIT,
    training=BoardTraining(
        kernel="f32", bauds=(1,), mtu=248, window=1, framework_ram=0, framework_flash=0, static_ram=_LIMIT, stack=0,
        cycles_per_mac=0.0, cycles_per_sample=0, usb=(), emulation=("native",), env="native",
    ),
)  # fmt: skip


def host_plan(graph: Graph, tiers: Sequence[Tier], training: Training) -> Plan:
    """Return the plan of the widest tier, which holds all others, with a gradient buffer. Raises TierError."""
    changes = {"batch": 2, "momentum": 0.0, "encoding": "weights", "sources": {}, "keyed": frozenset()}
    settings = replace(training, **changes, proxy=0, shift=0)  # type: ignore[arg-type]
    return plan(HOST, graph, tiers, nested(graph, tiers)[0], settings)
