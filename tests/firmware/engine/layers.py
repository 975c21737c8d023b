"""Layers to try the kernels on, and the kernels as functions of numpy arrays."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass, field
from types import EllipsisType
from typing import Literal

import numpy as np
import numpy.typing as npt

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
U8 = npt.NDArray[np.uint8]
Kind = Literal["dense", "conv2d", "depthwise", "max_pool", "average_pool"]


class SampleStruct(ctypes.Structure):
    _fields_ = (("bytes", ctypes.c_void_p), ("scale", ctypes.c_float), ("offset", ctypes.c_float))


class WindowStruct(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_uint16) for name in ("in_height", "in_width", "out_height", "out_width")),
        *((name, ctypes.c_uint8) for name in ("kernel_height", "kernel_width", "stride_height", "stride_width")),
        *((name, ctypes.c_uint8) for name in ("pad_top", "pad_left")),
        *((name, ctypes.c_uint16) for name in ("in_channels", "out_channels", "weight_in", "weight_out")),
    )


class DenseStruct(ctypes.Structure):
    _fields_ = tuple((name, ctypes.c_uint16) for name in ("groups", "in", "out", "weight_in", "weight_out"))


class TargetStruct(ctypes.Structure):
    _fields_ = (
        ("label", ctypes.c_uint16),
        ("soft", ctypes.c_void_p),
        ("adjustment", ctypes.c_void_p),
        ("weight", ctypes.c_float),
        ("temperature", ctypes.c_float),
    )


@dataclass(frozen=True)
class Layer:
    """One layer at the width in use, inside weights stored for `stored` = (in, out) channels."""

    kind: Kind
    size: tuple[int, int, int]  # input height, width, channels in use
    out: int = 0  # output channels in use; pooling: as many as come in
    kernel: tuple[int, int] = (1, 1)
    stride: tuple[int, int] = (1, 1)
    padding: Literal["same", "valid"] = "valid"
    slope: float = 1.0  # of the activation that made the input
    stored: tuple[int, int] | None = None

    @property
    def weighted(self) -> bool:
        return not self.kind.endswith("pool")

    @property
    def channels(self) -> int:
        return self.out if self.weighted else self.size[2]

    @property
    def kept(self) -> tuple[int, int]:
        return self.stored or (self.size[2], self.out)

    @property
    def weight_shape(self) -> tuple[int, ...]:
        """Of the stored tensor, as Keras has it; Dense after Flatten is seen as (groups, in, out)."""
        if self.kind == "dense":
            return (self.size[0] * self.size[1], *self.kept)
        if self.kind == "depthwise":
            return (*self.kernel, self.kept[0], self.out // self.size[2])
        return (*self.kernel, *self.kept)

    @property
    def used(self) -> tuple[EllipsisType, slice, slice]:
        """The part of the stored weights in use."""
        last = slice(None) if self.kind == "depthwise" else slice(self.out)
        return (..., slice(self.size[2]), last)

    @property
    def geometry(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """Output size, and rows and columns of padding before the input, as TensorFlow defines them."""
        if self.kind == "dense":
            return (1, 1), (0, 0)
        out, pad = [], []
        for size, kernel, stride in zip(self.size, self.kernel, self.stride, strict=False):
            count = -(-size // stride) if self.padding == "same" else (size - kernel) // stride + 1
            out.append(count)
            pad.append(max((count - 1) * stride + kernel - size, 0) // 2 if self.padding == "same" else 0)
        return (out[0], out[1]), (pad[0], pad[1])

    @property
    def tap_bits(self) -> int:
        """What a place in the window takes."""
        return (self.kernel[0] * self.kernel[1] - 1).bit_length()

    @property
    def out_shape(self) -> tuple[int, int, int]:
        return (*self.geometry[0], self.channels)

    def struct(self) -> ctypes.Structure:
        if self.kind == "dense":
            return DenseStruct(self.size[0] * self.size[1], self.size[2], self.out, *self.kept)
        out, pad = self.geometry
        return WindowStruct(
            *self.size[:2], *out, *self.kernel, *self.stride, *pad, self.size[2], self.channels, *self.kept
        )


@dataclass(frozen=True)
class Bytes:
    """A sample: element i is values[i] * scale + offset."""

    values: U8
    scale: float
    offset: float

    def floats(self) -> F32:
        return self.values.astype(np.float32) * np.float32(self.scale) + np.float32(self.offset)


@dataclass
class Gradients:
    """What a backward kernel leaves; weight and bias hold what was in them before, plus scale × gradient."""

    weight: F32 | None
    bias: F32 | None
    input: F32 | None = field(default=None)


@dataclass(frozen=True)
class Expected:
    """What an oracle says of one layer."""

    out: F64
    input: F64  # gradient with respect to what the activation before was given
    weight: F64
    bias: F64


def address(array: npt.NDArray[np.generic] | None) -> ctypes.c_void_p:
    assert array is None or array.flags.c_contiguous
    return ctypes.c_void_p(None if array is None else array.ctypes.data)


class Kernels:
    """The engine's functions on arrays of exactly the size that they may touch."""

    def __init__(self, library: ctypes.CDLL, prefix: str = "engine") -> None:
        """`prefix` is that of the layers' functions."""
        self.library, self.prefix = library, prefix
        if prefix == "engine":
            library.engine_cross_entropy.restype = ctypes.c_float

    def forward(self, layer: Layer, x: F32 | Bytes, weight: F32 | None = None, bias: F32 | None = None) -> F32:
        out = np.full(layer.out_shape, np.nan, np.float32)
        shape = ctypes.byref(layer.struct())
        if layer.weighted:
            name, source = self._source(f"{self.prefix}_{layer.kind}_forward", x)
            getattr(self.library, name)(address(out), source, address(weight), address(bias), shape)
        else:
            assert not isinstance(x, Bytes)
            self._call("average_pool_forward", address(out), address(x), shape)
        return out

    def max_pool(self, layer: Layer, x: F32) -> tuple[F32, U8]:
        """Return the maxima and, packed, the window position of each."""
        out = np.full(layer.out_shape, np.nan, np.float32)
        argmax = np.full((layer.tap_bits * out.size + 7) // 8, 0xFF, np.uint8)
        self._call("max_pool_forward", address(out), address(argmax), address(x), ctypes.byref(layer.struct()))
        return out, argmax

    def backward(
        self, layer: Layer, x: F32, weight: F32, before: Gradients, out_gradient: F32, scale: float, fused: bool = False
    ) -> Gradients:
        """In place. `fused` (dense): the weights themselves take the gradient, and come back as `weight`."""
        in_out = x.copy()
        weight = weight.copy()
        after = Gradients(weight if fused else _copy(before.weight), _copy(before.bias), in_out)
        self._call(
            f"{layer.kind}_backward", address(in_out), ctypes.c_float(layer.slope), address(weight),
            address(after.weight), address(after.bias), address(out_gradient), ctypes.c_float(scale),
            ctypes.byref(layer.struct()),
        )  # fmt: skip
        return after

    def backward_first(
        self, layer: Layer, x: F32 | Bytes, before: Gradients, out_gradient: F32, scale: float
    ) -> Gradients:
        """Of the first trainable layer: no gradient with respect to its input."""
        after = Gradients(_copy(before.weight), _copy(before.bias))
        name, source = self._source(f"{self.prefix}_{layer.kind}_backward", x, "_weights")
        getattr(self.library, name)(
            source, address(after.weight), address(after.bias), address(out_gradient), ctypes.c_float(scale),
            ctypes.byref(layer.struct()),
        )  # fmt: skip
        return after

    def pool_backward(self, layer: Layer, x: F32, out_gradient: F32, argmax: U8 | None = None) -> F32:
        in_out = x.copy()
        arguments = [] if argmax is None else [address(argmax)]
        self._call(
            f"{layer.kind}_backward", address(in_out), ctypes.c_float(layer.slope), *arguments, address(out_gradient),
            ctypes.byref(layer.struct()),
        )  # fmt: skip
        return in_out

    def activate(self, x: F32, slope: float) -> F32:
        x = x.copy()
        self.library.engine_activate(address(x), ctypes.c_uint16(x.size), ctypes.c_float(slope))
        return x

    def softmax(self, logits: F32) -> F32:
        logits = logits.copy()
        self.library.engine_softmax(address(logits), ctypes.c_uint16(logits.size))
        return logits

    def cross_entropy(
        self,
        logits: F32,
        target: int | F32,
        adjustment: F32 | None = None,
        weight: float = 1.0,
        temperature: float = 1.0,
    ) -> tuple[float, F32]:
        """Return the loss and its gradient with respect to the logits."""
        logits = logits.copy()
        soft = None if isinstance(target, int) else target
        label = target if isinstance(target, int) else 0
        struct = TargetStruct(label, address(soft).value, address(adjustment).value, weight, temperature)
        loss: float = self.library.engine_cross_entropy(
            address(logits), ctypes.c_uint16(logits.size), ctypes.byref(struct)
        )
        return loss, logits

    def update(self, weight: F32, gradient: F32, step: float, momentum: float) -> None:
        """In place."""
        self.library.engine_update(
            address(weight), address(gradient), ctypes.c_uint32(weight.size), ctypes.c_float(step),
            ctypes.c_float(momentum),
        )  # fmt: skip

    def _call(self, name: str, *arguments: object) -> None:
        getattr(self.library, f"{self.prefix}_{name}")(*arguments)

    @staticmethod
    def _source(name: str, x: F32 | Bytes, plain: str = "") -> tuple[str, object]:
        if isinstance(x, Bytes):
            return name + "_sample", ctypes.byref(SampleStruct(address(x.values).value, x.scale, x.offset))
        return name + plain, address(x)


def _copy(array: F32 | None) -> F32 | None:
    return None if array is None else array.copy()
