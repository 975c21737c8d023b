"""Updates as they come off the wire: what training changed, kept in the encoding in which it came."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property
from typing import overload

import numpy as np
import numpy.typing as npt

from codegen.graph import Graph
from codegen.planner import Plan
from codegen.protocol import Q8_BLOCK, Encoding, encoded_size
from codegen.weights import unpack, weight_bytes
from coordinator.aggregation.sums import squares

Floats = npt.NDArray[np.float32]
BLOCK = np.dtype([("scale", "<f4"), ("levels", "i1", (Q8_BLOCK,))])
LARGEST = 1e38  # what is less, added to a weight of up to twice that, is a finite float32


class UpdateError(ValueError):
    """An update that cannot be used; the message is the rest of a sentence that begins with the node's name."""


class Delta(Sequence[Floats]):
    """What training changed in each trainable tensor of a sub-model, in graph order: decoded when it is looked at.

    `blob` holds float32 or, if `q8`, blocks of a float32 scale and Q8_BLOCK int8, the last one shorter.
    """

    def __init__(self, graph: Graph, blob: bytes, q8: bool = False) -> None:
        """Take an update of the sub-model `graph`, of the right size; the values may be any."""
        self.graph, self.blob, self.q8 = graph, blob, q8

    @classmethod
    def of(cls, graph: Graph, tensors: Sequence[Floats]) -> Delta:
        """Return `tensors` as an update of the sub-model `graph`. Raises UpdateError if they have other shapes."""
        if isinstance(tensors, Delta) and tensors.graph.shapes == graph.shapes:
            return tensors
        if tuple(tensor.shape for tensor in tensors) != graph.shapes:
            raise UpdateError("sent an update that does not have the shapes of its sub-model")
        return cls(graph, b"".join(tensor.astype("<f4").tobytes() for tensor in tensors))

    def __len__(self) -> int:
        return len(self.graph.shapes)

    @overload
    def __getitem__(self, index: int) -> Floats: ...
    @overload
    def __getitem__(self, index: slice) -> list[Floats]: ...
    def __getitem__(self, index: int | slice) -> Floats | list[Floats]:
        if isinstance(index, slice):
            return [self[at] for at in range(*index.indices(len(self)))]
        sizes = [math.prod(shape) for shape in self.graph.shapes]
        index = range(len(sizes))[index]
        begin = sum(sizes[:index])
        return self._decoded(begin, begin + sizes[index]).reshape(self.graph.shapes[index])

    @property
    def flat(self) -> Floats:
        """All elements, one tensor after the other."""
        return self._decoded(0, self.graph.parameters)

    def take(self, places: npt.NDArray[np.intp]) -> Floats:
        """Return the elements at some places of `flat`."""
        if not self.q8:
            return np.frombuffer(self.blob, "<f4")[places]
        block, place = np.divmod(places, Q8_BLOCK)
        scales = np.frombuffer(self.blob, "<f4", len(self.blob) // 4)[block * (BLOCK.itemsize // 4)]
        levels = np.frombuffer(self.blob, np.int8)[block * BLOCK.itemsize + 4 + place]
        return np.asarray(levels * scales, np.float32)

    def _decoded(self, begin: int, end: int) -> Floats:
        if not self.q8:
            return np.frombuffer(self.blob, "<f4", end - begin, 4 * begin)
        first, last = begin // Q8_BLOCK, -(-end // Q8_BLOCK)
        blob = self.blob[first * BLOCK.itemsize : last * BLOCK.itemsize]
        blocks = np.frombuffer(blob.ljust((last - first) * BLOCK.itemsize, b"\0"), BLOCK)
        with np.errstate(over="ignore", invalid="ignore"):
            values: Floats = (blocks["levels"] * blocks["scale"][:, None]).reshape(-1)
        return values[begin - first * Q8_BLOCK : end - first * Q8_BLOCK]

    @cached_property
    def norm(self) -> float:
        """The Euclidean norm; not finite if an element is not."""
        return math.sqrt(squares(self.blob, self.q8, self.graph.parameters))

    def check(self) -> None:
        """Raise UpdateError unless it can be added to weights."""
        if self.norm < LARGEST:
            return
        broken, count = np.count_nonzero(~(np.abs(self.flat) < LARGEST)), self.graph.parameters
        if broken:
            raise UpdateError(f"sent {broken} values that are not finite, out of {count}; lower the learning_rate")


def decode(plan: Plan, encoding: Encoding, blob: bytes, sent: bytes) -> Delta:
    """Return what training changed in each trainable tensor of the plan's sub-model, in graph order; not yet checked.

    `sent` holds the round's weights as they went to the node. Raises UpdateError if `blob` has the wrong size or is no
    weights of this plan.
    """
    graph = plan.sub_model.graph
    expected = weight_bytes(plan) if encoding is Encoding.WEIGHTS else encoded_size(encoding, graph.parameters)
    if len(blob) != expected:
        raise UpdateError(f"sent {len(blob)} bytes of {encoding.name.lower()}; its sub-model takes {expected}")
    if encoding is not Encoding.WEIGHTS:
        if plan.kernel == "fixed":
            raise UpdateError(f"sent {encoding.name.lower()}, which make no sense from fixed point; expected weights")
        return Delta(graph, blob, encoding is Encoding.DELTA_Q8)
    try:
        after = unpack(plan, blob)
    except ValueError as error:
        raise UpdateError(f"sent weights that make no sense: {error}") from error
    with np.errstate(over="ignore", invalid="ignore"):
        return Delta.of(graph, [new - old for new, old in zip(after, unpack(plan, sent), strict=True)])
