"""A node that holds proxy images: their soft targets in every state, and what it learns from them."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from codegen.protocol import (
    NO_LABEL,
    Abort,
    Ack,
    Adjust,
    Begin,
    Commit,
    Encoding,
    Error,
    ErrorCode,
    FrameType,
    Hello,
    HelloRequest,
    Message,
    Samples,
    Setup,
    State,
    Status,
    StatusRequest,
    Train,
    TransferKind,
)
from codegen.weights import unpack
from coordinator.link.frames import encode
from coordinator.shares import Share
from coordinator.streaming import sample
from tests.firmware.conftest import CompileShared
from tests.firmware.node.harness import (
    CLASSES,
    KEYED,
    MEMORY,
    PROXY,
    SAMPLES,
    WAYS,
    Build,
    MemoryNode,
    begin_of,
    build,
    refusal,
    samples,
    setup,
    soft_targets,
    weights,
)
from tests.firmware.node.test_authentication import Keyed
from tests.firmware.node.test_round import ADJUSTMENT, REFERENCE, Reference, blob_for

TARGETS = soft_targets()
OTHER = TARGETS[::-1].tobytes()
USUAL = setup(rehearsals=2)
ROUNDS = {
    "usual": USUAL,
    "own width": setup(rehearsals=1, nested=0, seed=0xFFFFFFFF),
    "momentum": setup(rehearsals=3, momentum=0.9, learning_rate=0.01),
    "never": setup(),
}


@pytest.fixture(scope="module", params=WAYS)
def built(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Build:
    """The small model's headers for a board that holds proxy images."""
    return build(request.param, tmp_path_factory.mktemp("rehearsing"), proxy=PROXY)


@pytest.fixture
def node(built: Build, compile_shared: CompileShared) -> MemoryNode:
    """Such a node, just booted."""
    return MemoryNode(compile_shared(MEMORY, ("-O2", *built.flags)), built)


only_fused = pytest.mark.parametrize("built", ["fused"], indirect=True)


@pytest.mark.parametrize("wanted", ROUNDS.values(), ids=ROUNDS)
def test_the_update_is_what_the_model_gives(
    wanted: Setup, node: MemoryNode, built: Build, compile_shared: CompileShared
) -> None:
    reference = Reference(compile_shared(REFERENCE, ("-O1", *built.flags)), built)
    node.bring(State.READY, b"", wanted)
    node.ask(Adjust(0, ADJUSTMENT))
    node.bring(State.DONE, blob_for(node), wanted, TARGETS.tobytes() if wanted.rehearsals else b"")
    offer, blob = node.fetch(Encoding.WEIGHTS)
    expected, loss = reference.train(wanted, blob_for(node), ADJUSTMENT, TARGETS)
    assert blob == expected != blob_for(node)
    assert offer.samples == SAMPLES and offer.loss == pytest.approx(loss, rel=1e-5)
    status = node.ask(StatusRequest())
    assert isinstance(status, Status)
    assert status.done == status.total == wanted.epochs * (SAMPLES + wanted.rehearsals * PROXY)


def test_fixed_point_rehearses_as_float_does(tmp_path: Path, compile_shared: CompileShared) -> None:
    moved = []
    for way in ("fused", "fixed"):
        built = build(way, tmp_path / way, proxy=PROXY)
        node = MemoryNode(compile_shared(MEMORY, ("-O2", *built.flags)), built)
        start = blob_for(node)
        node.bring(State.DONE, start, setup(rehearsals=4, learning_rate=0.2), TARGETS.tobytes())
        pairs = zip(*(unpack(built.plan, blob) for blob in (start, node.fetch(Encoding.WEIGHTS)[1])), strict=True)
        moved.append(np.concatenate([(after - before).ravel() for before, after in pairs]))
    exact, fixed = moved
    assert np.linalg.norm(fixed - exact) < 0.15 * np.linalg.norm(exact)


def test_towards_the_targets_is_where_it_goes(node: MemoryNode, built: Build, compile_shared: CompileShared) -> None:
    """An oracle of its own: what the model says of the images, in float64, nears what the targets say."""
    reference = Reference(compile_shared(REFERENCE, ("-O1", *built.flags)), built)
    blobs = [blob_for(node)]
    for number, targets in ((1, TARGETS.tobytes()), (2, bytes(TARGETS.size))):
        node.bring(State.DONE, blobs[0], setup(number, rehearsals=40, learning_rate=0.1), targets)
        blobs.append(node.fetch(Encoding.WEIGHTS, number)[1])
    before, towards, nowhere = (reference.divergence(blob, TARGETS) for blob in blobs)
    assert towards < 0.5 * min(before, nowhere)


# What each request gets in IDLE, READY, LOADED, TRAINING and DONE of round 5, as in test_node.py; from LOADED on the
# targets are here.
TABLE = [
    (Begin(3, 40, 5, TARGETS.size, zlib.crc32(TARGETS.tobytes())), "WRONG_STATE WRONG_STATE ACK ACK ACK"),
    (Begin(3, 40, 5, TARGETS.size, zlib.crc32(OTHER)), "WRONG_STATE WRONG_STATE ACK WRONG_STATE WRONG_STATE"),
    (Begin(3, 40, 5, TARGETS.size + 1, 1), "WRONG_STATE WRONG_SIZE WRONG_SIZE WRONG_SIZE WRONG_SIZE"),
    (Begin(3, 0, 5, TARGETS.size, 1), "WRONG_STATE WRONG_STATE WRONG_SIZE WRONG_STATE WRONG_STATE"),
    (Begin(3, 40, 6, TARGETS.size, 1), "WRONG_STATE WRONG_ROUND WRONG_ROUND WRONG_ROUND WRONG_ROUND"),
    (Begin(4, 40, 5, TARGETS.size, 1), "WRONG_STATE UNSUPPORTED UNSUPPORTED UNSUPPORTED UNSUPPORTED"),
    (USUAL, "READY READY LOADED TRAINING DONE"),
]


@only_fused
@pytest.mark.parametrize(
    ("message", "before", "expected"),
    [
        pytest.param(message, state, cell, id=f"{message}-{state.name}")
        for message, row in TABLE
        for state, cell in zip(State, row.split(), strict=True)
    ],
)
def test_every_request_in_every_state_twice(node: MemoryNode, message: Message, before: State, expected: str) -> None:
    node.bring(before, blob_for(node), USUAL, TARGETS.tobytes())
    for _ in range(2):
        reply = node.ask(message)
        if isinstance(reply, Error):
            assert ErrorCode(reply.code).name == expected
        else:
            assert expected == (State(reply.state).name if isinstance(reply, Status) else reply.type.name)


@only_fused
def test_it_says_how_many_images_it_holds(node: MemoryNode) -> None:
    hello = node.ask(HelloRequest())
    assert isinstance(hello, Hello) and (hello.samples, hello.proxy) == (SAMPLES, PROXY)


@only_fused
def test_without_targets_nothing_is_rehearsed(node: MemoryNode) -> None:
    node.bring(State.LOADED, blob_for(node), USUAL)
    assert refusal(node.ask(Train(5))) == ErrorCode.NO_TARGETS
    damaged = bytes(TARGETS.size)
    node.ask(Begin(TransferKind.TARGETS, 40, 5, TARGETS.size, zlib.crc32(TARGETS.tobytes())), 20)
    assert node.ask(Commit(5), 20) == Ack(0, 0)  # its chunks are missing
    for chunk in range(-(-TARGETS.size // 40)):
        node.feed(encode(FrameType.DATA, 20, chunk, damaged[chunk * 40 : (chunk + 1) * 40]))
    assert node.ask(Commit(5), 20) == Error(ErrorCode.BAD_CRC, zlib.crc32(damaged))
    assert refusal(node.ask(Train(5))) == ErrorCode.NO_TARGETS
    assert node.aim(TARGETS.tobytes()).type == FrameType.STATUS and node.state() == State.LOADED
    assert node.ask(Train(5)).type == FrameType.STATUS


@only_fused
@pytest.mark.parametrize("ends", [Abort(), setup(6, rehearsals=2), begin_of(weights(299, seed=3))], ids=str)
def test_targets_do_not_outlive_their_weights(node: MemoryNode, ends: Message) -> None:
    node.bring(State.LOADED, blob_for(node), USUAL, TARGETS.tobytes())
    node.ask(ends)
    number = ends.round if isinstance(ends, Setup) else 5
    node.bring(State.LOADED, blob_for(node), setup(number, rehearsals=2))
    assert refusal(node.ask(Train(number))) == ErrorCode.NO_TARGETS


@only_fused
@pytest.mark.parametrize("transfer", [MemoryNode.TRANSFER, 33], ids=["one number for both", "its own"])
def test_a_host_that_comes_back_goes_on_where_it_was(node: MemoryNode, transfer: int) -> None:
    node.bring(State.LOADED, blob_for(node), USUAL)
    node.ask(Begin(TransferKind.TARGETS, 40, 5, TARGETS.size, zlib.crc32(TARGETS.tobytes())), transfer)
    node.feed(encode(FrameType.DATA, transfer, 0, TARGETS.tobytes()[:40]))
    for request in (USUAL, begin_of(blob_for(node)), Commit(5)):
        node.ask(request, MemoryNode.TRANSFER)
    assert node.ask(Begin(3, 40, 5, TARGETS.size, zlib.crc32(TARGETS.tobytes())), 60) == Ack(0, 0)
    assert node.aim(TARGETS.tobytes(), transfer=transfer).type == FrameType.STATUS
    node.ask(Train(5))
    for _ in range(2):  # while it trains, and when it is done
        for request in (USUAL, begin_of(blob_for(node)), Commit(5)):
            node.ask(request, MemoryNode.TRANSFER)
        assert node.aim(TARGETS.tobytes(), transfer=70).type == FrameType.STATUS
        node.finish()
    assert node.state() == State.DONE


def test_streamed_images_make_the_same_bits(
    node: MemoryNode, tmp_path: Path, compile_shared: CompileShared, request: pytest.FixtureRequest
) -> None:
    way = request.node.callspec.params["built"]
    streaming = build(way, tmp_path, source="stream", proxy=PROXY)
    streamed = MemoryNode(compile_shared(MEMORY, ("-O2", *streaming.flags)), streaming)
    features, labels = samples(SAMPLES + PROXY)
    share = Share(features[:SAMPLES], labels[:SAMPLES], CLASSES, features[SAMPLES:])
    streamed.bring(State.LOADED, blob_for(node), USUAL, TARGETS.tobytes())
    streamed.ask(Samples(SAMPLES))
    streamed.ask(Train(5))
    for position in range(USUAL.epochs * (SAMPLES + USUAL.rehearsals * PROXY)):
        blob = sample(share, USUAL.seed, position, USUAL.rehearsals)
        wrong = blob[:4] + (b"\0\0" if blob[4:6] == NO_LABEL.to_bytes(2, "little") else b"\xff\xff") + blob[6:]
        if position in (0, 1, 40, 41):  # a label where there must be none, and the other way round
            assert send(streamed, wrong) == Error(ErrorCode.WRONG_LABEL, CLASSES)
        assert send(streamed, blob).type == FrameType.STATUS
    node.bring(State.DONE, blob_for(node), USUAL, TARGETS.tobytes())
    assert streamed.fetch(Encoding.WEIGHTS) == node.fetch(Encoding.WEIGHTS)


@pytest.fixture
def keyed(tmp_path: Path, compile_shared: CompileShared) -> Iterator[Keyed]:
    """A node that has a key as well."""
    built = build("fused", tmp_path, proxy=PROXY)
    library = compile_shared(MEMORY, ("-O2", KEYED, *built.flags))
    yield Keyed(MemoryNode(library, built), "fused")
    library.memory_key(None)


def test_a_key_binds_the_targets_and_the_update_to_them(keyed: Keyed) -> None:
    node, targets = keyed.node, TARGETS.tobytes()
    keyed.setup = USUAL
    keyed.authenticate()
    keyed.begin()
    keyed.commit(keyed.down(keyed.weights))
    for code in (bytes(16), keyed.down(targets), keyed.down(OTHER, TransferKind.TARGETS)):
        assert node.aim(targets, mac=code) == Error(ErrorCode.WRONG_MAC, FrameType.COMMIT)
        assert refusal(node.ask(Train(5))) == ErrorCode.NO_TARGETS
    assert node.aim(targets, mac=keyed.down(targets, TransferKind.TARGETS)).type == FrameType.STATUS
    node.ask(Train(5))
    node.finish()
    offer, blob = node.fetch(Encoding.WEIGHTS)
    labels = np.bincount(samples()[1], minlength=CLASSES).astype("<u2").tobytes()
    assert offer.mac == keyed.up(offer, blob, labels, zlib.crc32(keyed.weights) ^ zlib.crc32(targets))


def send(node: MemoryNode, blob: bytes) -> Message:
    """Send a sample; return the answer to its COMMIT."""
    node.ask(Begin(TransferKind.SAMPLE, 60, 5, len(blob), zlib.crc32(blob)), 90)
    node.feed(encode(FrameType.DATA, 90, 0, blob))
    return node.ask(Commit(5), 90)
