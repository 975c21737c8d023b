"""Which training samples are whose: one deal, whoever then brings a node its share."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .data import Dataset, load_dataset
from .errors import DataError
from .federation import Federation
from .partition import kept_back, owned, partition

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Share:
    """Some samples: u8 [n, features...], their labels u16 [n], how many classes the data set has, and the images
    that it may rehearse: u8 [m, features...]."""

    x: Array
    y: Array
    classes: int
    proxy: Array = field(default_factory=lambda: np.zeros((0, 0), np.uint8))


def deal(federation: Federation, classes: int | None = None) -> dict[str, Share]:
    """Deal the training samples out; return each node's share by its name, in the order of the file.

    `classes` is what the model can tell apart (None: as many as the labels say). Raises DataError.
    """
    data, specs = federation.data, federation.nodes()
    dataset = load_dataset(federation.data_path, data.range, classes)
    free, _ = kept_back(len(dataset.y_train), data.validation, federation.seed)
    if data.split == "owner":
        if dataset.owner_train is None:
            raise DataError(
                f"{federation.data_path}: no array 'owner_train', which split = \"owner\" of [data] asks for"
            )
        dealt = owned(dataset.owner_train[free], len(specs), data.samples_per_node)
    else:
        dealt = partition(
            dataset.y_train[free], len(specs), data.samples_per_node, data.split, federation.seed,
            alpha=data.alpha, classes_per_node=data.classes_per_node,
        )  # fmt: skip
    return {
        spec.name: Share(dataset.x_train[free[indices]], dataset.y_train[free[indices]], dataset.classes)
        for spec, indices in zip(specs, dealt, strict=True)
    }


def validation_share(federation: Federation, dataset: Dataset) -> Share | None:
    """Return the labelled training samples that no node holds; None if there shall be none. Raises DataError."""
    if not federation.data.validation:
        return None
    _, indices = kept_back(len(dataset.y_train), federation.data.validation, federation.seed)
    return Share(dataset.x_train[indices], dataset.y_train[indices], dataset.classes)
