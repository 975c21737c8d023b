"""How much of a wire is content: python -m benchmarks.link [--json].

Moves 64 KB to a node and back through a simulated wire, in virtual time and seeded, between the host's session and the
firmware's link as it is compiled. Then damages a million frames and counts what is taken for right and is not.
"""

from __future__ import annotations

import ctypes
import json
import random
import sys
import tempfile
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import typer

import boards
from benchmarks.images import PACKAGES, WARNINGS, ToolError, run_tool
from codegen.protocol import Begin, Commit, Encoding, FrameType, TransferKind
from codegen.protocol_header import protocol_header
from coordinator.link.errors import LinkError
from coordinator.link.frames import Decoder, encode
from coordinator.link.session import Session
from coordinator.link.transfer import Receiver
from simulation.clock import run_virtually
from simulation.wire import SOURCES, Chip, Faults, Peer, WirePort, peer_flags

SIZE = 65536  # bytes of a transfer
TRANSFERS = 12  # each way; a session's first one knows nothing of its wire
SEED = 1
BITS_A_BYTE = 10
RATES = (0.0, 1e-5, 1e-4)  # bit errors
DOWN_SECONDS = 0.001  # a USB frame: no adapter holds what comes from the host for longer
FAULTY = 1_000_000
FAULTY_PAYLOAD, FAULTY_COPIES = 64, 4  # of each chunk so many damaged copies come before the whole one

# docs/experiments.md (The wire at 500,000 baud): 82 cycles of interrupt a byte, 35 of read(), 81 of loop and COBS; to
# check and store a frame 45 a byte, to acknowledge or be acknowledged 1,000, to make a frame 45 a byte; all longer
# by the interrupts meanwhile. CRC-32 is summed when nothing waits.
ATMEGA = Chip(16e6, byte=198, frame_byte=60, frame=1200, send_byte=75, receive=63, transmit=63)
# ports/arduino/cores/esp32.cpp: a window and 256 bytes; its UART's own 128 bytes to send.
ESP32 = Chip(240e6, byte=60, frame_byte=30, frame=4000, send_byte=60, receive=8448, transmit=128)


@dataclass(frozen=True)
class Wire:
    """A board behind an adapter that holds what comes from it for so long."""

    board: str
    chip: Chip
    baud: int
    latency_ms: int


WIRES = (
    Wire("uno", ATMEGA, 115200, 4),
    Wire("megaatmega2560", ATMEGA, 115200, 16),
    Wire("megaatmega2560", ATMEGA, 500000, 4),
    Wire("esp32dev", ESP32, 921600, 2),
    Wire("esp32dev", ESP32, 921600, 16),
)


@dataclass(frozen=True)
class Row:
    """What --json prints. goodput: content as a share of what the wire carries, from BEGIN to STATUS and from FETCH to
    the last chunk; payload: of the last chunks; faulty_frames: a row of its own, without a wire."""

    board: str
    direction: str
    baud: int
    latency_ms: int
    ber: float | None
    payload: int
    window: int
    goodput: float | None
    retransmitted: int
    overruns: int
    silent_corruptions: int
    faulty_frames: int | None = None
    slips: int | None = None  # damaged frames that CRC-16 lets through


def library(folder: Path, mtu: int, window: int) -> ctypes.CDLL:
    """Compile the firmware's link for these sizes. Raises ToolError."""
    (folder / "protocol.h").write_text(protocol_header())
    path = folder / f"peer_{mtu}_{window}.so"
    flags = ("-std=c99", "-O2", *WARNINGS, *peer_flags(folder, mtu, window), "-shared", "-fPIC")
    run_tool("gcc", PACKAGES["gcc"], "the link", *flags, *map(str, SOURCES), "-o", str(path))
    return ctypes.CDLL(str(path))


def measure(
    wire: Wire, ber: float, folder: Path, transfers: int = TRANSFERS, each_way: float | None = None
) -> list[Row]:
    """Return a row for each direction. each_way: seconds of latency both ways instead of the adapter's."""
    training = boards.load(wire.board).training
    peer = Peer(library(folder, training.mtu, training.window))
    latency = wire.latency_ms / 1000 if each_way is None else each_way
    port = WirePort(
        peer, wire.baud, latency, Faults.of_bits(ber), SEED,
        down_latency=DOWN_SECONDS if each_way is None else each_way, chip=wire.chip,
    )  # fmt: skip
    blobs = [random.Random(SEED + at).randbytes(SIZE) for at in range(transfers)]

    async def move() -> list[Row]:
        session = Session(port)
        await session.hello()
        rows = [await _down(session, peer, blobs), await _up(session, blobs[-1], transfers)]
        await session.close()
        return [
            Row(
                wire.board, way, wire.baud, wire.latency_ms, ber, payload, training.window,
                round(transfers * SIZE / seconds / (wire.baud / BITS_A_BYTE), 4), again, port.overruns, wrong,
            )
            for way, (seconds, payload, again, wrong) in zip(("down", "up"), rows, strict=True)
        ]  # fmt: skip

    return run_virtually(move)


async def _down(session: Session, peer: Peer, blobs: list[bytes]) -> tuple[float, int, int, int]:
    """Return seconds, the last payload, chunks sent again, and transfers that ended well and wrong."""
    began, before, wrong = session.loop.time(), session.stats.retransmissions, 0
    for blob in blobs:
        await session.send(TransferKind.WEIGHTS, 1, blob)
        wrong += not peer.holds(blob)
    return session.loop.time() - began, session.payloads[0], session.stats.retransmissions - before, wrong


async def _up(session: Session, blob: bytes, transfers: int) -> tuple[float, int, int, int]:
    began, before, wrong = session.loop.time(), session.stats.retransmissions, 0
    for _ in range(transfers):
        wrong += (await session.fetch(1, Encoding.WEIGHTS))[1] != blob
    return session.loop.time() - began, session.payloads[1], session.stats.retransmissions - before, wrong


# Frames that are damaged on purpose


def damaged(frame: bytes, chance: random.Random) -> bytes:
    """Return a frame with bits flipped, bytes overwritten, left out, doubled or exchanged; sometimes two of these."""
    data = bytearray(frame)
    for _ in range(1 + (chance.random() < 0.25)):
        at, kind = chance.randrange(len(data)), chance.random()
        if kind < 0.5:
            for _ in range(1 + int(chance.expovariate(0.5))):
                data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        elif kind < 0.7:
            data[at : at + 3] = chance.randbytes(3)
        elif kind < 0.8:
            del data[at : at + 1 + (kind < 0.75)]
        elif kind < 0.9:
            data.insert(at, data[at])
        else:
            data[at : at + 2] = data[at : at + 2][::-1]
        data = data or bytearray(b"\1")
    return bytes(data)


def _streams(count: int) -> Iterator[tuple[bytes, bytes, int]]:
    """Yield a blob, its DATA frames as a bad wire delivers them, and how many of those are damaged, up to `count`."""
    chance = random.Random(SEED)
    while count > 0:
        blob = chance.randbytes(SIZE)
        pieces, faulty = bytearray(), 0
        for chunk in range(SIZE // FAULTY_PAYLOAD):
            whole = encode(FrameType.DATA, 7, chunk, blob[chunk * FAULTY_PAYLOAD : (chunk + 1) * FAULTY_PAYLOAD])
            for _ in range(min(FAULTY_COPIES, count)):
                bad = damaged(whole, chance)
                faulty, count = faulty + (bad != whole), count - (bad != whole)
                pieces += bad + b"\0"  # a lost delimiter costs the next frame as well; that is not what is counted here
            pieces += whole
        yield blob, bytes(pieces), faulty


def believe(folder: Path, count: int = FAULTY) -> list[Row]:
    """Return what the compiled node and the host made of so many damaged frames."""
    found = {"down": [0, 0], "up": [0, 0]}  # slips, silent corruptions
    training, total = boards.load("esp32dev").training, 0
    peer = Peer(library(folder, training.mtu, training.window))
    for blob, stream, faulty in _streams(count):
        total += faulty
        for way, (same, right) in (("down", _by_node(peer, blob, stream)), ("up", _by_host(blob, stream))):
            found[way][0] += not same
            found[way][1] += right and not same
    return [
        Row("esp32dev", way, 921600, 2, None, FAULTY_PAYLOAD, training.window, None, 0, 0, wrong, total, slips)
        for way, (slips, wrong) in found.items()
    ]


def _by_node(peer: Peer, blob: bytes, stream: bytes) -> tuple[bool, bool]:
    """Whether what the node has is the blob, and whether it says so."""
    begin = Begin(TransferKind.WEIGHTS, FAULTY_PAYLOAD, 1, len(blob), zlib.crc32(blob))
    peer.restart()
    peer.feed(encode(FrameType.BEGIN, 7, 0, begin.encode()) + stream)
    answers = Decoder().feed(peer.feed(encode(FrameType.COMMIT, 7, 1, Commit(1).encode())))
    right = any(frame.type == FrameType.STATUS for frame in answers)
    return right and peer.holds(blob), right


def _by_host(blob: bytes, stream: bytes) -> tuple[bool, bool]:
    receiver = Receiver(len(blob), FAULTY_PAYLOAD, lambda: 0.0)
    for frame in Decoder().feed(stream):
        if frame.type == FrameType.DATA and frame.transfer == 7:
            receiver.accept(frame.chunk, frame.payload)
    return receiver.blob == blob, receiver.done and zlib.crc32(receiver.blob) == zlib.crc32(blob)


def main(as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False) -> None:
    """Measure what the link makes of simulated wires."""
    from rich.console import Console
    from rich.progress import track

    console, rows = Console(stderr=True), list[Row]()
    cases = [(wire, ber) for wire in WIRES for ber in RATES]
    try:
        with tempfile.TemporaryDirectory() as folder:
            for wire, ber in track(cases, "Moving 64 KB", console=console, transient=True):
                rows += measure(wire, ber, Path(folder))
            rows += believe(Path(folder))
    except (LinkError, ToolError) as error:
        console.print(f"error: {error}", markup=False, soft_wrap=True)
        raise typer.Exit(1) from None
    if as_json:
        json.dump([asdict(row) for row in rows], sys.stdout, indent=2)
        print()
    else:
        _show(rows)


def _show(rows: list[Row]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("board", "way", "baud", "ms", "BER", "payload", "window", "goodput", "sent again", "silently wrong")
    for row in rows:
        rate = f"{row.faulty_frames:,} faulty frames" if row.ber is None else f"{row.ber:g}"
        share = "" if row.goodput is None else f"{100 * row.goodput:.1f} %"
        cells = (row.baud, row.latency_ms, rate, row.payload, row.window, share, row.retransmitted)
        table.add_row(row.board, row.direction, *map(str, cells), str(row.silent_corruptions))
    Console(width=None if sys.stdout.isatty() else 120).print(table)


if __name__ == "__main__":
    typer.run(main)
