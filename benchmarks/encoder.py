"""How a node encodes its update, in this process: firmware/node/encoding.c as a shared library."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.images import FIRMWARE, TARGETS, compile_library
from codegen.protocol import Encoding
from codegen.protocol_header import protocol_header

if TYPE_CHECKING:
    import numpy as np

PIECE = 240  # bytes that are read at a time: as a chunk is
MODEL = """#include <stdint.h>
#define MODEL_FIXED 0
#define MODEL_KEEPS_ORIGIN 1
#define MODEL_PARAMETERS {count}UL
#define MODEL_WEIGHT_BYTES (4 * MODEL_PARAMETERS)
extern float model_weights[MODEL_PARAMETERS], model_origin[MODEL_PARAMETERS];
"""


class Encoder:
    """Encodes differences of `count` float32 weights as the node of such a model would, to the same bits."""

    def __init__(self, count: int, folder: Path) -> None:
        """Compile in `folder`, which is made. Raises ToolError."""
        files = {"model.h": MODEL.format(count=count), "protocol.h": protocol_header()}
        names = ("node/encoding.c", "node/weights.c", "link/crc.c", "engine/loss.c")
        sources = [*(FIRMWARE / name for name in names), TARGETS / "encoder.c"]
        self._library = ctypes.CDLL(str(compile_library(files, sources, folder)))
        self._library.encoding_begin.restype = ctypes.c_bool
        self._count = count

    def encode(self, weights: np.ndarray, origin: np.ndarray, encoding: Encoding, seed: int) -> bytes:
        """Return the update from `origin` to `weights`, float32 [count] each. ValueError if one is not finite."""
        for name, values in (("model_weights", weights), ("model_origin", origin)):
            place = (ctypes.c_char * (4 * self._count)).in_dll(self._library, name)
            ctypes.memmove(place, values.astype("<f4").tobytes(), 4 * self._count)
        size, crc = ctypes.c_uint32(), ctypes.c_uint32()
        kind = ctypes.c_uint8(encoding)
        if not self._library.encoding_begin(kind, ctypes.c_uint32(seed), ctypes.byref(size), ctypes.byref(crc)):
            raise ValueError("a difference is not finite")
        blob = ctypes.create_string_buffer(size.value)
        for at in range(0, size.value, PIECE):
            length = ctypes.c_uint8(min(PIECE, size.value - at))
            self._library.encoding_read(ctypes.c_uint32(at), length, ctypes.byref(blob, at))
        return blob.raw
