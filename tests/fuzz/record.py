"""Make the corpus: what the host says in real rounds with real nodes, over wires of several kinds.

python -m tests.fuzz.record      writes tests/fuzz/corpus/<target>/<wire>; to be run again when messages change
"""

from __future__ import annotations

import ctypes
import struct
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np

from codegen.planner import EncodingChoice
from codegen.protocol import Ack, Begin, Fetch, FrameType
from coordinator.link.frames import Decoder, Frame
from coordinator.nodes import LinkNode
from coordinator.rounds import Order
from coordinator.shares import Share
from simulation.clock import run_virtually
from simulation.wire import Faults, Peer, WirePort
from tests.coordinator.test_streaming import NodePeer, Wired
from tests.firmware.node.harness import (
    CLASSES,
    MEMORY,
    Build,
    MemoryNode,
    fixed_weights,
    samples,
    soft_targets,
    weights,
)
from tests.fuzz.targets import CORPUS, NODES, headers

SAMPLES = 5  # as node.c has them
TURNS, HOST = 251, 253  # records of node.c, which has the key and does with it what a host does
WIRES: dict[str, tuple[Faults, EncodingChoice]] = {
    "clean": (Faults(), "weights"),
    "delta_f32": (Faults(), "delta_f32"),
    "delta_q8": (Faults(), "delta_q8"),
    "flips": (Faults(flip=0.003), "auto"),
    "drops": (Faults(drop=0.003), "auto"),
    "doubles": (Faults(double=0.003), "auto"),
}


def main() -> None:
    """Record every target's sessions."""
    for target in NODES:
        with tempfile.TemporaryDirectory() as folder:
            built = headers(target, Path(folder))
            library, written = _library(built, Path(folder) / "node.so"), set[bytes]()
            for wire, (faults, encoding) in WIRES.items():
                down, up = conversation(MemoryNode(library, built, SAMPLES), faults, encoding)
                key = bytes((HOST,)) if NODES[target][2] else b""
                said = key + records(down)
                if wire == "clean":
                    _write(CORPUS / target / "other_weights", said + records(down, other))
                    if key:
                        _write(CORPUS / target / "forged", key + records(down, forged))
                if said in written:  # a node that knows one encoding is asked for it thrice
                    continue
                written.add(said)
                _write(CORPUS / target / wire, said)
                if target == "f32":
                    _write(CORPUS / "decoder" / f"bytes_{wire}", b"\0" + up[-1500:])
                    for name, content in transfers(down, up).items():
                        _write(CORPUS / "decoder" / f"{name}_{wire}", content)


def conversation(node: MemoryNode, faults: Faults, encoding: EncodingChoice) -> tuple[bytes, bytes]:
    """Run one round; return what the host sent, before the wire had its way with it, and what the node sent."""
    down, up = bytearray(), bytearray()
    plan = node.built.plan
    features, labels = samples(SAMPLES + plan.proxy)
    whole = Share(features[:SAMPLES], labels[:SAMPLES], CLASSES, features[SAMPLES:])
    share = whole if plan.source == "stream" else None
    blob = fixed_weights(plan) if plan.kernel == "fixed" else weights(plan.sub_model.graph.parameters)
    adjustment = np.array([0.5, -0.5, 0.0], np.float32)
    order = Order(3, 77, 0.05, 0.0, 1, 4, True, encoding, adjustment, blob)
    if plan.proxy:
        order = replace(order, rehearsals=1, targets=soft_targets())

    class Recorded(NodePeer):
        def exchange(self, data: bytes) -> bytes:
            answer = super().exchange(data)
            up.extend(answer)
            return answer

    def heard(data: bytes) -> bytes:
        down.extend(data)
        return data

    def open_port() -> WirePort:
        port = WirePort(cast(Peer, Recorded(node)), faults=faults)
        port.filter_down = heard
        return port

    async def play() -> None:
        host = LinkNode("node", plan, Wired(open_port), lambda _: None, share=share)
        await host.open()
        await host.train(order)
        await host.close()

    run_virtually(play)
    return bytes(down), bytes(up)


def records(sent: bytes, change: Callable[[Frame], Frame] = lambda frame: frame) -> bytes:
    """Return the frames of a wire as node.c reads them; a node that is to train gets the time to do so."""
    parts = []
    for frame in map(change, Decoder().feed(sent)):
        head = struct.pack("<BBBH", len(frame.payload), frame.type, frame.transfer, frame.chunk)
        parts.append(head + frame.payload + (bytes((TURNS, 40)) if frame.type == FrameType.TRAIN else b""))
    return b"".join(parts)


def forged(frame: Frame) -> Frame:
    """A COMMIT that is not the host's, but of somebody who has its session and not its key."""
    return frame._replace(payload=frame.payload[:-1] + b"\1") if frame.type == FrameType.COMMIT else frame


def other(frame: Frame) -> Frame:
    """The same round with other weights, which end what was done with those before; nobody ends it meanwhile."""
    if frame.type == FrameType.ABORT:
        return frame._replace(type=FrameType.STATUS_REQUEST)
    if frame.type != FrameType.BEGIN:
        return frame
    return frame._replace(payload=frame.payload[:-1] + bytes((frame.payload[-1] ^ 1,)))


def transfers(down: bytes, up: bytes) -> dict[str, bytes]:
    """Return the chunks to the node and the acknowledgements of its update, as decoder.c reads them."""
    sent, answered = Decoder().feed(down), Decoder().feed(up)
    begin = Begin.decode(_of(sent, FrameType.BEGIN)[0].payload)
    receive = struct.pack("<BBH", 1, begin.payload, begin.size)
    receive += b"".join(struct.pack("<HB", frame.chunk, 1) for frame in _of(sent, FrameType.DATA))
    fetch = Fetch.decode(_of(sent, FrameType.FETCH)[0].payload)
    chunks = {frame.chunk: len(frame.payload) for frame in _of(answered, FrameType.DATA)}
    send = struct.pack("<BBH", 2, fetch.payload, sum(chunks.values()))
    for frame in _of(sent, FrameType.ACK):
        ack = Ack.decode(frame.payload)
        send += struct.pack("<HIB", frame.chunk, ack.map, ack.stalled)
    return {"receive": receive, "send": send}


def _of(frames: list[Frame], type: FrameType) -> list[Frame]:
    return [frame for frame in frames if frame.type == type]


def _library(built: Build, path: Path) -> ctypes.CDLL:
    sources = [source for source in MEMORY if source.suffix == ".c"]
    command = ["gcc", "-std=c99", "-O1", "-ffp-contract=off", "-shared", "-fPIC", *built.flags, *map(str, sources)]
    subprocess.run([*command, "-o", str(path)], check=True)
    return ctypes.CDLL(str(path))


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


if __name__ == "__main__":
    main()
