"""The network that a board runs: layers, their tensors, and the shapes of both."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import numpy as np

Shape = tuple[int, int, int]  # height, width, channels
Kind = Literal["dense", "conv2d", "depthwise_conv2d", "max_pool", "average_pool"]


class ModelError(ValueError):
    """A model that cannot become firmware; the sentence names the layer and what to use."""


@dataclass(frozen=True)
class Layer:
    """One step of the network, with the activation on its output. Shapes are height, width, channels."""

    name: str
    kind: Kind
    in_shape: Shape  # Dense after Flatten keeps the shape before it
    out_shape: Shape
    kernel: tuple[int, int] = (1, 1)
    stride: tuple[int, int] = (1, 1)
    pad: tuple[int, int] = (0, 0)  # rows above, columns to the left
    slope: float = 1.0  # of the activation below zero: 1 linear, 0 ReLU, alpha LeakyReLU
    bias: bool = False
    trainable: bool = False
    flat_kernel: bool = False  # Conv1D: Keras's kernel has no height axis

    @property
    def weighted(self) -> bool:
        """Whether it has a kernel."""
        return not self.kind.endswith("_pool")

    def tensors(self) -> Iterator[Tensor]:
        """Yield its tensors in Keras's order and shapes."""
        height, width, channels = self.in_shape
        if self.kind == "dense":
            shape: tuple[int, ...] = (height * width * channels, self.out_shape[2])
        elif self.kind == "conv2d":
            shape = (*self.kernel[1 if self.flat_kernel else 0 :], channels, self.out_shape[2])
        else:
            shape = (*self.kernel, channels, 1)
        if self.weighted:
            yield Tensor(self.name, "kernel", shape, self.trainable)
            if self.bias:
                yield Tensor(self.name, "bias", (self.out_shape[2],), self.trainable)


@dataclass(frozen=True)
class Tensor:
    """One weight tensor, in Keras's shape."""

    layer: str
    role: Literal["kernel", "bias"]
    shape: tuple[int, ...]
    trainable: bool

    @property
    def size(self) -> int:
        """Elements."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Graph:
    """The network a board runs: `layers` from the 8-bit sample to the logits."""

    name: str
    layers: tuple[Layer, ...]
    classes: int
    softmax: bool  # the Keras model ends in one; a board always trains on logits
    frozen_crc: int = 0  # CRC-32 of the frozen tensors' bytes, 0 if there are none

    @cached_property
    def tensors(self) -> tuple[Tensor, ...]:
        """Every weight tensor, in the order of keras `model.get_weights()`."""
        return tuple(tensor for layer in self.layers for tensor in layer.tensors())

    @property
    def input_shape(self) -> Shape:
        """Height, width, channels of a sample."""
        return self.layers[0].in_shape

    @property
    def features(self) -> int:
        """Bytes of a sample."""
        return math.prod(self.input_shape)

    @cached_property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """Of the trainable tensors."""
        return tuple(tensor.shape for tensor in self.tensors if tensor.trainable)

    @cached_property
    def parameters(self) -> int:
        """Trainable floats."""
        return sum(math.prod(shape) for shape in self.shapes)

    @property
    def first_trainable(self) -> int:
        """Index of the layer at which the backward pass ends."""
        return next(index for index, layer in enumerate(self.layers) if layer.trainable)


def frozen_crc(graph: Graph, weights: Sequence[np.ndarray]) -> int:
    """Return what a graph's `frozen_crc` is with these weights, in the order of its tensors."""
    crc = 0
    for tensor, weight in zip(graph.tensors, weights, strict=True):
        if not tensor.trainable:
            crc = zlib.crc32(weight.astype("<f4").tobytes(), crc)
    return crc
