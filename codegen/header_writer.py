"""What the headers of both arithmetics have in common: names, places, constants and the sizes of layers."""

from __future__ import annotations

import math
import textwrap
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from codegen.graph import Graph, Layer, Tensor
from codegen.memory import Arena
from codegen.names import c_names
from codegen.planner import Plan
from codegen.weights import weight_bytes

if TYPE_CHECKING:
    import numpy as np

KERNELS = {
    "dense": "dense",
    "conv2d": "conv2d",
    "depthwise_conv2d": "depthwise",
    "max_pool": "max_pool",
    "average_pool": "average_pool",
}
NUMBERS_A_LINE = 8


@dataclass(frozen=True)
class Place:
    """A name for a place in one of the arrays."""

    name: str
    where: str
    comment: str


@dataclass(frozen=True)
class Constant:
    """A frozen tensor."""

    name: str
    size: int
    in_flash: bool  # even of a chip whose kernels must know
    comment: str
    lines: tuple[str, ...]


@dataclass(frozen=True)
class ShapeTable:
    """A layer's sizes: initialiser and comment for each width."""

    name: str
    struct: str
    rows: tuple[tuple[str, str], ...]


class Writer(ABC):
    """Writes the declarations and statements of one plan. A layer's things are called model_<thing>_<layer>."""

    template: ClassVar[str]
    prefix: ClassVar[str]  # of the kernels' names
    number: ClassVar[str]  # the type of a weight

    def __init__(self, plan: Plan, arena: Arena, weights: Sequence[np.ndarray]) -> None:
        """`weights` are the global ones, of which only the frozen ones are used."""
        self.plan = plan
        self.graph = plan.sub_model.graph
        self.names = c_names(self.graph)
        self.arena = arena
        cut = zip(self.graph.tensors, plan.sub_model.cut(weights), strict=True)
        self.in_flash = {array.name for array in plan.arrays if array.section == "flash"}
        self.frozen = {(t.layer, t.role): (t, values) for t, values in cut if not t.trainable}

    def context(self) -> dict[str, Any]:
        """Return what the template shows."""
        return {
            "plan": self.plan,
            "graph": self.graph,
            "tier": self.plan.sub_model.tier.name,
            "weight_bytes": weight_bytes(self.plan),
            "arena": self.arena,
            "number": self.number,
            "summary": list(summary(self.graph)),
            "places": list(self.places()),
            "constants": list(self.constants()),
            "shapes": list(self.shapes()),
            "forward": [wrap(statement) for statement in self.forward()],
            "backward": [wrap(statement) for statement in self.backward()],
        }

    # What an arithmetic adds

    @abstractmethod
    def places(self) -> Iterator[Place]:
        """Name what lies in the arena, and the tensors."""

    @abstractmethod
    def forward(self) -> Iterator[str]:
        """Run every layer."""

    @abstractmethod
    def backward(self) -> Iterator[str]:
        """Run the layers backwards, down to the first trainable one."""

    @abstractmethod
    def literals(self, values: np.ndarray) -> tuple[list[str], str]:
        """Return a frozen tensor's elements, and what to say of their scale."""

    # What they share

    def constants(self) -> Iterator[Constant]:
        """Write out the frozen tensors."""
        names = dict(zip((layer.name for layer in self.graph.layers), self.names, strict=True))
        for tensor, values in self.frozen.values():
            literals, scale = self.literals(values)
            rows = lines_of(literals)
            name = f"model_{tensor.role}_{names[tensor.layer]}"
            yield Constant(name, tensor.size, name in self.in_flash, brackets(tensor) + scale, rows)

    def shapes(self) -> Iterator[ShapeTable]:
        """Write each layer's sizes at each width."""
        for index, (name, own) in enumerate(zip(self.names, self.graph.layers, strict=True)):
            initialiser = self._dense_sizes if own.kind == "dense" else _window_sizes
            rows = []
            for tier, graph in zip(self.plan.widths, self.plan.graphs, strict=True):
                layer = graph.layers[index]
                comment = f"{tier.name}: {times(layer.in_shape)} -> {times(layer.out_shape)}"
                rows.append((initialiser(own, layer), comment))
            yield ShapeTable(f"model_shape_{name}", _struct(own), tuple(rows))

    def _dense_sizes(self, own: Layer, layer: Layer) -> str:
        groups, stored = dense_groups(self.graph, own)
        channels = math.prod(layer.in_shape) // groups
        return ", ".join(map(str, (groups, channels, layer.out_shape[2], stored, own.out_shape[2])))

    def kernel(self, index: int, way: str) -> str:
        """Return the name of a layer's kernel."""
        return f"{self.prefix}_{KERNELS[self.graph.layers[index].kind]}_{way}"

    def thing(self, thing: str, index: int) -> str:
        """Return the name of a layer's thing."""
        return f"model_{thing}_{self.names[index]}"

    def shape(self, index: int) -> str:
        """Return a pointer to a layer's sizes."""
        return f"MODEL_SHAPE({_struct(self.graph.layers[index])}, {self.names[index]})"

    def out_count(self, index: int) -> str:
        """Return how many elements a layer's output has at the width in use."""
        layer = self.graph.layers[index]
        field = "out" if layer.kind == "dense" else "out_channels"
        channels = f"ENGINE_FLASH_U16(model_shape_{self.names[index]}[width].{field})"
        pixels = layer.out_shape[0] * layer.out_shape[1]
        return channels if pixels == 1 else f"(uint16_t)({pixels}U * {channels})"


def summary(graph: Graph) -> Iterator[str]:
    """Describe each layer on a line."""
    for name, layer in zip(c_names(graph), graph.layers, strict=True):
        inputs, outputs = "×".join(map(str, layer.in_shape)), "×".join(map(str, layer.out_shape))
        words = [f"{name:<16} {layer.kind:<16} {inputs:>14} -> {outputs:<14}"]
        if layer.slope != 1.0:
            words.append(f"LeakyReLU({layer.slope:g})" if layer.slope else "ReLU")
        if layer.weighted and not layer.trainable:
            words.append("frozen")
        yield " ".join(words).rstrip()


def dense_groups(graph: Graph, layer: Layer) -> tuple[int, int]:
    """Return in how many groups a dense layer of `graph` reads its input, and how many elements each has.

    A group is a pixel, whose channels a narrower width reads fewer of. What is whole at every width is one long group.
    """
    before = graph.layers[: graph.layers.index(layer)]
    whole = not any(other.kind in ("dense", "conv2d") for other in before)
    groups = 1 if whole else math.prod(layer.in_shape[:2])
    return groups, math.prod(layer.in_shape) // groups


def lines_of(literals: Sequence[str]) -> tuple[str, ...]:
    """Return the lines of an initialiser."""
    starts = range(0, len(literals), NUMBERS_A_LINE)
    return tuple(", ".join(literals[at : at + NUMBERS_A_LINE]) + "," for at in starts)


def _struct(layer: Layer) -> str:
    return "dense" if layer.kind == "dense" else "window"


def _window_sizes(own: Layer, layer: Layer) -> str:
    inputs, outputs = layer.in_shape, layer.out_shape
    sizes = (*inputs[:2], *outputs[:2], *layer.kernel, *layer.stride, *layer.pad)
    return ", ".join(map(str, (*sizes, inputs[2], outputs[2], own.in_shape[2], own.out_shape[2])))


def wrap(statement: str) -> str:
    """Return a statement indented, on as many lines as it takes."""
    return textwrap.fill(statement, 120, initial_indent=" " * 4, subsequent_indent=" " * 8, break_long_words=False)


def times(shape: Sequence[int]) -> str:
    """Return a shape as text."""
    return "×".join(map(str, shape)) if math.prod(shape[:2]) > 1 else str(shape[2])


def brackets(tensor: Tensor) -> str:
    """Return a tensor's shape as C would have it."""
    return "".join(f"[{size}]" for size in tensor.shape)
