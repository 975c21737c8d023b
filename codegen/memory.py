"""The arena: what a training step keeps in RAM, from when to when, and where it lies."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from codegen.graph import Graph, Layer

Role = Literal[
    "out", "argmax", "gradient",
    "filter", "line", "input", "logits", "sum", "step", "filter_back", "line_back",  # in fixed point
]  # fmt: skip


FILTERS = 2  # channels whose weights a fixed-point convolution gathers at a time


@dataclass(frozen=True)
class Buffer:
    """`bytes` that layer `layer` needs from step `first` to step `last`, both included."""

    layer: int
    role: Role
    bytes: int
    first: int
    last: int
    align: int = 4

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
    kept = []
    for index, layer in enumerate(graph.layers):
        backward, last = 2 * len(graph.layers) - index, _last_step(graph, index)
        values = math.prod(layer.out_shape)
        kept.append(Buffer(index, "out", 4 * values, index, last))
        if layer.kind == "max_pool":
            kept.append(Buffer(index, "argmax", _aligned(_argmax_bytes(layer)), index, max(index, last)))
        if needs_scratch(graph, index, accumulates):
            kernel = next(layer.tensors()).size
            kept.append(Buffer(index, "gradient", 4 * kernel, backward, backward))
    return kept


def inference_buffers(graph: Graph, kernel: str) -> list[Buffer]:
    """Return what a forward pass keeps when nothing follows it: an activation lives until the next layer has run.

    In fixed point its exponent lies elsewhere, and the logits are 16-bit whatever the last layer is.
    """
    fixed, last = kernel == "fixed", len(graph.layers) - 1
    kept = [Buffer(last, "logits", 2 * graph.classes, last, last + 1, align=2)] if fixed else []
    for index, layer in enumerate(graph.layers):
        if not (fixed and index == last and layer.kind == "dense"):  # which makes the logits at once
            size, align = (1, 1) if fixed else (4, 4)
            kept.append(Buffer(index, "out", size * math.prod(layer.out_shape), index, index + 1, align))
    return kept


def _last_step(graph: Graph, index: int) -> int:
    """Return until when a layer's output is needed."""
    backward, first_trainable = 2 * len(graph.layers) - index, graph.first_trainable
    if index >= first_trainable:
        return backward
    if index == first_trainable - 1:
        return backward - 1  # read by the first trainable layer's backward
    return index + 1


def _argmax_bytes(layer: Layer) -> int:
    bits = (math.prod(layer.kernel) - 1).bit_length()
    return (bits * math.prod(layer.out_shape) + 7) // 8


def fixed_buffers(graph: Graph) -> list[Buffer]:
    """Return what one training step in fixed point keeps; steps as in `buffers`, and the loss at step n.

    An activation is a byte an element and one for the exponent. What else a kernel works in lives for its step only,
    but for the logits: they die in the loss, which writes their gradient as the last layer's output.
    """
    count = len(graph.layers)
    kept = [Buffer(count - 1, "logits", 2 * graph.classes, count - 1, count, align=2)]
    for index, layer in enumerate(graph.layers):
        first = count if index == count - 1 and layer.kind == "dense" else index
        kept.append(Buffer(index, "out", 1 + math.prod(layer.out_shape), first, _last_step(graph, index), align=1))
        if layer.kind == "max_pool":
            last = max(index, _last_step(graph, index))
            kept.append(Buffer(index, "argmax", _argmax_bytes(layer), index, last, align=1))
        if layer.weighted:
            kept += _fixed_scratch(graph, index)
    return kept


def _fixed_scratch(graph: Graph, index: int) -> Iterator[Buffer]:
    """Yield what a layer's kernels work in, forward and backward."""
    layer, backward = graph.layers[index], 2 * len(graph.layers) - index
    _, width, channels = layer.in_shape
    taps, line = math.prod(layer.kernel), layer.kernel[0] * width * channels
    if layer.kind == "dense":
        if index == 0:
            last = backward if layer.trainable else index
            yield Buffer(index, "input", 1 + graph.features, index, last, align=1)
    else:
        forward = FILTERS * channels if layer.kind == "conv2d" else 1
        yield Buffer(index, "filter", 2 * taps * forward, index, index, align=2)
        if index == 0:
            yield Buffer(index, "line", line, index, index, align=1)
    if layer.kind != "dense" and index > graph.first_trainable:
        back = FILTERS * layer.out_shape[2] if layer.kind == "conv2d" else layer.out_shape[2] // channels
        yield Buffer(index, "filter_back", 2 * taps * back, backward, backward, align=2)
    if not layer.trainable:
        return
    if layer.kind == "dense":
        yield Buffer(index, "step", 2 * layer.out_shape[2], backward, backward, align=2)
    elif index == 0:
        yield Buffer(index, "sum", 4 * next(layer.tensors()).size, backward, backward)
        yield Buffer(index, "line_back", line, backward, backward, align=1)


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
            offset = max(offset, _aligned(start + other.bytes, buffer.align))
        placed.append((offset, buffer))
    offsets = {(buffer.layer, buffer.role): offset for offset, buffer in placed}
    return Arena(offsets, _aligned(max(offset + buffer.bytes for offset, buffer in placed)))


def _aligned(size: int, to: int = 4) -> int:
    return (size + to - 1) // to * to
