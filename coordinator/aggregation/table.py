"""A round's updates side by side: what each node says of each coordinate that it holds."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from codegen.graph import Graph
from coordinator.aggregation import Contribution
from coordinator.aggregation.substructure import class_axes

BLOCK = 1 << 22  # values in memory at once: 16 MB of float32

Table = npt.NDArray[np.float32]


def tables(graph: Graph, contributions: Sequence[Contribution]) -> Iterator[tuple[int, slice, Table]]:
    """Yield the updates of all trainable parameters, a block of the last axis of a tensor at a time: the tensor's index
    in graph.tensors, the block, and [nodes, parameters of the block], NaN where a node has no say.

    It has one where its sub-model holds the parameter; in the output layer's column of a class, if it has that label.
    """
    if not contributions:
        return
    axes = class_axes(graph)
    trainable = [index for index, tensor in enumerate(graph.tensors) if tensor.trainable]
    for place, index in enumerate(trainable):
        shape = graph.tensors[index].shape
        width = max(1, BLOCK // (len(contributions) * math.prod(shape[:-1])))
        for start in range(0, shape[-1], width):
            block = slice(start, min(start + width, shape[-1]))
            values = np.full((len(contributions), *shape[:-1], block.stop - start), np.nan, np.float32)
            for row, each in zip(values, contributions, strict=True):
                _fill(row, each, index, each.delta[place], start)
                if index in axes:
                    known = np.array(each.label_counts) > 0
                    axis = axes[index]
                    known = known[block] if axis == len(shape) - 1 else known
                    np.moveaxis(row, axis, 0)[~known] = np.nan
            yield index, block, values.reshape(len(contributions), -1)


def _fill(row: Table, contribution: Contribution, index: int, delta: Table, start: int) -> None:
    """Put a node's update of a tensor where it belongs in a block that begins at `start` of the last axis."""
    *outer, last = contribution.sub_model.slices[index]
    inside = (last >= start) & (last < start + row.shape[-1])
    row[np.ix_(*outer, last[inside] - start)] = delta[..., inside]
