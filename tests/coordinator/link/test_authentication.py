"""What the macs cover, byte by byte, against a layout written out by hand; what each changes when it changes."""

from __future__ import annotations

import hashlib
import struct
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from codegen.protocol import Encoding, Kernel, Offer, Setup, TransferKind
from coordinator.link.authentication import Terms, down_mac, host_mac, kept, node_mac, session_key, up_mac

KEY, HOST, NODE = bytes(range(32)), bytes(range(16)), bytes(range(100, 116))
SETUP = Setup(7, 0xDEADBEEF, 0.25, 0.5, 3, 8, Encoding.DELTA_Q8, 1, 2, 1.5, 1)
OFFER = Offer(7, Encoding.DELTA_Q8, 5, 0x01020304, 60, 0.75, 9)
TERMS = Terms.of(SETUP, [0.5, -0.5], Kernel.F32, [40, 20], 0xCAFE)


def keyed(key: bytes, size: int, text: bytes) -> bytes:
    return hashlib.blake2s(text, key=key, digest_size=size).digest()


def test_what_is_hashed() -> None:
    assert node_mac(KEY, HOST, NODE, b"hello") == keyed(KEY, 16, b"node" + HOST + NODE + b"hello")
    assert host_mac(KEY, HOST, NODE) == keyed(KEY, 16, b"host" + HOST + NODE)
    assert session_key(KEY, HOST, NODE) == keyed(KEY, 32, b"sess" + HOST + NODE)
    terms = struct.pack("<HIffBBBBBfB", 7, 0xDEADBEEF, 0.25, 0.5, 3, 8, 2, 1, 2, 1.5, 1) + struct.pack("<ff", 0.5, -0.5)
    begin = struct.pack("<BHI", 1, 7, 4)
    assert down_mac(KEY, TransferKind.WEIGHTS, 7, TERMS, b"blob") == keyed(KEY, 16, b"down" + begin + terms + b"blob")
    offer = struct.pack("<HBIIIfI", 7, 2, 5, 0x01020304, 60, 0.75, 9)
    whole = b"up  " + terms + struct.pack("<I", 0xCAFE) + offer + struct.pack("<HH", 40, 20) + b"bytes"
    assert up_mac(KEY, OFFER, TERMS, b"bytes") == keyed(KEY, 16, whole)
    assert up_mac(KEY, replace(OFFER, mac=bytes(range(16))), TERMS, b"bytes") == keyed(KEY, 16, whole)


ORDERS: list[dict[str, Any]] = [
    {"round": 8}, {"seed": 1}, {"learning_rate": 0.5}, {"momentum": 0.0}, {"epochs": 2}, {"batch": 4}, {"encoding": 0},
    {"nested": 0}, {"rehearsals": 1}, {"max_norm": 1.0}, {"shift": 2},
]  # fmt: skip
CHANGES = [
    *(Terms.of(replace(SETUP, **change), [0.5, -0.5], Kernel.F32, [40, 20], 0xCAFE) for change in ORDERS),
    Terms.of(SETUP, [0.5, 0.5], Kernel.F32, [40, 20], 0xCAFE),
    Terms.of(SETUP, [0.5, -0.5], Kernel.F32, [41, 19], 0xCAFE),
    Terms.of(SETUP, [0.5, -0.5], Kernel.F32, [40, 20], 0xCAFF),
]  # fmt: skip


def test_whatever_changes_is_another_mac() -> None:
    ups = {up_mac(KEY, OFFER, terms, b"bytes") for terms in (TERMS, *CHANGES)}
    assert len(ups) == 1 + len(CHANGES)
    downs = {down_mac(KEY, TransferKind.WEIGHTS, 7, terms, b"blob") for terms in (TERMS, *CHANGES)}
    assert len(downs) == len(CHANGES) - 1  # it covers neither labels nor what is trained
    others = {
        down_mac(KEY, TransferKind.SAMPLE, 7, TERMS, b"blob"),
        down_mac(KEY, TransferKind.WEIGHTS, 8, TERMS, b"blob"),
    }
    assert len(downs | ups | others) == len(downs) + len(ups) + 2


def test_fixed_point_keeps_what_the_firmware_keeps() -> None:
    """(int16_t)(value * 256 + 0.5 away from zero), every step in float32, held within 16 bits."""
    rng = np.random.default_rng(5)
    halves = (np.arange(-2000, 2000) + 0.5) / 256
    near = np.nextafter(halves.astype(np.float32), np.float32(0))
    values = np.concatenate([rng.normal(0, 3, 5000), halves, near, [0.0, -0.0, 127.99, 128, -128, 1e30, -1e30]])
    values = values.astype(np.float32)
    scaled = values * np.float32(256)
    rounded = np.trunc(scaled + np.where(scaled < 0, np.float32(-0.5), np.float32(0.5)))
    expected = np.clip(rounded, -32767, 32767).astype("<i2")
    assert kept(values.tolist(), Kernel.FIXED) == expected.tobytes()
    assert kept(values.tolist(), Kernel.F32) == values.astype("<f4").tobytes()


@pytest.mark.parametrize("kernel", list(Kernel))
def test_no_adjustment_is_zeros(kernel: Kernel) -> None:
    assert not any(kept([0.0] * 4, kernel))
