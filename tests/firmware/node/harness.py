"""A small model, firmware built for it, and a node of it that lives in this process."""

from __future__ import annotations

import ctypes
import dataclasses
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

import boards
from codegen.build import generate
from codegen.graph import Graph, Layer
from codegen.planner import Plan, SampleSource, Training
from codegen.protocol import (
    BY_TYPE,
    MTU_MIN,
    Ack,
    Begin,
    Commit,
    Encoding,
    Error,
    ErrorCode,
    Fetch,
    FrameType,
    Message,
    Offer,
    Setup,
    State,
    Status,
    StatusRequest,
    Train,
    TransferKind,
)
from codegen.tiers import tiers_from
from codegen.weights import pack
from coordinator.link.frames import Decoder, Frame, encode

FIRMWARE = Path(boards.PROJECT_ROOT) / "firmware"
NODE = tuple(sorted(path for part in ("node", "link", "engine") for path in (FIRMWARE / part).glob("*.[cS]")))
NATIVE = (*NODE, *sorted((FIRMWARE / "ports" / "native").glob("*.c")))
KEYED = "-DNODE_KEYED=1"  # as twins are built, and boards that have a key
MEMORY = (*NODE, Path(boards.PROJECT_ROOT) / "simulation" / "memory_port.c")

FEATURES, CLASSES, SAMPLES, PROXY = 36, 3, 30, 22
WAYS = {  # to train, and in which arithmetic
    "accumulating": (Training(batch=4, momentum=0.5, encoding="delta_q8"), "f32"),
    "fused": (Training(batch=1, encoding="weights"), "f32"),
    "fixed": (Training(batch=4), "fixed"),
}
F32 = npt.NDArray[np.float32]


def small_graph() -> Graph:
    """A convolution of 8 channels and a dense layer: 299 parameters, so that delta_q8 needs two blocks."""
    return Graph(
        "small",
        (
            Layer("conv", "conv2d", (6, 6, 1), (3, 3, 8), (3, 3), (2, 2), slope=0.1, bias=True, trainable=True),
            Layer("dense", "dense", (3, 3, 8), (1, 1, CLASSES), bias=True, trainable=True),
        ),
        CLASSES,
        softmax=True,
    )


@dataclass(frozen=True)
class Build:
    """Generated headers and the flags that compile the firmware with them."""

    plan: Plan
    include: Path
    mtu: int = MTU_MIN
    window: int = 4
    rates: tuple[int, int] = (250_000, 500_000)  # at boot, and the fastest

    @property
    def flags(self) -> tuple[str, ...]:
        defines = (f"-DLINK_MTU={self.mtu}", f"-DLINK_WINDOW={self.window}", "-DFIRMWARE_HASH=0xF00D1234UL")
        rates = (f"-DLINK_BAUD={self.rates[0]}", f"-DLINK_BAUD_MAX={self.rates[1]}")
        return (f"-I{FIRMWARE}", f"-I{self.include}", *defines, *rates)

    @property
    def parameters(self) -> int:
        return self.plan.sub_model.graph.parameters


def build(
    way: str, folder: Path, board_id: str = "nrf52_dk", source: SampleSource = "flash", proxy: int = 0
) -> Build:
    """Generate the headers of the small model, for its full width and half of it, in `folder`."""
    graph, (training, kernel) = small_graph(), WAYS[way]
    training = dataclasses.replace(training, sources={board_id: source}, samples_per_node=SAMPLES, proxy=proxy)
    board = boards.load(board_id)
    board = dataclasses.replace(board, training=dataclasses.replace(board.training, kernel=kernel))
    nothing = [np.zeros(tensor.shape, np.float32) for tensor in graph.tensors]
    tiers = tiers_from({"full": 1.0, "half": 0.5})
    return Build(generate(board, graph, nothing, tiers, training, folder), folder)


def samples(count: int = SAMPLES) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint16]]:
    """Return features [count, FEATURES] and labels [count] that a model can learn from; label 2 is missing."""
    random = np.random.default_rng(1)
    features = random.integers(0, 256, (count, FEATURES), dtype=np.uint8)
    return features, (features[:, 0] < features[:, 1]).astype(np.uint16)


def soft_targets() -> npt.NDArray[np.uint8]:
    """Return the soft targets of the proxy images, u8 [PROXY, CLASSES]: one that is sure, one that says nothing."""
    random = np.random.default_rng(7)
    shares = random.dirichlet([0.3] * CLASSES, PROXY)
    targets = np.rint(shares * 255).astype(np.uint8)
    targets[:2] = (0, 255, 0), (0, 0, 0)
    return targets


def shard(count: int = SAMPLES) -> bytes:
    """Return the same samples as a shard file."""
    features, labels = samples(count)
    header = b"TFS2" + struct.pack("<IIII", count, 0, FEATURES, CLASSES)
    return header + features.tobytes() + labels.astype("<u2").tobytes()


def weights(parameters: int, seed: int = 2) -> bytes:
    """Return weights as they travel."""
    return np.random.default_rng(seed).normal(0, 0.2, parameters).astype("<f4").tobytes()


def fixed_weights(plan: Plan, seed: int = 2) -> bytes:
    """Return weights as they travel to a fixed-point node."""
    random = np.random.default_rng(seed)
    tensors = [random.normal(0, 0.2, tensor.shape) for tensor in plan.sub_model.graph.tensors]
    return pack(plan, [tensor.astype(np.float32) for tensor in tensors])


def setup(round: int = 5, **changes: float) -> Setup:
    """Return a SETUP of two epochs; `changes` are fields of it."""
    usual = Setup(round, seed=77, learning_rate=0.05, momentum=0.0, epochs=2, batch=4, encoding=0, nested=1)
    return dataclasses.replace(usual, **changes)  # type: ignore[arg-type]


def decode(frame: Frame) -> Message:
    """Return the message in a node's frame."""
    return BY_TYPE[frame.type].decode(frame.payload)


def frame_of(message: Message, transfer: int) -> bytes:
    """Return the bytes of a request."""
    return encode(message.type, transfer, 0, message.encode())


def begin_of(blob: bytes, round: int = 5, payload: int = 72) -> Begin:
    """Return the BEGIN that announces weights."""
    return Begin(TransferKind.WEIGHTS, payload, round, len(blob), zlib.crc32(blob))


class MemoryNode:
    """The firmware as a shared library, with memory_port.c underneath. Turned by hand: nothing runs by itself."""

    TRANSFER = 9  # of the weights

    def __init__(self, library: ctypes.CDLL, built: Build, count: int = SAMPLES) -> None:
        self.library, self.built = library, built
        self._features, self._labels = samples(max(count + built.plan.proxy, 1))  # the proxy images lie behind
        library.node_poll.restype = ctypes.c_bool
        library.memory_waiting.restype = library.memory_pull.restype = library.memory_rate.restype = ctypes.c_uint32
        self.count = count
        self.boot()

    def array(self, name: str) -> F32:
        """Return one of the model's arrays, which is as long as its weights: the memory itself."""
        return np.ctypeslib.as_array((ctypes.c_float * self.built.parameters).in_dll(self.library, name))

    def boot(self) -> None:
        """Start the node anew, its memory as a reset leaves it, its wire empty."""
        features, labels = self._features.ctypes.data_as(ctypes.c_void_p), self._labels.ctypes.data_as(ctypes.c_void_p)
        self.library.memory_boot(features, labels, self.count, FEATURES)
        self.library.node_start()
        self._decoder = Decoder()

    def poll(self) -> bool:
        """Turn the node once."""
        return bool(self.library.node_poll())

    def finish(self) -> list[Frame]:
        """Turn it until it has nothing to do; return what it sent."""
        turns = 0
        while self.poll():
            turns += 1
            assert turns < 100_000
        return self.take()

    def take(self) -> list[Frame]:
        """Return the frames it has sent."""
        out = (ctypes.c_uint8 * 65536)()
        count = self.library.memory_pull(out, len(out))
        frames = self._decoder.feed(bytes(out)[:count])
        assert self._decoder.rejected == 0
        return frames

    def feed(self, data: bytes) -> list[Frame]:
        """Give it bytes, turn it until it has read them; return what it sent."""
        self.library.memory_push(data, len(data))
        self.poll()
        while self.library.memory_waiting():
            self.poll()
        return self.take()

    def ask(self, message: Message, transfer: int = 1) -> Message:
        """Send one request and return the one reply; reports of training are left out."""
        frames = self.feed(frame_of(message, transfer))
        replies = [frame for frame in frames if frame.transfer == transfer and frame.type != FrameType.DATA]
        assert len(replies) == 1, replies
        return decode(replies[0])

    def state(self) -> State:
        """Ask it."""
        reply = self.ask(StatusRequest(), 200)
        assert isinstance(reply, Status)
        return State(reply.state)

    def load(self, blob: bytes, round: int = 5, transfer: int = TRANSFER, payload: int = 72) -> None:
        """Send weights, without COMMIT."""
        assert isinstance(self.ask(begin_of(blob, round, payload), transfer), Ack)
        for chunk in range(-(-len(blob) // payload)):
            data = blob[chunk * payload : (chunk + 1) * payload]
            (reply,) = self.feed(encode(FrameType.DATA, transfer, chunk, data))
            assert (reply.type, reply.transfer, reply.chunk) == (FrameType.ACK, transfer, chunk + 1)

    def aim(self, targets: bytes, round: int = 5, transfer: int = TRANSFER + 1, mac: bytes = bytes(16)) -> Message:
        """Send soft targets; return the answer to COMMIT, or to BEGIN if that is refused."""
        reply = self.ask(Begin(TransferKind.TARGETS, 40, round, len(targets), zlib.crc32(targets)), transfer)
        if not isinstance(reply, Ack):
            return reply
        for chunk in range(-(-len(targets) // 40)):
            self.feed(encode(FrameType.DATA, transfer, chunk, targets[chunk * 40 : (chunk + 1) * 40]))
        return self.ask(Commit(round, mac), transfer)

    def bring(self, state: State, blob: bytes, wanted: Setup | None = None, targets: bytes = b"") -> None:
        """Take a node that has booted to a state of round 5."""
        wanted = wanted or setup()
        if state >= State.READY:
            self.ask(wanted)
        if state >= State.LOADED:
            self.load(blob, wanted.round)
            self.ask(Commit(wanted.round), self.TRANSFER)
            if targets:
                self.aim(targets, wanted.round)
        if state >= State.TRAINING:
            self.ask(Train(wanted.round))
        if state == State.DONE:
            self.finish()

    def fetch(self, encoding: Encoding, round: int = 5, payload: int = 72) -> tuple[Offer, bytes]:
        """Return the update, acknowledged chunk by chunk."""
        first, *frames = self.feed(frame_of(Fetch(round, encoding, payload), 30)) + self.finish()
        offer = decode(first)
        assert isinstance(offer, Offer)
        blob = b""
        while len(blob) < offer.size:
            for frame in frames:
                assert (frame.type, frame.transfer) == (FrameType.DATA, 30)
                if frame.chunk == len(blob) // payload:
                    blob += frame.payload
            ack = encode(FrameType.ACK, 30, -(-len(blob) // payload), Ack(0, 0).encode())
            frames = self.feed(ack) + self.finish()
        assert zlib.crc32(blob) == offer.crc
        return offer, blob


def refusal(reply: Message) -> ErrorCode:
    """Return why a request was refused."""
    assert isinstance(reply, Error), reply
    return ErrorCode(reply.code)
