"""The arena: what a training step keeps in RAM, from when to when, and where it lies."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from codegen.graph import Graph

Role = Literal["out", "argmax", "gradient"]


@dataclass(frozen=True)
class Buffer:
    """`bytes` that layer `layer` needs from step `first` to step `last`, both included."""

    layer: int
    role: Role
    bytes: int
    first: int
    last: int

    def meets(self, other: Buffer) -> bool:
        """Whether both are needed at some step."""
        return self.first <= other.last and other.first <= self.last


@dataclass(frozen=True)
class Arena:
    """Where each buffer lies, by (layer, role), in bytes; and how many bytes that takes."""

    offsets: dict[tuple[int, Role], int]
    bytes: int


def buffers(graph: Graph, accumulates: bool) -> list[Buffer]:
    """Return what one training step keeps.

    Layer i runs forward at step i and backward at step 2n - i. An activation lives until the layer that reads it has
    run backward: by then it holds its own gradient, which the layer that made it reads one step later. Below the first
    trainable layer nothing runs backward. Without a gradient buffer, a convolution that also needs its weights for the
    gradient of its input collects their gradient in a scratch of its kernel's size.
    """
    count, first_trainable = len(graph.layers), graph.first_trainable
    kept = []
    for index, layer in enumerate(graph.layers):
        backward = 2 * count - index
        values = math.prod(layer.out_shape)
        if index >= first_trainable:
            last = backward
        elif index == first_trainable - 1:
            last = backward - 1  # read by the first trainable layer's backward
        else:
            last = index + 1
        kept.append(Buffer(index, "out", 4 * values, index, last))
        if layer.kind == "max_pool":
            bits = (math.prod(layer.kernel) - 1).bit_length()
            kept.append(Buffer(index, "argmax", _aligned((bits * values + 7) // 8), index, max(index, last)))
        if needs_scratch(graph, index, accumulates):
            kernel = next(layer.tensors()).size
            kept.append(Buffer(index, "gradient", 4 * kernel, backward, backward))
    return kept


def needs_scratch(graph: Graph, index: int, accumulates: bool) -> bool:
    """Whether a layer's kernel gradient has to be collected before the kernel may change."""
    layer = graph.layers[index]
    conv = layer.kind in ("conv2d", "depthwise_conv2d")
    return conv and layer.trainable and not accumulates and index > graph.first_trainable


def place(kept: Sequence[Buffer]) -> Arena:
    """Return the smallest of a few greedy arenas: each buffer at the lowest place free for as long as it lives."""
    orders: tuple[Callable[[Buffer], tuple[int, ...]], ...] = (
        lambda b: (-b.bytes, b.first),
        lambda b: (b.first, -b.bytes),
        lambda b: (b.first - b.last, -b.bytes),
        lambda b: (-b.last, b.first),
    )
    return min((_greedy(sorted(kept, key=order)) for order in orders), key=lambda arena: arena.bytes)


def _greedy(kept: Sequence[Buffer]) -> Arena:
    placed: list[tuple[int, Buffer]] = []
    for buffer in kept:
        offset = 0
        for start, other in sorted(((o, b) for o, b in placed if b.meets(buffer)), key=lambda pair: pair[0]):
            if start >= offset + buffer.bytes:
                break
            offset = max(offset, start + other.bytes)
        placed.append((offset, buffer))
    offsets = {(buffer.layer, buffer.role): offset for offset, buffer in placed}
    return Arena(offsets, max(offset + buffer.bytes for offset, buffer in placed))


def _aligned(size: int) -> int:
    return (size + 3) // 4 * 4
