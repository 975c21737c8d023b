"""Samples that the host streams: what travels, in the order in which a node with the same samples in flash trains."""

from __future__ import annotations

import struct

from codegen.protocol import NO_LABEL
from coordinator.shares import Share

MASK = 0xFFFFFFFF
HEAD = struct.Struct("<IH")  # position, label


def hash32(x: int) -> int:
    """Return what firmware/node/hash.h makes of a u32."""
    x ^= x >> 16
    x = x * 0x7FEB352D & MASK
    x ^= x >> 15
    x = x * 0x846CA68B & MASK
    return x ^ x >> 16


def training_order(seed: int, epoch: int, position: int, count: int) -> int:
    """Return which of `count` samples comes at `position` of an epoch, as firmware/node/training.h has it."""
    half = ((count - 1).bit_length() + 1) // 2
    mask = (1 << half) - 1
    keys = [hash32((hash32(seed) + 4 * epoch + step) & MASK) for step in range(4)]
    while True:
        left, right = position >> half, position & mask
        for key in keys:
            left, right = right, left ^ hash32(right ^ key) & mask
        position = left << half | right
        if position < count:
            return position


def epoch_length(share: Share, rehearsals: int) -> int:
    """Return how many turns an epoch has: the samples, and the proxy images as often as they are rehearsed."""
    return len(share.y) + rehearsals * len(share.proxy)


def sample(share: Share, seed: int, position: int, rehearsals: int = 0) -> bytes:
    """Return the sample at `position`, counted over all epochs of a round of this seed, as it travels."""
    own, length = len(share.y), epoch_length(share, rehearsals)
    epoch, at = divmod(position, length)
    turn = training_order(seed, epoch, at, length)
    if turn < own:
        return HEAD.pack(position, int(share.y[turn])) + bytes(share.x[turn].tobytes())
    return HEAD.pack(position, NO_LABEL) + bytes(share.proxy[(turn - own) % len(share.proxy)].tobytes())
