"""Sums over updates in the encodings in which they travel, by sums.c: numpy would first write each out."""

from __future__ import annotations

import ctypes
import platform
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from codegen.protocol import Q8_BLOCK
from coordinator.compiler import compiled

NODES = 8  # added at a time
# What every x86-64 can do is half of what most can; the bits are the same.
NATIVE = ("-march=native",) if platform.machine() in ("x86_64", "AMD64") else ()

Doubles = npt.NDArray[np.float64]


def add(
    sums: Doubles, plain: int, updates: Sequence[bytes], q8: Sequence[bool], weights: npt.NDArray[np.float64]
) -> bool:
    """Add weighted updates to `sums` in place, in their order, at most NODES; return whether all sums are finite.

    weights: [updates, 1 + classes], the first for elements before `plain`, then for those of each class: from `plain`
    on, element i is of class (i - plain) % classes. An update's elements have to be as many as the sums.
    """
    rows, classes = np.zeros((weights.shape[1], NODES)), weights.shape[1] - 1
    rows[:, : len(weights)] = weights.T
    if (rows == rows[0]).all():
        plain = len(sums)
    sizes = [ctypes.c_size_t(size) for size in (plain, len(sums), classes)]
    blobs, encodings = (ctypes.c_char_p * NODES)(*updates), (ctypes.c_bool * NODES)(*q8)
    return bool(library().sums_add(_at(sums), *sizes, blobs, encodings, _at(rows)))


def squares(update: bytes, q8: bool, count: int) -> float:
    """Return the sum of the squares of an update's elements; finite if and only if all of them are."""
    return float(library().sums_squares(update, ctypes.c_bool(q8), ctypes.c_size_t(count)))


def move(weights: npt.NDArray[np.float32], sums: Doubles, counts: Doubles) -> None:
    """Move weights in place by sums / counts, where a count is not 0. Counts may be one for all, or broadcast."""
    if counts.size > 1:
        counts = np.ascontiguousarray(np.broadcast_to(counts, weights.shape))
    each, size = ctypes.c_bool(counts.size > 1), ctypes.c_size_t(weights.size)
    library().sums_move(_at(weights), _at(sums), _at(counts), each, size)


@cache
def library() -> ctypes.CDLL:
    """Return sums.c, compiled. Raises CompilerError."""
    source = Path(__file__).with_name("sums.c")
    options = ("-O3", *NATIVE, "-shared", f"-DNODES={NODES}", f"-DQ8_BLOCK={Q8_BLOCK}", source)
    with tempfile.TemporaryDirectory(prefix="tierfed-") as folder:
        path = Path(folder) / "sums.so"
        compiled("the aggregation", options, path)
        made = ctypes.CDLL(str(path))
    made.sums_add.restype = ctypes.c_bool
    made.sums_move.restype = None
    made.sums_squares.restype = ctypes.c_double
    return made


def _at(array: npt.NDArray[Any]) -> ctypes.c_void_p:
    assert array.flags.c_contiguous
    return ctypes.c_void_p(array.ctypes.data)
