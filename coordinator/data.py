"""Data sets and the shards that nodes hold.

Samples are 8-bit from the file to the board: a data set of floats is quantised by the federation file's `range`, and
the engine turns 0…255 back into that range.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .errors import DataError, naming
from .idx import read_idx_directory
from .npz import NpzError, read_npz

KEYS = ("x_train", "y_train", "x_test", "y_test")
OWNER = "owner_train"  # optional: which node, counted from 0, each training sample belongs to
MAX_CLASSES = 65_536  # labels are u16 on the board
SHARD_HEADER = struct.Struct("<4sIIII")  # magic, samples, proxy images, features, classes
SHARD_MAGIC = b"TFS2"

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Dataset:
    """Images u8 [n, features...] and labels u16 [n], for training and for test."""

    x_train: Array
    y_train: Array
    x_test: Array
    y_test: Array
    classes: int
    range: tuple[float, float]  # what 0 and 255 mean
    owner_train: Array | None = None  # the number of the node that each training sample belongs to, if it is known

    @property
    def features(self) -> int:
        """Values of one sample."""
        return int(np.prod(self.x_train.shape[1:]))

    def decode(self, x: Array) -> Array:
        """Return u8 samples as the float32 values that the engine computes from them."""
        low, high = self.range
        return x.astype(np.float32) * np.float32((high - low) / 255) + np.float32(low)


def load_dataset(path: Path, value_range: tuple[float, float] = (0.0, 1.0), classes: int | None = None) -> Dataset:
    """Return the data set in an .npz file or a directory of IDX files.

    `classes` is what the model can tell apart (None: as many as the labels say). Raises DataError, which says what is
    wrong with which array.
    """
    if path.is_dir():
        arrays = read_idx_directory(path)
    elif path.suffix == ".npz":
        arrays = _read_npz(path)
    else:
        raise DataError(f"{path}: expected an .npz file or a directory of IDX files ({', '.join(KEYS)})")
    x_train, x_test = (as_samples(f"{path}: {key}", arrays[key], value_range) for key in ("x_train", "x_test"))
    if x_train.shape[1:] != x_test.shape[1:]:
        raise DataError(
            f"{path}: x_train holds samples of {_shape(x_train)}, x_test of {_shape(x_test)}; expected one shape"
        )
    largest = max(int(arrays[key].max()) if _is_labels(arrays[key]) else 0 for key in ("y_train", "y_test"))
    known = classes or largest + 1
    y_train, y_test = (
        _labels(f"{path}: {key}", arrays[key], len(x), known) for key, x in (("y_train", x_train), ("y_test", x_test))
    )
    owner = arrays.get(OWNER)
    if owner is not None:
        owner = _labels(f"{path}: {OWNER}", owner, len(x_train), MAX_CLASSES)
    return Dataset(x_train, y_train, x_test, y_test, known, value_range, owner)


def _read_npz(path: Path) -> dict[str, Array]:
    try:
        return read_npz(path, KEYS, (OWNER,))
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}; expected a data set") from error
    except NpzError as error:
        raise DataError(f"{path}: {error}; expected an .npz of plain arrays {', '.join(KEYS)}") from error


def _shape(x: Array) -> str:
    return "×".join(map(str, x.shape[1:]))


def as_samples(where: str, x: Array, value_range: tuple[float, float]) -> Array:
    """Return x as u8; raises DataError if it is no array of finite numbers within the range."""
    if x.ndim < 2 or not len(x) or not np.prod(x.shape[1:]):
        raise DataError(f"{where} has shape {x.shape}; expected samples × features, none of them empty")
    if x.dtype == np.uint8:
        return np.ascontiguousarray(x)
    if x.dtype.kind in "iu":
        if x.min() < 0 or x.max() > 255:
            raise DataError(f"{where} holds whole numbers from {x.min()} to {x.max()}; expected 0 to 255")
        return x.astype(np.uint8)
    if x.dtype.kind != "f":
        raise DataError(f"{where} holds {x.dtype}; expected numbers")
    low, high = value_range
    if not np.isfinite(x).all():
        first = int(np.argwhere(~np.isfinite(x))[0, 0])
        raise DataError(f"{where} has a NaN or infinity in sample {first}; expected finite numbers")
    smallest, largest = float(x.min()), float(x.max())
    if smallest < low or largest > high:
        raise DataError(f"{where} goes from {smallest:g} to {largest:g}, outside range = [{low:g}, {high:g}] of [data]")
    return np.rint((x.astype(np.float64) - low) * (255 / (high - low))).astype(np.uint8)


def _is_labels(y: Array) -> bool:
    return y.dtype.kind in "iu" and y.ndim == 1 and len(y) > 0


def _labels(where: str, y: Array, samples: int, classes: int) -> Array:
    """Return y as u16; raises DataError if it is not one class number a sample."""
    if not _is_labels(y):
        raise DataError(f"{where} has shape {y.shape} of {y.dtype}; expected one whole number a sample")
    if len(y) != samples:
        raise DataError(f"{where} has {len(y)} labels for {samples} samples")
    bad = np.flatnonzero((y < 0) | (y >= min(classes, MAX_CLASSES)))
    if len(bad):
        raise DataError(
            f"{where} has label {y[bad[0]]} at sample {bad[0]}; expected 0 to {min(classes, MAX_CLASSES) - 1}"
        )
    return y.astype(np.uint16)


def write_shard(path: Path, x: Array, y: Array, classes: int, proxy: Array | None = None) -> None:
    """Write a node's samples, u8 [n, features...] with labels u16 [n], and behind them the images that it rehearses, u8
    [m, features...], as the native port maps them.

    A shard that is there already with the same bytes is left alone.
    """
    features = int(np.prod(x.shape[1:]))
    header = SHARD_HEADER.pack(SHARD_MAGIC, len(x), 0 if proxy is None else len(proxy), features, classes)
    images = b"".join(part.astype(np.uint8, copy=False).tobytes() for part in (x, proxy) if part is not None)
    content = header + images + y.astype("<u2").tobytes()
    if path.exists() and path.read_bytes() == content:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    with naming(path):
        temporary.write_bytes(content)
    temporary.replace(path)
