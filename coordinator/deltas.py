"""Updates as they come off the wire, decoded into what the aggregator takes: deltas in float32."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from codegen.planner import Plan
from codegen.protocol import Q8_BLOCK, Encoding, encoded_size
from codegen.weights import unpack, weight_bytes

Flat = npt.NDArray[np.float32]


class UpdateError(ValueError):
    """An update that cannot be used; the message is the rest of a sentence that begins with the node's name."""


def decode(plan: Plan, encoding: Encoding, blob: bytes, sent: bytes) -> list[npt.NDArray[np.float32]]:
    """Return what training changed in each trainable tensor of the plan's sub-model, in graph order.

    `sent` holds the round's weights as they went to the node. Raises UpdateError if `blob` has the wrong size or is no
    weights of this plan, a value is not finite, or the weights after training would not be.
    """
    count = plan.sub_model.graph.parameters
    expected = weight_bytes(plan) if encoding is Encoding.WEIGHTS else encoded_size(encoding, count)
    if len(blob) != expected:
        raise UpdateError(f"sent {len(blob)} bytes of {encoding.name.lower()}; its sub-model takes {expected}")
    before = unpack(plan, sent)
    with np.errstate(over="ignore", invalid="ignore"):
        if encoding is Encoding.WEIGHTS:
            delta = [after - old for after, old in zip(_weights(plan, blob), before, strict=True)]
        else:
            flat = np.frombuffer(blob, "<f4") if encoding is Encoding.DELTA_F32 else _decode_q8(blob, count)
            delta = _weights(plan, flat.astype("<f4").tobytes())
        broken = sum(
            np.count_nonzero(~(np.isfinite(change) & np.isfinite(old + change)))
            for old, change in zip(before, delta, strict=True)
        )
    if broken:
        raise UpdateError(f"sent {broken} values that are not finite, out of {count}")
    return delta


def _weights(plan: Plan, blob: bytes) -> list[npt.NDArray[np.float32]]:
    try:
        return unpack(plan, blob)
    except ValueError as error:
        raise UpdateError(f"sent weights that make no sense: {error}") from error


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
