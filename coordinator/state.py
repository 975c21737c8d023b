"""All that a round begins with, and a checkpoint keeps."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

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
    own: Mapping[str, Sequence[tuple[int, ...]]] = field(default_factory=dict)  # of models that nodes have of their own


@dataclass(frozen=True)
class State:
    """The global model between two rounds, and what the rounds keep beside it."""

    weights: Weights
    targets: Targets | None = None  # of the proxy images, from the last ensemble
    average: Weights | None = None  # of the weights, over rounds
    server: tuple[Weights, ...] = ()  # the server optimiser's moments
    own: Mapping[str, Weights] = field(default_factory=dict)  # of the models that nodes have of their own, by name

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
        for name, tensors in self.own.items():
            yield from _named(_own(name), tensors)


def read_state(content: bytes, shapes: Shapes) -> State | None:
    """Return the state in a checkpoint file's content; None if it holds anything else, or of other shapes. What a
    checkpoint lacks beside the weights, as those of older runs do, is not there yet."""
    count = len(shapes.tensors)
    groups = {name: _names(name, count) for name in ("tensor", "average", *map(_server, range(SERVER_TENSORS)))}
    optional = [name for group, names in groups.items() if group != "tensor" for name in names]
    owned = {name: _names(_own(name), len(tensors)) for name, tensors in shapes.own.items()}
    needed = [*groups["tensor"], *(name for names in owned.values() for name in names)]
    own_size = sum(map(_size, shapes.own.values()))
    most = _size(shapes.tensors) * len(groups) + own_size + math.prod(shapes.targets) + HEADER_BYTES
    try:
        arrays = read_npz(io.BytesIO(content), needed, ["targets", *optional], most=most)
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
    own = {name: [arrays[tensor] for tensor in names] for name, names in owned.items()}
    if not all(_are_weights(tensors, shapes.own[name]) for name, tensors in own.items()):
        return None
    moments = [found[_server(moment)] for moment in range(SERVER_TENSORS)]
    kept = tuple(moment for moment in moments if moment)
    return State(found["tensor"], targets, found["average"] or None, kept, own)


def _size(shapes: Sequence[tuple[int, ...]]) -> int:
    """Return the most bytes that float32 tensors take in a file."""
    return sum(4 * math.prod(shape) + HEADER_BYTES for shape in shapes)


def _named(group: str, tensors: Weights) -> Iterator[tuple[str, Array]]:
    yield from zip(_names(group, len(tensors)), tensors, strict=True)


def _names(group: str, count: int) -> list[str]:
    return [f"{group}{index:03d}" for index in range(count)]


def _server(moment: int) -> str:
    return f"server{moment}_"


def _own(name: str) -> str:
    return f"own_{name}_"


def _are_weights(tensors: Weights, shapes: Sequence[tuple[int, ...]]) -> bool:
    return [tensor.shape for tensor in tensors] == [tuple(shape) for shape in shapes] and all(
        tensor.dtype == np.float32 for tensor in tensors
    )


def _are_targets(targets: Array, shape: tuple[int, int]) -> bool:
    return targets.dtype == np.uint8 and targets.shape == shape and bool((targets.sum(axis=1) == TARGET_SUM).all())
