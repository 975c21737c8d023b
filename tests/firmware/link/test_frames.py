"""Frames: the C and the Python side make and take the same bytes, and neither believes a damaged one."""

from __future__ import annotations

import zlib
from binascii import crc_hqx

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from coordinator.link.frames import Decoder, Frame, encode
from tests.firmware.link.clink import Link
from tests.firmware.link.conftest import MakeLink

bytes_with_zeros = st.lists(st.sampled_from([0, 0, 1, 2, 254, 255]) | st.integers(0, 255), max_size=248).map(bytes)
frames = st.builds(
    Frame, st.integers(0, 255), st.integers(0, 255), st.integers(0, 65535), bytes_with_zeros | st.binary(max_size=248)
)


@pytest.mark.parametrize(
    ("data", "crc16", "crc32"),
    [(b"123456789", 0x29B1, 0xCBF43926), (b"", 0xFFFF, 0), (b"\0", 0xE1F0, 0xD202EF8D)],
)
def test_checksums_are_the_well_known_ones(link: Link, data: bytes, crc16: int, crc32: int) -> None:
    assert link.library.link_crc16(0xFFFF, data, len(data)) == crc_hqx(data, 0xFFFF) == crc16
    assert link.library.link_crc32(0, data, len(data)) == zlib.crc32(data) == crc32


def test_crc32_goes_on_where_it_stopped(link: Link) -> None:
    first = link.library.link_crc32(0, b"1234", 4)
    assert link.library.link_crc32(first, b"56789", 5) == 0xCBF43926


def test_c_stuffs_as_the_paper_does(link: Link) -> None:
    """Cheshire and Baker's IP header 45 00 00 2C 4C 79 00 00 40 06 4F 37; the check bytes lengthen the last run."""
    frame = Frame(0x45, 0x00, 0x2C00, bytes.fromhex("4c79000040064f37"))
    assert link.encode(frame).hex(" ").startswith("02 45 01 04 2c 4c 79 01 07 40 06 4f 37")


@settings(deadline=None)
@given(frame=frames)
@example(frame=Frame(1, 1, 0x0101, b"\x01" * 248))
@example(frame=Frame(0, 0, 0, b""))
def test_both_sides_make_and_take_the_same_bytes(link: Link, frame: Frame) -> None:
    data = encode(*frame)
    assert link.encode(frame) == data
    assert len(data) == len(frame.payload) + 8
    assert data.count(0) == 1
    assert Decoder().feed(data) == link.decoder().feed(data) == [frame]


@settings(deadline=None)
@given(parts=st.lists(frames | st.binary(max_size=300) | st.just(b"\0"), max_size=8), cut=st.integers(1, 50))
def test_decoders_agree_on_any_bytes_in_any_pieces(link: Link, parts: list[Frame | bytes], cut: int) -> None:
    data = b"".join(encode(*part) if isinstance(part, Frame) else part for part in parts)
    host, node = Decoder(), link.decoder()
    received = [frame for start in range(0, len(data), cut) for frame in host.feed(data[start : start + cut])]
    assert received == node.feed(data)
    assert host.rejected == node.rejected


@settings(deadline=None)
@given(frame=frames, data=st.data())
def test_a_flipped_bit_never_makes_a_frame(link: Link, frame: Frame, data: st.DataObject) -> None:
    sent = bytearray(encode(*frame))
    place = data.draw(st.integers(0, len(sent) * 8 - 1))
    sent[place // 8] ^= 1 << place % 8
    wire = bytes(sent) + b"\0"
    assert Decoder().feed(wire) == link.decoder().feed(wire)
    assert frame not in Decoder().feed(wire)


def test_a_frame_longer_than_the_mtu_is_dropped_and_the_next_taken(make_link: MakeLink) -> None:
    decoder = make_link(72, 4).decoder()
    taken = decoder.feed(encode(1, 2, 3, bytes(72)) + encode(1, 2, 3, bytes(73)) + encode(1, 2, 4, b"next"))
    assert [frame.chunk for frame in taken] == [3, 4]
    assert decoder.rejected == 1


def test_repeated_delimiters_are_no_frames(link: Link) -> None:
    decoder = link.decoder()
    assert decoder.feed(b"\0\0\0" + encode(1, 0, 0) + b"\0\0") == [Frame(1, 0, 0, b"")]
    assert decoder.rejected == 0
