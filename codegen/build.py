"""What a build needs, written where the compiler looks; unchanged files keep their time."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from boards import Board
from codegen.graph import Graph
from codegen.header import model_header
from codegen.planner import Plan, Training, best
from codegen.protocol_header import protocol_header
from codegen.tiers import Tier

if TYPE_CHECKING:
    import numpy as np


def generate(
    board: Board,
    graph: Graph,
    weights: Sequence[np.ndarray],
    tiers: Sequence[Tier],
    training: Training,
    out_dir: Path,
) -> Plan:
    """Write model.h and protocol.h for the largest tier that fits, and return its plan.

    `weights` are the global ones, in `graph.tensors` order. Raises PlanError and TierError.
    """
    plan = best(board, graph, tiers, training)
    out_dir.mkdir(parents=True, exist_ok=True)
    write_if_changed(out_dir / "model.h", model_header(plan, weights))
    write_if_changed(out_dir / "protocol.h", protocol_header())
    return plan


def write_if_changed(path: Path, text: str) -> bool:
    """Replace the file in one step unless it says the same already; return whether it was written."""
    data = text.encode()
    try:
        if path.read_bytes() == data:
            return False
    except FileNotFoundError:
        pass
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    temporary.write_bytes(data)
    temporary.replace(path)
    return True
