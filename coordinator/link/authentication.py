"""Who may join: a key that a host and a node share, what each proves by it, and what binds transfers to their session.

Pure functions. docs/protocol.md (Keys) has the same in a table, docs/security.md what it is worth.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace

from codegen.protocol import MAC_BYTES, Kernel, Offer, Setup, TransferKind

KEY_BYTES = 32
NO_MAC = bytes(MAC_BYTES)  # where there is no key
LOGIT_ONE, LOGIT_MAX = 256, 32767  # FIXED_LOGIT_ONE of firmware/engine/fixed.h, INT16_MAX
F32 = struct.Struct("<f")

equal = hmac.compare_digest  # in a time that does not depend on where two macs differ


def node_mac(key: bytes, host_nonce: bytes, node_nonce: bytes, hello: bytes) -> bytes:
    """Return what PROOF holds. hello: the payload of HELLO."""
    return _keyed(key, MAC_BYTES, b"node", host_nonce, node_nonce, hello)


def host_mac(key: bytes, host_nonce: bytes, node_nonce: bytes) -> bytes:
    """Return what AUTHENTICATE holds."""
    return _keyed(key, MAC_BYTES, b"host", host_nonce, node_nonce)


def session_key(key: bytes, host_nonce: bytes, node_nonce: bytes) -> bytes:
    """Return the key of what both send from now on: 32 bytes."""
    return _keyed(key, KEY_BYTES, b"sess", host_nonce, node_nonce)


@dataclass(frozen=True)
class Terms:
    """What host and node must mean alike for a transfer of a round to count: its macs cover it."""

    setup: bytes = b""  # the payload of SETUP
    adjustments: bytes = b""  # one a class, as the node keeps them
    labels: bytes = b""  # u16 a class; none of a node whose samples are streamed
    trained: bytes = b""  # u32, CRC-32 of the weights that the update was trained from

    @classmethod
    def of(cls, setup: Setup, adjustment: Sequence[float], kernel: int, labels: Sequence[int], trained: int) -> Terms:
        """Return the terms of a round. adjustment: [classes]; labels: samples of each class, as the node says; trained:
        the CRC-32."""
        counts = struct.pack(f"<{len(labels)}H", *labels)
        return cls(setup.encode(), kept(adjustment, kernel), counts, struct.pack("<I", trained))


def down_mac(session: bytes | None, kind: TransferKind, round: int, terms: Terms, blob: bytes) -> bytes:
    """Return what COMMIT holds after `blob`. session: the session's key, None without one."""
    if session is None:
        return NO_MAC
    begin = struct.pack("<BHI", kind, round, len(blob))
    return _keyed(session, MAC_BYTES, b"down", begin, terms.setup, terms.adjustments, blob)


def up_mac(session: bytes, offer: Offer, terms: Terms, blob: bytes) -> bytes:
    """Return what `offer` must hold in front of `blob`."""
    said = replace(offer, mac=NO_MAC).encode()[:-MAC_BYTES]
    return _keyed(session, MAC_BYTES, b"up  ", terms.setup, terms.adjustments, terms.trained, said, terms.labels, blob)


def is_from_node(session: bytes | None, offer: Offer, terms: Terms, blob: bytes) -> bool:
    """Whether offer and update are what the other end of this session sent; without a key nobody can tell."""
    return session is None or equal(offer.mac, up_mac(session, offer, terms, blob))


def kept(adjustment: Sequence[float], kernel: int) -> bytes:
    """Return a logit adjustment as a node of this Kernel keeps it: f32 or i16 a class."""
    if kernel != Kernel.FIXED:
        return struct.pack(f"<{len(adjustment)}f", *adjustment)
    return struct.pack(f"<{len(adjustment)}h", *map(_logit, adjustment))


def _logit(value: float) -> int:
    """Return what `training_logit_of` of firmware/node/training.c makes of a float32 in fixed point."""
    scaled = _f32(value) * LOGIT_ONE  # exact
    if abs(scaled) >= LOGIT_MAX:
        return LOGIT_MAX if scaled > 0 else -LOGIT_MAX
    return int(_f32(scaled + (-0.5 if scaled < 0 else 0.5)))


def _f32(value: float) -> float:
    return float(F32.unpack(F32.pack(value))[0])


def _keyed(key: bytes, size: int, *parts: bytes) -> bytes:
    return hashlib.blake2s(b"".join(parts), digest_size=size, key=key).digest()
