"""Frames: COBS(type u8 | transfer u8 | chunk u16 | payload | CRC-16) 0x00. No I/O.

A frame is at most 254 bytes before COBS, so that one block always holds a run without zeros and COBS costs one byte.
"""

from __future__ import annotations

import re
import struct
from binascii import crc_hqx
from typing import NamedTuple

from codegen.protocol import FRAME_OVERHEAD, MTU_MAX

_ENCODED_MAX = MTU_MAX + FRAME_OVERHEAD - 1  # bytes of the longest frame, without its delimiter
_CODES = tuple(bytes((length + 1,)) for length in range(255))  # COBS code of a run of `length` bytes
_HEADER = struct.Struct("<BBH")
_COLOURS = re.compile(rb"\x1b\[[0-9;]*m")  # with which ESP-IDF writes its boot messages


class Frame(NamedTuple):
    """One frame; `type` is a FrameType, or a number this host does not know."""

    type: int
    transfer: int
    chunk: int
    payload: bytes


def encode(type: int, transfer: int, chunk: int, payload: bytes | memoryview = b"") -> bytes:
    """Return the bytes of a frame with its delimiter. payload: at most MTU_MAX bytes."""
    body = _HEADER.pack(type, transfer, chunk) + payload
    body += crc_hqx(body, 0xFFFF).to_bytes(2, "little")
    if len(body) >= _ENCODED_MAX:
        raise ValueError(f"a payload of {len(payload)} bytes; a frame holds {MTU_MAX}")
    return stuff(body) + b"\0"


def stuff(body: bytes) -> bytes:
    """Return COBS of at most 254 bytes: each run without zeros behind one more than its length."""
    return b"".join([piece for run in body.split(b"\0") for piece in (_CODES[len(run)], run)])


def unstuff(data: bytes) -> bytes | None:
    """Undo COBS; None if a block is longer than what is there."""
    pieces: list[bytes] = []
    at, end = 0, len(data)
    while at < end:
        code = data[at]
        after = at + code
        if after > end:
            return None
        pieces.append(data[at + 1 : after])
        if code != 0xFF and after < end:
            pieces.append(b"\0")
        at = after
    return b"".join(pieces)


def decode(data: bytes) -> Frame | None:
    """Return the frame in what stood between two delimiters; None if it is not one."""
    body = unstuff(data) if len(data) <= _ENCODED_MAX + 1 else None
    if body is None or not 6 <= len(body) <= 254 or crc_hqx(body[:-2], 0xFFFF) != body[-2] | body[-1] << 8:
        return None
    type, transfer, chunk = _HEADER.unpack_from(body)
    return Frame(type, transfer, chunk, body[4:-2])


def _lines(garbage: bytes) -> list[str]:
    """Return the lines of text in bytes that are no frame: a board's boot messages."""
    ended = _COLOURS.sub(b"", garbage).replace(b"\r", b"\n").split(b"\n")[:-1]
    text = (line.decode("ascii", errors="replace").strip() for line in ended)
    return [line for line in text if len(line) > 3 and line.isprintable() and line.isascii()]


class Decoder:
    """Cuts a byte stream into frames. What is no frame is counted in `rejected`; its lines of text go to `text`,
    which the reader empties."""

    def __init__(self) -> None:
        self.rejected = 0
        self.text: list[str] = []
        self._rest = b""
        self._bad = False  # what precedes `_rest` was already too long for a frame

    def feed(self, data: bytes) -> list[Frame]:
        """Return the frames that end in `data`, in order."""
        *whole, rest = (self._rest + data).split(b"\0")
        frames: list[Frame] = []
        for piece in whole:
            frame = None if self._bad else decode(piece)
            if frame is not None:
                frames.append(frame)
            elif piece or self._bad:
                self.rejected += 1
                self.text += _lines(piece)
            self._bad = False
        if len(rest) > _ENCODED_MAX + 1:  # show what it says now; a board that is not ours may never send a delimiter
            end = max(rest.rfind(b"\n"), rest.rfind(b"\r")) + 1
            self.text += _lines(rest[:end])
            rest = rest[max(end, len(rest) - _ENCODED_MAX) :]
            self._bad = True
        self._rest = rest
        return frames
