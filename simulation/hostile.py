"""A node that lies: what it sends is as its firmware says, but for what it forges, and every frame is whole."""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from codegen.protocol import Q8_BLOCK, Encoding, FrameType, Hello, Offer
from coordinator.link.frames import Decoder, Frame, encode

Forge = Callable[[float], float]  # the scale of a block of an update
FLIPPED = "flipped update"  # which only a fleet of four or more can tell
SCALES: dict[str, Forge] = {
    "NaN update": lambda _: math.nan,
    "infinite update": lambda _: math.inf,
    "huge update": lambda _: 1e30,
    FLIPPED: lambda scale: -scale,
}
COUNTS = ("lying sample count",)
IDENTITIES: dict[str, dict[str, Any]] = {  # fields of HELLO
    "another protocol": {"protocol": 1},
    "another model": {"model": 1},
    "another firmware": {"firmware": 1},
}
TWIN = "two nodes with one id"


class Liar:
    """Forges the frames that a node sends: updates of delta_q8 and OFFERs from round `since` on, or every HELLO."""

    def __init__(
        self, kind: str, since: int, read: Callable[[int], bytes], uid: bytes, on_lie: Callable[[], None]
    ) -> None:
        """`read` returns so many bytes of the node's true update; `uid` is the id of another node."""
        self.kind = kind
        self._since = since
        self._read = read
        self._uid = uid
        self._on_lie = on_lie
        self._decoder = Decoder()
        self._forged = b""
        self._chunk = 0  # bytes

    def __call__(self, data: bytes) -> bytes:
        """Return what it says instead."""
        return b"".join(encode(*self._frame(frame)) for frame in self._decoder.feed(data))

    def _frame(self, frame: Frame) -> Frame:
        if frame.type == FrameType.HELLO and (self.kind in IDENTITIES or self.kind == TWIN):
            hello = replace(Hello.decode(frame.payload), **IDENTITIES.get(self.kind, {}))
            self._on_lie()
            return frame._replace(payload=(replace(hello, uid=self._uid) if self.kind == TWIN else hello).encode())
        if frame.type == FrameType.OFFER:
            return frame._replace(payload=self._offer(Offer.decode(frame.payload)).encode())
        if frame.type == FrameType.DATA and self._forged:
            if frame.chunk == 0:
                self._chunk = len(frame.payload)
            start = frame.chunk * self._chunk
            return frame._replace(payload=self._forged[start : start + len(frame.payload)])
        return frame

    def _offer(self, offer: Offer) -> Offer:
        self._forged = b""
        if offer.round < self._since or self.kind not in (*SCALES, *COUNTS):
            return offer
        self._on_lie()
        if self.kind in COUNTS:
            return replace(offer, samples=1000 * offer.samples)
        assert offer.encoding == Encoding.DELTA_Q8
        self._forged = forged_q8(self._read(offer.size), SCALES[self.kind])
        return replace(offer, crc=zlib.crc32(self._forged))


def forged_q8(blob: bytes, forge: Forge) -> bytes:
    """Return a delta_q8 update with other scales."""
    out = bytearray(blob)
    for at in range(0, len(out), 4 + Q8_BLOCK):
        struct.pack_into("<f", out, at, forge(struct.unpack_from("<f", out, at)[0]))
    return bytes(out)
