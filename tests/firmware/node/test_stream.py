"""A node whose samples the host streams: every message in every state, and the bits of one that has them in flash."""

from __future__ import annotations

import zlib

import pytest

from codegen.protocol import (
    Ack,
    Begin,
    Commit,
    Encoding,
    Error,
    ErrorCode,
    FrameType,
    Hello,
    HelloRequest,
    Labels,
    LabelsRequest,
    Message,
    Samples,
    Setup,
    Source,
    State,
    Status,
    StatusRequest,
    Train,
    TransferKind,
)
from coordinator.link.frames import encode
from coordinator.shares import Share
from coordinator.streaming import sample
from tests.firmware.conftest import CompileShared
from tests.firmware.node.harness import (
    CLASSES,
    MEMORY,
    SAMPLES,
    WAYS,
    Build,
    MemoryNode,
    begin_of,
    fixed_weights,
    refusal,
    samples,
    setup,
    weights,
)

WEIGHTS = weights(299)
SHARE = Share(*samples(), CLASSES)
EPOCHS = 2
SETUP = setup(epochs=EPOCHS)


class Streamed:
    """A node that has booted, and the host's end of its stream."""

    def __init__(self, node: MemoryNode, blob: bytes) -> None:
        self.node, self.blob = node, blob

    def bring(self, state: State, wanted: Setup = SETUP) -> None:
        """Take it to a state of round 5; in TRAINING and DONE it knows how many samples there are."""
        if state < State.TRAINING:
            self.node.bring(state, self.blob, wanted)
            return
        self.node.bring(State.LOADED, self.blob, wanted)
        self.node.ask(Samples(SAMPLES))
        self.node.ask(Train(5))
        if state == State.DONE:
            for position in range(wanted.epochs * SAMPLES):
                self.send(position, wanted.seed)

    def announce(self, blob: bytes, transfer: int) -> Message:
        """BEGIN a sample."""
        return self.node.ask(Begin(TransferKind.SAMPLE, 40, 5, len(blob), zlib.crc32(blob)), transfer)

    def fill(self, blob: bytes, transfer: int) -> None:
        """Send its chunks."""
        for chunk in range(-(-len(blob) // 40)):
            self.node.feed(encode(FrameType.DATA, transfer, chunk, blob[chunk * 40 : (chunk + 1) * 40]))

    def offer(self, blob: bytes, transfer: int = 50) -> Message:
        """Send all of a sample; return the answer to COMMIT."""
        assert self.announce(blob, transfer).type == FrameType.ACK
        self.fill(blob, transfer)
        return self.node.ask(Commit(5), transfer)

    def send(self, position: int, seed: int = SETUP.seed) -> Message:
        """Send the sample at a position."""
        return self.offer(sample(SHARE, seed, position))

    @property
    def done(self) -> int:
        """Ask how far it is."""
        status = self.node.ask(StatusRequest(), 201)
        assert isinstance(status, Status)
        return status.done


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> str:
    """Every way to train."""
    return str(request.param)


@pytest.fixture
def streamed(way: str, compile_shared: CompileShared, stream_builds: dict[str, Build]) -> Streamed:
    """A streaming node; its port has samples all the same, which it must not touch."""
    built = stream_builds[way]
    node = MemoryNode(compile_shared(MEMORY, ("-O2", *built.flags)), built)
    return Streamed(node, fixed_weights(built.plan) if way == "fixed" else WEIGHTS)


def test_the_update_is_that_of_a_node_with_the_same_samples_in_flash(
    streamed: Streamed, way: str, request: pytest.FixtureRequest
) -> None:
    flash: MemoryNode = request.getfixturevalue(way)
    streamed.bring(State.DONE)
    flash.bring(State.DONE, streamed.blob, SETUP)
    assert streamed.node.fetch(Encoding.WEIGHTS) == flash.fetch(Encoding.WEIGHTS)
    assert streamed.node.ask(StatusRequest()).encode()[7:21] == flash.ask(StatusRequest()).encode()[7:21]
    assert streamed.node.fetch(Encoding.WEIGHTS)[1] != streamed.blob


def test_it_says_where_its_samples_come_from(streamed: Streamed) -> None:
    hello = streamed.node.ask(HelloRequest())
    assert isinstance(hello, Hello) and (hello.source, hello.samples) == (Source.STREAM, 0)
    streamed.bring(State.TRAINING)
    assert streamed.node.ask(LabelsRequest(0)) == Labels(0, (0,) * CLASSES)  # the host knows them


TABLE = [
    (Samples(SAMPLES), "WRONG_STATE READY LOADED TRAINING DONE"),
    (Samples(SAMPLES + 1), "WRONG_STATE READY LOADED WRONG_STATE WRONG_STATE"),
    (Samples(2**31), "WRONG_STATE UNSUPPORTED UNSUPPORTED WRONG_STATE WRONG_STATE"),
    (Begin(2, 72, 5, 42, 1), "WRONG_STATE WRONG_STATE WRONG_STATE ACK ACK"),
    (Begin(2, 72, 5, 41, 1), "WRONG_STATE WRONG_STATE WRONG_STATE WRONG_SIZE WRONG_SIZE"),
    (Begin(2, 75, 5, 42, 1), "WRONG_STATE WRONG_STATE WRONG_STATE WRONG_SIZE WRONG_SIZE"),
    (Begin(2, 72, 6, 42, 1), "WRONG_STATE WRONG_ROUND WRONG_ROUND WRONG_ROUND WRONG_ROUND"),
    (Begin(3, 72, 5, 42, 1), "WRONG_STATE UNSUPPORTED UNSUPPORTED UNSUPPORTED UNSUPPORTED"),
]


@pytest.mark.parametrize("way", ["fused"], indirect=True)
@pytest.mark.parametrize(
    ("message", "before", "expected"),
    [
        pytest.param(message, state, cell, id=f"{message}-{state.name}")
        for message, row in TABLE
        for state, cell in zip(State, row.split(), strict=True)
    ],
)
def test_every_request_in_every_state_twice(streamed: Streamed, message: Message, before: State, expected: str) -> None:
    streamed.bring(before)
    for _ in range(2):
        reply = streamed.node.ask(message)
        if isinstance(reply, Error):
            assert ErrorCode(reply.code).name == expected
        else:
            assert expected == (State(reply.state).name if isinstance(reply, Status) else reply.type.name)
        assert streamed.node.state() == before


@pytest.mark.parametrize("way", ["fused"], indirect=True)
def test_without_samples_there_is_nothing_to_train(streamed: Streamed) -> None:
    streamed.bring(State.LOADED)
    assert refusal(streamed.node.ask(Train(5))) == ErrorCode.NO_SAMPLES
    streamed.node.ask(Samples(SAMPLES))
    streamed.node.ask(setup(round=6))  # another round: the number is forgotten
    status = streamed.node.ask(StatusRequest())
    assert isinstance(status, Status) and status.total == 0


def changed(blob: bytes, position: int | None = None, label: int | None = None) -> bytes:
    """Return a sample with another position or label."""
    head = blob[:4] if position is None else position.to_bytes(4, "little")
    return head + (blob[4:6] if label is None else label.to_bytes(2, "little")) + blob[6:]


@pytest.mark.parametrize("way", ["fused"], indirect=True)
def test_what_is_not_the_next_sample_is_refused_and_changes_nothing(streamed: Streamed) -> None:
    streamed.bring(State.TRAINING)
    first = sample(SHARE, SETUP.seed, 0)
    before = streamed.node.array("model_weights").tobytes()
    for position in (1, EPOCHS * SAMPLES, 2**32 - 1):
        assert streamed.offer(changed(first, position)) == Error(ErrorCode.WRONG_POSITION, 0)
    for label in (CLASSES, 2**16 - 1):
        assert streamed.offer(changed(first, label=label)) == Error(ErrorCode.WRONG_LABEL, CLASSES)
    damaged = bytes(42)
    streamed.announce(first, 60)
    streamed.fill(damaged, 60)
    assert streamed.node.ask(Commit(5), 60) == Error(ErrorCode.BAD_CRC, zlib.crc32(damaged))
    streamed.announce(first, 61)
    assert streamed.node.ask(Commit(5), 61) == Ack(0, 0)  # its chunks are missing
    assert (streamed.done, streamed.node.array("model_weights").tobytes()) == (0, before)
    assert streamed.send(0).type == FrameType.STATUS and streamed.done == 1


@pytest.mark.parametrize("way", ["fused"], indirect=True)
def test_a_sample_that_comes_again_is_trained_once(streamed: Streamed) -> None:
    streamed.bring(State.TRAINING)
    for position in range(EPOCHS * SAMPLES):
        for transfer in (70, 70, 71):  # a lost answer; then a host that came back
            status = streamed.offer(sample(SHARE, SETUP.seed, position), transfer)
            assert isinstance(status, Status)
            assert streamed.node.ask(Commit(5), transfer).type == FrameType.STATUS
        after = streamed.node.array("model_weights").tobytes()
        assert streamed.done == position + 1
    assert streamed.node.state() == State.DONE
    assert streamed.send(EPOCHS * SAMPLES - 1).type == FrameType.STATUS
    assert streamed.offer(changed(sample(SHARE, 1, 0), EPOCHS * SAMPLES)) == Error(
        ErrorCode.WRONG_POSITION, EPOCHS * SAMPLES
    )
    assert streamed.node.array("model_weights").tobytes() == after


@pytest.mark.parametrize("way", ["fused"], indirect=True)
@pytest.mark.parametrize("transfer", [MemoryNode.TRANSFER, 33], ids=["one number for both", "its own"])
def test_a_host_that_comes_back_goes_on_where_it_was(streamed: Streamed, transfer: int) -> None:
    streamed.bring(State.TRAINING)
    for position in range(10):
        streamed.send(position)
    half = sample(SHARE, SETUP.seed, 10)
    streamed.announce(half, transfer)
    streamed.node.feed(encode(FrameType.DATA, transfer, 0, half[:40]))
    for request in (SETUP, begin_of(WEIGHTS), Commit(5), Samples(SAMPLES), Train(5)):
        reply = streamed.node.ask(request, MemoryNode.TRANSFER)
        assert reply.type == (FrameType.ACK if isinstance(request, Begin) else FrameType.STATUS)
        assert (streamed.node.state(), streamed.done) == (State.TRAINING, 10)
    for position in range(10, EPOCHS * SAMPLES):
        streamed.send(position)
    back = streamed.node.fetch(Encoding.WEIGHTS)
    streamed.node.boot()
    streamed.bring(State.DONE)
    assert streamed.node.fetch(Encoding.WEIGHTS) == back
