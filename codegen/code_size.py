"""How much flash the kernels take that a model calls: measured, in bytes per kind of layer.

`python -m benchmarks.code_size` builds images for the Mega and prints these numbers. A kind counts once however many
layers are of it; the layer that reads the samples, and frozen layers, have kernels of their own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from codegen.graph import Graph

CALLS = 3  # of kernels a layer: forward, activation, backward
CALL_BYTES = 96  # at most, where nothing was measured and framework_flash holds all kernels


class Code(NamedTuple):
    """`kinds`: bytes of a kind's kernels and their calls; `again`: of each further layer of it."""

    kinds: Mapping[str, int]
    again: int


# By PlatformIO platform and arithmetic. framework_flash holds a first dense layer's kernels: another first layer may
# take less.
MEASURED: Mapping[tuple[str, str], Code] = {
    ("atmelavr", "f32"): Code(
        {
            "first dense": 0,
            "first conv2d": 2432,
            "first depthwise_conv2d": 2351,
            "dense": 2379,
            "conv2d": 5310,
            "depthwise_conv2d": 4616,
            "max_pool": 3207,
            "average_pool": 3054,
            "frozen first dense": -1756,
            "frozen first conv2d": -616,
            "frozen first depthwise_conv2d": -479,
            "frozen dense": 464,
            "frozen conv2d": 1644,
            "frozen depthwise_conv2d": 1903,
            "frozen max_pool": 1453,
            "frozen average_pool": 1159,
        },
        202,
    ),
}


def code_bytes(platform: str, kernel: str, graph: Graph) -> int:
    """Return the flash that the kernels of a model take, beyond framework_flash."""
    if (platform, kernel) not in MEASURED:
        return CALL_BYTES * CALLS * len(graph.layers)
    measured, seen = MEASURED[platform, kernel], list(kinds(graph))
    once = dict.fromkeys(seen)
    return sum(measured.kinds[kind] for kind in once) + measured.again * (len(seen) - len(once))


def kinds(graph: Graph) -> Iterator[str]:
    """Name the kind of each layer; below the first trainable one nothing runs backward."""
    for index, layer in enumerate(graph.layers):
        frozen = "frozen " if index < graph.first_trainable else ""
        yield f"{frozen}{'first ' if index == 0 else ''}{layer.kind}"
