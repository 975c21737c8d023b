"""IDX files, the format of MNIST and its kin: a magic number, the sizes, then the values, big-endian; gzip or not."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from .errors import DataError

Array = np.ndarray[Any, np.dtype[Any]]

DTYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
FILES = {
    "x_train": "train-images-idx3-ubyte",
    "y_train": "train-labels-idx1-ubyte",
    "x_test": "t10k-images-idx3-ubyte",
    "y_test": "t10k-labels-idx1-ubyte",
}
HEADER_MAX = 4 + 4 * 255  # bytes
MAX_BYTES = 1 << 32  # after gunzip: a small file must not fill the memory


def read_idx_directory(path: Path) -> dict[str, Array]:
    """Return the four arrays of an MNIST-like directory; gzipped or not, -idx3 or .idx3."""
    return {key: read_idx(_find(path, name)) for key, name in FILES.items()}


def _find(path: Path, name: str) -> Path:
    dotted = name.replace("-idx", ".idx")  # as some archives unpack them
    candidates = [path / (stem + suffix) for stem in (name, dotted) for suffix in ("", ".gz")]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    raise DataError(f"{path}: no {name} or {name}.gz; expected {', '.join(FILES.values())}")


def read_idx(path: Path) -> Array:
    """Return the array of one IDX file; raises DataError if it is damaged."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            head = file.read(HEADER_MAX)
            size = _size(head, str(path))
            content = head + file.read(max(0, size + 1 - len(head)))  # one byte more shows that there is more
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: {getattr(error, 'strerror', None) or error}; expected an IDX file") from error
    return parse_idx(content, str(path))


def parse_idx(content: bytes, path: str) -> Array:
    """Return the array that an IDX file's `content` describes; `path` is for naming it in a DataError."""
    shape, dtype, start = _header(content, path)
    expected = start + math.prod(shape) * dtype.itemsize
    if len(content) != expected:
        found = str(len(content)) if len(content) < expected else "more"
        raise DataError(f"{path}: {found} bytes; its header says {_sizes(shape)} values, which makes {expected}")
    try:
        return np.frombuffer(content, dtype, offset=start).reshape(shape).astype(dtype.newbyteorder("="))
    except ValueError as error:  # more dimensions, or larger ones around a 0, than an array can have
        raise DataError(f"{path}: {error}; expected images or labels") from error


def _header(content: bytes, path: str) -> tuple[tuple[int, ...], np.dtype[Any], int]:
    """Return what an IDX file begins with: shape, type, and where the values begin. Raises DataError."""
    if len(content) < 4:
        raise DataError(f"{path}: {len(content)} bytes; expected an IDX file")
    zero, kind, dimensions = struct.unpack(">HBB", content[:4])
    if zero != 0 or kind not in DTYPES or dimensions == 0:
        raise DataError(f"{path}: begins with {content[:4].hex(' ')}; expected the magic number of an IDX file")
    start = 4 + 4 * dimensions
    if len(content) < start:
        raise DataError(f"{path}: ends within its header")
    return struct.unpack(f">{dimensions}I", content[4:start]), np.dtype(DTYPES[kind]), start


def _size(content: bytes, path: str) -> int:
    """Return how many bytes the file has that begins so. Raises DataError if they are too many to read."""
    shape, dtype, start = _header(content, path)
    size = start + math.prod(shape) * dtype.itemsize
    if size > MAX_BYTES:
        raise DataError(f"{path}: its header says {_sizes(shape)} values; expected at most {MAX_BYTES} bytes")
    return size


def _sizes(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape))[:200]
