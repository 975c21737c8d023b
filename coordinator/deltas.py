"""Updates as they come off the wire, decoded into what the aggregator takes: deltas in float32."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from codegen.protocol import Q8_BLOCK, Encoding, encoded_size

Flat = npt.NDArray[np.float32]


class UpdateError(ValueError):
    """An update that cannot be used; the message is the rest of a sentence that begins with the node's name."""


def decode(encoding: Encoding, blob: bytes, sent: bytes) -> Flat:
    """Return the delta [parameters], in wire order.

    `sent` holds the round's weights as they went to the node (float32, little-endian). Raises UpdateError if the size
    is wrong, a value is not finite, or the weights after training would not be.
    """
    before = np.frombuffer(sent, "<f4").astype(np.float32, copy=False)
    expected = encoded_size(encoding, before.size)
    if len(blob) != expected:
        raise UpdateError(f"sent {len(blob)} bytes of {encoding.name.lower()}; its sub-model takes {expected}")
    with np.errstate(over="ignore", invalid="ignore"):
        if encoding is Encoding.WEIGHTS:
            delta = np.frombuffer(blob, "<f4") - before
        elif encoding is Encoding.DELTA_F32:
            delta = np.frombuffer(blob, "<f4").astype(np.float32)
        else:
            delta = _decode_q8(blob, before.size)
        finite = np.isfinite(delta) & np.isfinite(before + delta)
    if not finite.all():
        raise UpdateError(f"sent {np.count_nonzero(~finite)} values that are not finite, out of {before.size}")
    return delta


def _decode_q8(blob: bytes, count: int) -> Flat:
    """Blocks of a float32 scale and Q8_BLOCK int8, the last one shorter."""
    whole, rest = divmod(count, Q8_BLOCK)
    delta = np.empty(count, np.float32)
    block = np.dtype([("scale", "<f4"), ("levels", "i1", (Q8_BLOCK,))])
    blocks = np.frombuffer(blob, block, whole)
    delta[: whole * Q8_BLOCK] = (blocks["levels"] * blocks["scale"][:, None]).reshape(-1)
    if rest:
        tail = blob[whole * block.itemsize :]
        delta[whole * Q8_BLOCK :] = np.frombuffer(tail, "i1", offset=4) * np.frombuffer(tail, "<f4", 1)
    return delta
