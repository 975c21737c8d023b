"""Names for C."""

from __future__ import annotations

import re

from codegen.graph import Graph


def c_names(graph: Graph) -> tuple[str, ...]:
    """Return each layer's name as part of a C identifier, no two the same."""
    names: list[str] = []
    for index, layer in enumerate(graph.layers):
        name = re.sub(r"[^0-9A-Za-z_]", "_", layer.name)
        while name in names:
            name = f"{name}_{index}"
        names.append(name)
    return tuple(names)


def float_literal(value: float) -> str:
    """Return the C literal of the float32 nearest to `value`; every float32 has another one."""
    digits = f"{value:.9g}"
    return f"{digits}f" if "." in digits or "e" in digits else f"{digits}.0f"
