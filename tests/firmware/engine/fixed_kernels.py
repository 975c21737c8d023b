"""The fixed-point kernels as functions of lists, on arrays of exactly the size that they may touch."""

from __future__ import annotations

import ctypes
import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tests.firmware.engine.fixed_numbers import Sample, Target, Values, Weights
from tests.firmware.engine.layers import Layer, address

Ints = npt.NDArray[np.integer]


class WeightsStruct(ctypes.Structure):
    _fields_ = (
        ("kernel", ctypes.c_void_p),
        ("bias", ctypes.c_void_p),
        ("kernel_exponent", ctypes.c_int8),
        ("bias_exponent", ctypes.c_int8),
        ("frozen", ctypes.c_bool),
    )


class InputStruct(ctypes.Structure):
    _fields_ = (("bytes", ctypes.c_void_p), ("table", ctypes.c_void_p), ("exponent", ctypes.c_int8))


class TargetStruct(ctypes.Structure):
    _fields_ = (
        ("label", ctypes.c_uint16),
        ("soft", ctypes.c_void_p),
        ("adjustment", ctypes.c_void_p),
        ("temperature", ctypes.c_uint16),
    )


@dataclass
class Held:
    """A layer's weights in memory; `back` copies what the kernel left."""

    weights: Weights

    def __post_init__(self) -> None:
        w = self.weights
        self.kernel = np.array(w.kernel, np.int16)
        self.bias = None if w.bias is None else np.array(w.bias, np.int16)
        self.struct = WeightsStruct(
            address(self.kernel).value, address(self.bias).value, w.kernel_exponent, w.bias_exponent, w.frozen
        )

    def back(self) -> None:
        self.weights.kernel[:] = self.kernel.tolist()
        if self.weights.bias is not None and self.bias is not None:
            self.weights.bias[:] = self.bias.tolist()


def tensor(values: Values) -> npt.NDArray[np.int8]:
    return np.array([values.exponent, *values.at], np.int8)


def empty(count: int) -> npt.NDArray[np.int8]:
    return np.full(1 + count, -86, np.int8)


def values(array: npt.NDArray[np.int8]) -> Values:
    return Values(int(array[0]), array[1:].tolist())


def scratch(count: int, kind: type = np.int16) -> Ints:
    return np.full(count, -0x56, kind)


class FixedKernels:
    """As fixed_reference.Reference, in C."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self.library = library
        library.fixed_cross_entropy.restype = ctypes.c_float
        self._state = ctypes.c_uint16.in_dll(library, "fixed_state")
        self._saturated = ctypes.c_uint32.in_dll(library, "fixed_saturated")

    @property
    def state(self) -> int:
        return self._state.value

    @state.setter
    def state(self, value: int) -> None:
        self._state.value = value

    @property
    def saturated(self) -> int:
        return self._saturated.value

    @saturated.setter
    def saturated(self, value: int) -> None:
        self._saturated.value = value

    def seed(self, seed: int) -> None:
        self.library.fixed_seed(ctypes.c_uint32(seed))

    def forward(self, layer: Layer, x: Values | Sample, weights: Weights, slope: int, shift: int) -> tuple[Values, int]:
        out, held = empty(math.prod(layer.out_shape)), Held(weights)
        filter_ = scratch(math.prod(layer.kernel) * (1 if layer.kind == "depthwise" else 2 * layer.size[2]))
        scratches = [] if layer.kind == "dense" else [address(filter_)]
        name, source, line = self._source(f"fixed_{layer.kind}_forward", layer, x)
        memory = ctypes.c_uint8(shift)
        getattr(self.library, name)(
            address(out), source, ctypes.byref(held.struct), *scratches, *line, ctypes.c_uint16(slope),
            ctypes.byref(memory), ctypes.byref(layer.struct()),
        )  # fmt: skip
        return values(out), memory.value

    def dense_logits(self, layer: Layer, x: Values, weights: Weights) -> list[int]:
        logits, held, at = scratch(layer.out), Held(weights), tensor(x)
        self.library.fixed_dense_logits(
            address(logits), address(at), ctypes.byref(held.struct), ctypes.byref(layer.struct())
        )
        return list(map(int, logits))

    def logits(self, out: Values) -> list[int]:
        logits, at = scratch(len(out.at)), tensor(out)
        self.library.fixed_logits(address(logits), address(at), ctypes.c_uint16(len(out.at)))
        return list(map(int, logits))

    def values_of(self, sample: Sample) -> Values:
        out, (struct, *_) = empty(len(sample.values)), self._input(sample)
        self.library.fixed_values_of(address(out), ctypes.byref(struct), ctypes.c_uint16(len(sample.values)))
        return values(out)

    def pool(self, layer: Layer, x: Values) -> tuple[Values, list[int]]:
        count = math.prod(layer.out_shape)
        out, at, packed = empty(count), tensor(x), np.full((layer.tap_bits * count + 7) // 8, 0x5A, np.uint8)
        argmax = [address(packed)] if layer.kind == "max_pool" else []
        getattr(self.library, f"fixed_{layer.kind}_forward")(
            address(out), *argmax, address(at), ctypes.byref(layer.struct())
        )
        bits = np.unpackbits(packed, bitorder="little")[: count * layer.tap_bits].reshape(count, layer.tap_bits)
        return values(out), (bits @ (1 << np.arange(layer.tap_bits))).tolist()

    def backward(
        self, layer: Layer, x: Values, weights: Weights, gradient: Values, slope: int, shift: int
    ) -> tuple[Values, int]:
        in_out, held, flow, memory = tensor(x), Held(weights), tensor(gradient), ctypes.c_uint8(shift)
        room = self._room(layer)
        getattr(self.library, f"fixed_{layer.kind}_backward")(
            address(in_out), ctypes.c_uint16(slope), ctypes.byref(held.struct), address(room), address(flow),
            ctypes.byref(memory), ctypes.byref(layer.struct()),
        )  # fmt: skip
        held.back()
        return values(in_out), memory.value

    def backward_first(self, layer: Layer, x: Values | Sample, weights: Weights, gradient: Values) -> None:
        held, flow = Held(weights), tensor(gradient)
        room = [scratch(layer.out)] if layer.kind == "dense" else []
        if isinstance(x, Sample):
            per_input = layer.out // layer.size[2] if layer.kind == "depthwise" else layer.out
            room = [scratch(math.prod(layer.kernel) * layer.size[2] * per_input, np.int32)]
        name, source, line = self._source(f"fixed_{layer.kind}_backward", layer, x, "_weights")
        arguments = [source, ctypes.byref(held.struct), *map(address, room), *line, address(flow)]
        getattr(self.library, name)(*arguments, ctypes.byref(layer.struct()))
        held.back()

    def pool_backward(
        self, layer: Layer, x: Values, gradient: Values, places: list[int], slope: int, shift: int
    ) -> tuple[Values, int]:
        in_out, flow, memory = tensor(x), tensor(gradient), ctypes.c_uint8(shift)
        bits = np.array(places)[:, None] >> np.arange(layer.tap_bits) & 1
        packed = np.packbits(bits.astype(np.uint8), bitorder="little")
        argmax = [address(packed)] if layer.kind == "max_pool" else []
        getattr(self.library, f"fixed_{layer.kind}_backward")(
            address(in_out), ctypes.c_uint16(slope), *argmax, address(flow), ctypes.byref(memory),
            ctypes.byref(layer.struct()),
        )  # fmt: skip
        return values(in_out), memory.value

    def cross_entropy(self, logits: list[int], target: Target, step: float) -> tuple[float, Values]:
        at, gradient = np.array(logits, np.int16), empty(len(logits))
        soft = None if target.soft is None else np.array(target.soft, np.uint16)
        adjustment = None if target.adjustment is None else np.array(target.adjustment, np.int16)
        struct = TargetStruct(target.label, address(soft).value, address(adjustment).value, target.temperature)
        loss: float = self.library.fixed_cross_entropy(
            address(gradient), address(at), ctypes.c_uint16(len(logits)), ctypes.byref(struct), ctypes.c_float(step)
        )
        return loss, values(gradient)

    def update_rows(self, kernel: list[int], firsts: list[int], x: list[int], step: list[int]) -> None:
        """The first weights of the rows must be equally far apart."""
        at, inputs, steps = np.array(kernel, np.int16), np.array(x, np.int8), np.array(step, np.int16)
        skip = firsts[1] - firsts[0] - len(step) if len(firsts) > 1 else 0
        self.library.fixed_update_rows(
            address(at[firsts[0] :]), address(inputs), address(steps), ctypes.c_uint16(len(step)),
            ctypes.c_uint16(len(x)), ctypes.c_ssize_t(skip),
        )  # fmt: skip
        kernel[:] = at.tolist()

    def activate(self, x: Values, slope: int) -> Values:
        at = tensor(x)
        self.library.fixed_activate(address(at), ctypes.c_uint16(len(x.at)), ctypes.c_uint16(slope))
        return values(at)

    def rounded(self, value: int, exponent: int) -> int:
        self.library.fixed_rounded.restype = ctypes.c_int16
        result: int = self.library.fixed_rounded(ctypes.c_int32(value), ctypes.c_int16(exponent))
        return result

    @staticmethod
    def _room(layer: Layer) -> Ints:
        if layer.kind == "dense":
            return scratch(layer.out)
        per_input = layer.out // layer.size[2] if layer.kind == "depthwise" else 2 * layer.out
        return scratch(math.prod(layer.kernel) * per_input)

    @staticmethod
    def _input(sample: Sample) -> tuple[InputStruct, Ints, Ints]:
        octets, table = np.array(sample.values, np.uint8), np.array(sample.table, np.int8)
        return InputStruct(address(octets).value, address(table).value, sample.exponent), octets, table

    def _source(
        self, name: str, layer: Layer, x: Values | Sample, plain: str = ""
    ) -> tuple[str, object, list[ctypes.c_void_p]]:
        """Return the function's name, its input, and for a sample room for a line; all kept alive."""
        if isinstance(x, Values):
            self._alive: tuple[object, ...] = (at := tensor(x),)
            return name + plain, address(at), []
        line = scratch(layer.kernel[0] * layer.size[1] * layer.size[2], np.int8)
        struct, *arrays = self._input(x)
        self._alive = (struct, line, *arrays)
        return name + "_sample", ctypes.byref(struct), [address(line)]
