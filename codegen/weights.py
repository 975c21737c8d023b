"""Weights as they travel and lie in a node's RAM: little-endian, trainable tensors in graph order, C order.

f32: the floats. fixed: `int8_t exponents[]`, one a tensor and filled up to an even number with zeros, then
`int16_t at[]`: an element is worth at * 2^exponent.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from codegen.graph import Graph, Tensor

if TYPE_CHECKING:
    import numpy as np

    from codegen.planner import Plan

EXPONENT_LIMIT = 40  # FIXED_EXPONENT_LIMIT in firmware/engine/fixed.h
LARGEST = 2**15 - 1  # magnitude of a 16-bit weight
LEAST_RANGE = 0.5  # a tensor is packed as if its largest weight were at least this
HEADROOM = 2  # octaves that a tensor may grow by in a round


def exponent_count(graph: Graph) -> int:
    """Return how many exponents there are, the padding included."""
    tensors = sum(tensor.trainable for tensor in graph.tensors)
    return tensors + tensors % 2


def size_of(graph: Graph, kernel: str) -> int:
    """Return the bytes of a sub-model's trainable weights in a kernel's arithmetic."""
    return exponent_count(graph) + 2 * graph.parameters if kernel == "fixed" else 4 * graph.parameters


def weight_bytes(plan: Plan) -> int:
    """Return the bytes of a plan's trainable weights."""
    return size_of(plan.sub_model.graph, plan.kernel)


def pack(plan: Plan, tensors: Sequence[np.ndarray]) -> bytes:
    """Return the trainable ones of the sub-model's `tensors`. Raises ValueError if fixed point cannot hold one."""
    graph = plan.sub_model.graph
    trainable = [values for tensor, values in zip(graph.tensors, tensors, strict=True) if tensor.trainable]
    if plan.kernel != "fixed":
        return b"".join(values.astype("<f4").tobytes() for values in trainable)
    exponents = [roomy_exponent(values) for values in trainable]
    padding = bytes(exponent_count(graph) - len(exponents))
    packed = b"".join(to_fixed(values, at).tobytes() for values, at in zip(trainable, exponents, strict=True))
    return bytes(at % 256 for at in exponents) + padding + packed


def unpack(plan: Plan, blob: bytes) -> list[np.ndarray]:
    """Return the trainable tensors in `blob`, float32. Raises ValueError if it cannot be a plan's weights."""
    import numpy as np

    graph, expected = plan.sub_model.graph, weight_bytes(plan)
    if len(blob) != expected:
        raise ValueError(f"{len(blob)} bytes of weights; tier {plan.sub_model.tier.name} has {expected}")
    trainable = [tensor for tensor in graph.tensors if tensor.trainable]
    if plan.kernel != "fixed":
        return list(_shaped(trainable, np.frombuffer(blob, dtype="<f4").astype(np.float32)))
    count = exponent_count(graph)
    exponents = np.frombuffer(blob, dtype=np.int8, count=len(trainable)).tolist()
    for tensor, exponent in zip(trainable, exponents, strict=True):
        if abs(exponent) > EXPONENT_LIMIT:
            where = f"{tensor.role} of layer {tensor.layer!r}"
            raise ValueError(f"exponent {exponent} of the {where}; expected ±{EXPONENT_LIMIT}")
    integers = _shaped(trainable, np.frombuffer(blob, dtype="<i2", offset=count).astype(np.float32))
    return [np.ldexp(values, exponent) for values, exponent in zip(integers, exponents, strict=True)]


def to_fixed(values: np.ndarray, exponent: int) -> np.ndarray:
    """Return the integers that stand for `values` under an exponent, to nearest; what is beyond them is cut off."""
    import numpy as np

    scaled = np.ldexp(values.astype(np.float64), -exponent)
    return np.clip(np.rint(scaled), -LARGEST, LARGEST).astype("<i2")


def tight_exponent(values: np.ndarray) -> int:
    """Return the exponent for weights that do not change."""
    return max(-EXPONENT_LIMIT, _octave(values, 0.0) - 15)


def roomy_exponent(values: np.ndarray) -> int:
    """Return the exponent for weights that a node trains. Raises ValueError if there is none."""
    exponent = _octave(values, LEAST_RANGE) + HEADROOM - 15
    if exponent > EXPONENT_LIMIT:
        raise ValueError(f"a weight of {abs(values).max():g} is too large for fixed point; lower the learning rate")
    return exponent


def _octave(values: np.ndarray, least: float) -> int:
    """Return the smallest n with |value| <= 2^n for all values and for `least`."""
    largest = max(float(abs(values).max(initial=0.0)), least)
    if not math.isfinite(largest):
        raise ValueError("a weight is NaN or infinite; lower the learning rate")
    mantissa, exponent = math.frexp(largest)
    return exponent - 1 if mantissa == 0.5 else exponent


def _shaped(tensors: Sequence[Tensor], values: np.ndarray) -> Iterator[np.ndarray]:
    at = 0
    for tensor in tensors:
        yield values[at : at + tensor.size].reshape(tensor.shape)
        at += tensor.size
