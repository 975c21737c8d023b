"""The firmware's link through ctypes, as link.h declares it."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from ctypes import POINTER, byref, c_bool, c_uint8, c_uint16, c_uint32
from pathlib import Path
from typing import Any

from coordinator.link.frames import Frame

LINK = Path(__file__).resolve().parents[3] / "firmware" / "link"
SOURCES = tuple(sorted(LINK.glob("*.c")))
UNWANTED = 0xFFFFFFFF


class _CFrame(ctypes.Structure):
    _fields_ = [
        ("type", c_uint8),
        ("transfer", c_uint8),
        ("chunk", c_uint16),
        ("payload", POINTER(c_uint8)),
        ("length", c_uint8),
    ]


class CIncoming(ctypes.Structure):
    _fields_ = [
        ("size", c_uint32),
        ("crc", c_uint32),
        ("next", c_uint16),
        ("map", c_uint32),
        ("id", c_uint8),
        ("payload", c_uint8),
        ("open", c_bool),
    ]


class Link:
    """One compiled link.c: its functions with Python's types."""

    def __init__(self, library: ctypes.CDLL, mtu: int, window: int) -> None:
        self.library, self.mtu, self.window = library, mtu, window
        library.link_crc32.restype = library.link_incoming_accept.restype = c_uint32
        library.link_crc32.argtypes = [c_uint32, ctypes.c_char_p, c_uint32]
        library.link_encode.restype = library.link_crc16.restype = c_uint16
        library.link_crc16.argtypes = [c_uint16, ctypes.c_char_p, c_uint16]
        for name in (
            "decode",
            "incoming_complete",
            "incoming_begin",
            "incoming_resume",
            "outgoing_begin",
            "outgoing_next",
        ):
            getattr(library, f"link_{name}").restype = c_bool
        decoder = [("buffer", c_uint8 * (mtu + 7)), ("length", c_uint8), ("bad", c_bool), ("rejected", c_uint16)]
        self._decoder = type("CDecoder", (ctypes.Structure,), {"_fields_": decoder})
        words = [(name, c_uint16) for name in ("next", "fresh")]
        tail = [(name, c_uint8) for name in ("serial", "id", "payload")]
        flight = [("due", c_uint32 if window > 16 else c_uint16), ("sent", c_uint8 * window)]
        fields = [("size", c_uint32), *words, *flight, *tail, ("open", c_bool)]
        self._outgoing = type("COutgoing", (ctypes.Structure,), {"_fields_": fields})

    def encode(self, frame: Frame) -> bytes:
        """Return the frame's bytes."""
        out = ctypes.create_string_buffer(self.mtu + 8)
        ctypes.memmove(ctypes.addressof(out) + 5, frame.payload, len(frame.payload))
        length = self.library.link_encode(out, frame.type, frame.transfer, frame.chunk, len(frame.payload))
        return out.raw[:length]

    def decoder(self) -> CDecoder:
        """Return a fresh decoder."""
        return CDecoder(self.library, self._decoder())

    def incoming(self, payload: int, size: int, crc: int = 0) -> CIncoming:
        """Return a transfer to receive; `open` tells whether it was accepted."""
        state = CIncoming()
        assert self.library.link_incoming_begin(byref(state), 7, payload, size, crc) == state.open
        return state

    def resume(self, state: CIncoming, payload: int) -> bool:
        """Go on with chunks of another length."""
        return bool(self.library.link_incoming_resume(byref(state), 8, payload))

    def accept(self, state: CIncoming, chunk: int, length: int) -> int:
        """Return where a chunk belongs, or UNWANTED."""
        return int(self.library.link_incoming_accept(byref(state), chunk, length))

    def complete(self, state: CIncoming) -> bool:
        """Tell whether everything has arrived."""
        return bool(self.library.link_incoming_complete(byref(state)))

    def outgoing(self, payload: int, size: int, first: int = 0) -> Any:
        """Return a transfer to send."""
        state = self._outgoing()
        assert self.library.link_outgoing_begin(byref(state), 7, payload, size, first) == state.open
        return state

    def acknowledge(self, state: Any, next: int, map: int = 0, stalled: bool = False) -> None:
        """Tell a sending transfer what has arrived."""
        self.library.link_outgoing_acknowledge(byref(state), next, map, stalled)

    def ready(self, state: Any) -> Iterator[tuple[int, int, int]]:
        """Yield (chunk, offset, length) until nothing may be sent."""
        chunk, offset, length = c_uint16(), c_uint32(), c_uint8()
        while self.library.link_outgoing_next(byref(state), byref(chunk), byref(offset), byref(length)):
            yield chunk.value, offset.value, length.value


class CDecoder:
    """link_decode as a class like the host's Decoder."""

    def __init__(self, library: ctypes.CDLL, state: Any) -> None:
        self._library, self._state = library, state
        library.link_decoder_reset(byref(state))

    @property
    def rejected(self) -> int:
        return int(self._state.rejected)

    def feed(self, data: bytes) -> list[Frame]:
        """Return the frames that end in `data`."""
        frames, frame = [], _CFrame()
        for byte in data:
            if self._library.link_decode(byref(self._state), byte, byref(frame)):
                payload = ctypes.string_at(frame.payload, frame.length)
                frames.append(Frame(frame.type, frame.transfer, frame.chunk, payload))
        return frames
