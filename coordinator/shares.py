"""Which training samples are whose: one deal, whoever then brings a node its share."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .data import Dataset, load_dataset
from .errors import DataError
from .federation import Federation
from .partition import kept_back, owned, partition
from .proxy import proxy_set

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Share:
    """Some samples: u8 [n, features...], their labels u16 [n], how many classes the data set has, and the images that a
    node may rehearse beside them: u8 [m, features...]."""

    x: Array
    y: Array
    classes: int
    proxy: Array = field(default_factory=lambda: np.zeros((0, 0), np.uint8))


def deal(federation: Federation, classes: int | None = None) -> dict[str, Share]:
    """Deal the training samples out; return each node's share by its name, in the order of the file.

    `classes` is what the model can tell apart (None: as many as the labels say). Raises DataError.
    """
    dataset = load_dataset(federation.data_path, federation.data.range, classes)
    proxy = proxy_images(federation, dataset)
    return {
        spec.name: Share(dataset.x_train[indices], dataset.y_train[indices], dataset.classes, proxy)
        for spec, indices in zip(federation.nodes(), dealt_indices(federation, dataset), strict=True)
    }


def proxy_images(federation: Federation, dataset: Dataset) -> Array:
    """Return the proxy set, u8 [images, features...]. Raises DataError."""
    _, kept = kept_back(len(dataset.y_train), federation.data.validation, federation.seed)
    return proxy_set(federation, dataset, [kept, *dealt_indices(federation, dataset)])


def dealt_indices(federation: Federation, dataset: Dataset) -> list[Array]:
    """Return the indices of each node's training samples, in the order of the file. Raises DataError."""
    data, nodes = federation.data, len(federation.nodes())
    free, _ = kept_back(len(dataset.y_train), data.validation, federation.seed)
    if data.split == "owner":
        if dataset.owner_train is None:
            raise DataError(
                f"{federation.data_path}: no array 'owner_train', which split = \"owner\" of [data] asks for"
            )
        dealt = owned(dataset.owner_train[free], nodes, data.samples_per_node)
    else:
        dealt = partition(
            dataset.y_train[free], nodes, data.samples_per_node, data.split, federation.seed,
            alpha=data.alpha, classes_per_node=data.classes_per_node,
        )  # fmt: skip
    return [free[indices] for indices in dealt]


def validation_share(federation: Federation, dataset: Dataset) -> Share | None:
    """Return the labelled training samples that no node holds; None if there shall be none. Raises DataError."""
    if not federation.data.validation:
        return None
    _, indices = kept_back(len(dataset.y_train), federation.data.validation, federation.seed)
    return Share(dataset.x_train[indices], dataset.y_train[indices], dataset.classes)
