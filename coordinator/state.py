"""All that a round begins with, and a checkpoint keeps."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from coordinator.aggregation import Weights
from coordinator.npz import NpzError, read_npz

Targets = npt.NDArray[np.uint8]  # [proxy, classes], each row's sum is TARGET_SUM
Array = npt.NDArray[np.float32] | Targets

TARGET_SUM = 255
SERVER_TENSORS = 2  # models' worth that a server optimiser may keep: moments
HEADER_BYTES = 1024  # more than numpy puts before a tensor


@dataclass(frozen=True)
class Shapes:
    """What the states of a run look like."""

    tensors: Sequence[tuple[int, ...]]  # of the global model, in graph.tensors order
    targets: tuple[int, int] = (0, 0)  # proxy images × classes


@dataclass(frozen=True)
class State:
    """The global model between two rounds, and what the rounds keep beside it."""

    weights: Weights
    targets: Targets | None = None  # of the proxy images, from the last ensemble
    average: Weights | None = None  # of the weights, over rounds
    server: tuple[Weights, ...] = ()  # the server optimiser's moments

    @property
    def result(self) -> Weights:
        """What is evaluated, exported and hashed."""
        return self.weights if self.average is None else self.average

    def content(self) -> bytes:
        """Return it as the .npz file that `read_state` reads."""
        buffer = io.BytesIO()
        np.savez(buffer, **dict(self._arrays()))  # type: ignore[arg-type]
        return buffer.getvalue()

    def _arrays(self) -> Iterator[tuple[str, Array]]:
        yield from _named("tensor", self.weights)
        if self.targets is not None:
            yield "targets", self.targets
        yield from _named("average", self.average or [])
        for moment, tensors in enumerate(self.server):
            yield from _named(_server(moment), tensors)


def read_state(content: bytes, shapes: Shapes) -> State | None:
    """Return the state in a checkpoint file's content; None if it holds anything else, or of other shapes. What a
    checkpoint lacks beside the weights, as those of older runs do, is not there yet."""
    count = len(shapes.tensors)
    groups = {name: _names(name, count) for name in ("tensor", "average", *map(_server, range(SERVER_TENSORS)))}
    optional = [name for group, names in groups.items() if group != "tensor" for name in names]
    model = sum(4 * math.prod(shape) + HEADER_BYTES for shape in shapes.tensors)
    most = model * len(groups) + math.prod(shapes.targets) + HEADER_BYTES
    try:
        arrays = read_npz(io.BytesIO(content), groups["tensor"], ["targets", *optional], most=most)
    except NpzError:
        return None
    targets = arrays.pop("targets", None)
    if targets is not None and not _are_targets(targets, shapes.targets):
        return None
    found = {}
    for group, names in groups.items():
        tensors = [arrays[name] for name in names if name in arrays]
        if tensors and not _are_weights(tensors, shapes.tensors):
            return None
        found[group] = tensors
    moments = [found[_server(moment)] for moment in range(SERVER_TENSORS)]
    return State(found["tensor"], targets, found["average"] or None, tuple(moment for moment in moments if moment))


def _named(group: str, tensors: Weights) -> Iterator[tuple[str, Array]]:
    yield from zip(_names(group, len(tensors)), tensors, strict=True)


def _names(group: str, count: int) -> list[str]:
    return [f"{group}{index:03d}" for index in range(count)]


def _server(moment: int) -> str:
    return f"server{moment}_"


def _are_weights(tensors: Weights, shapes: Sequence[tuple[int, ...]]) -> bool:
    return [tensor.shape for tensor in tensors] == [tuple(shape) for shape in shapes] and all(
        tensor.dtype == np.float32 for tensor in tensors
    )


def _are_targets(targets: Array, shape: tuple[int, int]) -> bool:
    return targets.dtype == np.uint8 and targets.shape == shape and bool((targets.sum(axis=1) == TARGET_SUM).all())
