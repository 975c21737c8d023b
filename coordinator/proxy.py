"""The proxy set: unlabelled images, the same for all nodes and the host."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from .data import Array, Dataset, as_samples
from .errors import DataError
from .federation import Federation
from .npz import NpzError, read_npz

KEY, OTHER_KEY = "x_proxy", "x_train"
SEED_STREAM = 0x5058  # keeps these draws apart from every other use of the federation's seed


def proxy_set(federation: Federation, dataset: Dataset, taken: Sequence[Array]) -> Array:
    """Return the proxy images, u8 [images, features...]: of the file that [proxy] names, or training images of
    `dataset` that nobody has `taken` (indices). The same seed draws the same order, whatever is taken.

    Raises DataError if there are too few, or if they are not of the data set's shape.
    """
    wanted, shape = federation.proxy.images, dataset.x_train.shape[1:]
    if not wanted:
        return np.zeros((0, *shape), np.uint8)
    rng = np.random.default_rng([federation.seed, SEED_STREAM])
    path = federation.proxy_path
    if path is None:
        order = rng.permutation(len(dataset.x_train))
        left = order[~np.isin(order, np.concatenate(taken))]
        if len(left) < wanted:
            raise DataError(_too_few(federation, len(order), len(left)))
        return np.ascontiguousarray(dataset.x_train[left[:wanted]])
    images = _read(path, dataset.range)
    if images.shape[1:] != shape:
        raise DataError(f"{path}: images of shape {images.shape[1:]}; expected {shape}, as {federation.data_path} has")
    if (found := len(images)) < wanted:
        raise DataError(f"{path}: {found} images, but [proxy] images is {wanted}; set it to {found} or less")
    return np.ascontiguousarray(images[rng.permutation(len(images))[:wanted]])


def _too_few(federation: Federation, samples: int, left: int) -> str:
    wanted, nodes = federation.proxy.images, len(federation.nodes())
    each = federation.data.samples_per_node - -(-(wanted - left) // nodes)
    return (
        f"{federation.data_path}: the nodes leave {left} of its {samples} training images, but [proxy] images is "
        f"{wanted}; set images to {left} or less"
        + (f", or samples_per_node to {each} or less" if each > 0 else "")
        + ", or name other images as [proxy] path"
    )


def _read(path: Path, value_range: tuple[float, float]) -> Array:
    """Return the images in an .npz file: x_proxy, or else x_train, whose labels nobody looks at."""
    try:
        arrays = read_npz(path, (), (KEY, OTHER_KEY))
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}; expected an .npz of images ([proxy] path)") from error
    except NpzError as error:
        raise DataError(f"{path}: {error}; expected an .npz with an array {KEY}") from error
    for key in (KEY, OTHER_KEY):
        if key in arrays:
            return as_samples(f"{path}: {key}", arrays[key], value_range)
    raise DataError(f"{path}: no array {KEY!r}, nor {OTHER_KEY!r}; expected images under one of these names")
