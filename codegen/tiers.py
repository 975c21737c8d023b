"""Tiers, and the sub-models that they cut out of the global model: index lists, the same for nodes and aggregator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Literal

from codegen.graph import Graph, Layer

if TYPE_CHECKING:
    import numpy as np

Select = Literal["prefix", "rolling", "importance"]
Order = tuple["np.ndarray", ...]  # of each hidden layer: its channels, the most wanted first

DEFAULT_TIERS: Mapping[str, float] = {"expanded": 1.0, "base": 1 / 2, "compact": 1 / 4, "micro": 1 / 8}


class TierError(ValueError):
    """A tier that does not go with the model or with the other tiers, in one sentence."""


@dataclass(frozen=True)
class Tier:
    """A width: either a fraction of every hidden layer's channels, or those channels one by one."""

    name: str
    width: float | None = None
    channels: tuple[int, ...] | None = None


@dataclass(frozen=True)
class SubModel:
    """The global model cut to a tier. `slices` holds, per tensor, one index array per axis into the global tensor."""

    tier: Tier
    graph: Graph
    slices: tuple[tuple[np.ndarray, ...], ...]

    def cut(self, weights: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Return the sub-model's tensors, copied out of the global ones."""
        import numpy as np

        return [
            np.ascontiguousarray(weight[np.ix_(*axes)], dtype=np.float32)
            for weight, axes in zip(weights, self.slices, strict=True)
        ]


def tiers_from(described: Mapping[str, float | Sequence[int]]) -> tuple[Tier, ...]:
    """Return the tiers of a [tiers] table, names with widths or channel counts, which coordinator.federation checks."""
    return tuple(
        Tier(name, float(value)) if isinstance(value, int | float) else Tier(name, channels=tuple(value))
        for name, value in described.items()
    )


def hidden_layers(graph: Graph) -> tuple[Layer, ...]:
    """Return the layers whose channels a tier cuts: all that make channels, but the last, which makes the output."""
    return tuple(layer for layer in graph.layers if layer.kind in ("dense", "conv2d"))[:-1]


def channels(graph: Graph, tier: Tier) -> tuple[int, ...]:
    """Return how many channels of each hidden layer the tier keeps. Raises TierError."""
    hidden = hidden_layers(graph)
    if tier.channels is None:
        width = 1.0 if tier.width is None else tier.width
        return tuple(max(1, round(layer.out_shape[2] * width)) for layer in hidden)
    if len(tier.channels) != len(hidden):
        names = ", ".join(layer.name for layer in hidden)
        raise TierError(
            f"tier {tier.name!r} lists {len(tier.channels)} channel counts; "
            f"the model has {len(hidden)} hidden layers: {names}"
        )
    for layer, count in zip(hidden, tier.channels, strict=True):
        if not 1 <= count <= layer.out_shape[2]:
            raise TierError(
                f"tier {tier.name!r} keeps {count} channels of {layer.name!r}; expected 1 to {layer.out_shape[2]}"
            )
    return tier.channels


def nested(graph: Graph, tiers: Sequence[Tier]) -> tuple[Tier, ...]:
    """Return the tiers, widest first; raises TierError unless each is within the one before it in every layer."""
    counts = {tier.name: channels(graph, tier) for tier in tiers}
    if len(counts) < len(tiers):
        raise TierError(f"two tiers have the same name: {', '.join(tier.name for tier in tiers)}")
    ordered = sorted(tiers, key=lambda tier: counts[tier.name], reverse=True)
    for wider, narrower in pairwise(ordered):
        for layer, most, least in zip(hidden_layers(graph), counts[wider.name], counts[narrower.name], strict=True):
            if least > most:
                raise TierError(
                    f"tiers {wider.name!r} and {narrower.name!r} do not nest: {narrower.name!r} has {least} channels "
                    f"of {layer.name!r} and {wider.name!r} {most}; let one be the smaller in every layer"
                )
    return tuple(ordered)


def sub_model(graph: Graph, tier: Tier, order: Order | None = None) -> SubModel:
    """Return the sub-model of `tier`: of each hidden layer the first channels of `order` (as they are, if None)."""
    import numpy as np

    hidden = {layer.name: index for index, layer in enumerate(hidden_layers(graph))}
    counts = channels(graph, tier)
    kept = np.arange(graph.input_shape[2])  # channels of the activation that the next layer reads
    layers: list[Layer] = []
    slices: list[tuple[np.ndarray, ...]] = []
    for layer in graph.layers:
        reads = kept
        if layer.name in hidden:
            index = hidden[layer.name]
            kept = np.arange(layer.out_shape[2]) if order is None else order[index]
            kept = kept[: counts[index]]
        elif layer.kind in ("dense", "conv2d"):
            kept = np.arange(layer.out_shape[2])
        height, width, whole = layer.in_shape
        if layer.kind == "dense":  # after Flatten, row = pixel * channels + channel
            axes: tuple[np.ndarray, ...] = ((np.arange(height * width)[:, None] * whole + reads).ravel(), kept)
        else:
            kernel = tuple(np.arange(size) for size in (layer.kernel[1:] if layer.flat_kernel else layer.kernel))
            axes = (*kernel, reads, kept if layer.kind == "conv2d" else np.arange(1))
        if layer.weighted:
            slices.append(axes)
            if layer.bias:
                slices.append((kept,))
        layers.append(
            replace(
                layer,
                in_shape=(*layer.in_shape[:2], len(reads)),
                out_shape=(*layer.out_shape[:2], len(kept)),
            )
        )
    return SubModel(tier, replace(graph, layers=tuple(layers)), tuple(slices))


def channel_order(graph: Graph, select: Select, round: int, weights: Sequence[np.ndarray]) -> Order:
    """Return the order in which each hidden layer's channels are kept, for this round.

    prefix: as they are (HeteroFL); rolling: starting one further each round (FedRolex); importance: by the sum of the
    magnitudes of a channel's kernel. Channels that a frozen layer makes or reads stay as they are, because the boards
    hold the frozen weights for good.
    """
    import numpy as np

    kernels = {t.layer: w for t, w in zip(graph.tensors, weights, strict=True) if t.role == "kernel"}
    orders = []
    for layer in hidden_layers(graph):
        count = layer.out_shape[2]
        order = np.arange(count)
        if select == "rolling" and not _is_pinned(graph, layer):
            order = (order + round) % count
        elif select == "importance" and not _is_pinned(graph, layer):
            kernel = np.abs(kernels[layer.name].astype(np.float64)).reshape(-1, count)
            order = np.argsort(-kernel.sum(axis=0), kind="stable")
        orders.append(order)
    return tuple(orders)


def _is_pinned(graph: Graph, layer: Layer) -> bool:
    """Whether a frozen tensor has an axis of this layer's output channels."""
    at = graph.layers.index(layer)
    for reader in (layer, *graph.layers[at + 1 :]):
        if reader.weighted and not reader.trainable:
            return True
        if reader is not layer and reader.kind in ("dense", "conv2d"):
            break
    return False
