"""A node with a key: who may use it, what it takes, and what proves that an update is its own."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pytest

from codegen.protocol import (
    BY_TYPE,
    Abort,
    Adjust,
    Authenticate,
    Baud,
    Begin,
    Challenge,
    Commit,
    Encoding,
    Error,
    ErrorCode,
    Fetch,
    FrameType,
    Hello,
    HelloRequest,
    Labels,
    LabelsRequest,
    Message,
    Offer,
    Proof,
    Samples,
    State,
    Status,
    StatusRequest,
    Train,
    TransferKind,
)
from coordinator.link.frames import encode
from tests.firmware.conftest import CompileShared
from tests.firmware.node.harness import (
    CLASSES,
    KEYED,
    MEMORY,
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

KEY = bytes(range(100, 132))
HOST = b"a host's nonce: "
TRANSFER = MemoryNode.TRANSFER


def mac(key: bytes, *parts: bytes, size: int = 16) -> bytes:
    """Return BLAKE2s as docs/protocol.md has it."""
    return hashlib.blake2s(b"".join(parts), key=key, digest_size=size).digest()


class Keyed:
    """A node with a key, and the host's part of it: every mac is made here of what the page says."""

    def __init__(self, node: MemoryNode, way: str) -> None:
        self.node, self.way = node, way
        parameters = node.built.parameters
        self.weights = fixed_weights(node.built.plan) if way == "fixed" else weights(parameters)
        self.setup = setup()
        self.adjustment = (0.0,) * CLASSES
        node.library.memory_key(KEY)
        node.boot()

    def challenge(self, nonce: bytes = HOST) -> Proof:
        proof = self.node.ask(Challenge(nonce))
        assert isinstance(proof, Proof)
        return proof

    def authenticate(self, nonce: bytes = HOST) -> None:
        proof = self.challenge(nonce)
        assert isinstance(self.node.ask(Authenticate(mac(KEY, b"host", nonce, proof.nonce))), Status)
        self.session = mac(KEY, b"sess", nonce, proof.nonce, size=32)

    @property
    def adjustments(self) -> bytes:
        """As this node keeps them; halves of 1/256 are in test_adjustments_are_hashed_as_they_are_kept."""
        if self.way == "fixed":
            return struct.pack(f"<{CLASSES}h", *(round(value * 256) for value in self.adjustment))
        return struct.pack(f"<{CLASSES}f", *self.adjustment)

    def down(self, blob: bytes, kind: TransferKind = TransferKind.WEIGHTS) -> bytes:
        begin = struct.pack("<BHI", kind, self.setup.round, len(blob))
        return mac(self.session, b"down", begin, self.setup.encode(), self.adjustments, blob)

    def up(self, offer: Offer, blob: bytes, labels: bytes, trained: int) -> bytes:
        parts = (self.setup.encode(), self.adjustments, struct.pack("<I", trained), offer.encode()[:-16], labels, blob)
        return mac(self.session, b"up  ", *parts)

    def begin(self) -> None:
        """Bring it to where only COMMIT is missing."""
        assert isinstance(self.node.ask(self.setup), Status)
        if any(self.adjustment):
            assert isinstance(self.node.ask(Adjust(0, self.adjustment)), Status)
        self.node.load(self.weights, self.setup.round)

    def commit(self, code: bytes) -> Message:
        return self.node.ask(Commit(self.setup.round, code), TRANSFER)

    def train(self) -> None:
        """A whole round but for its update."""
        self.begin()
        assert isinstance(self.commit(self.down(self.weights)), Status)
        assert isinstance(self.node.ask(Train(self.setup.round)), Status)
        self.node.finish()
        assert self.node.state() == State.DONE


@pytest.fixture(params=WAYS)
def keyed(request: pytest.FixtureRequest, builds: dict[str, Build], compile_shared: CompileShared) -> Iterator[Keyed]:
    """A node that has a key and has just booted, in each way to train."""
    library = compile_shared(MEMORY, ("-O2", KEYED, *builds[request.param].flags))
    yield Keyed(MemoryNode(library, builds[request.param]), request.param)
    library.memory_key(None)


@pytest.fixture
def streamed(stream_builds: dict[str, Build], compile_shared: CompileShared) -> Iterator[Keyed]:
    """The same for samples that the host sends."""
    library = compile_shared(MEMORY, ("-O2", KEYED, *stream_builds["fused"].flags))
    yield Keyed(MemoryNode(library, stream_builds["fused"]), "fused")
    library.memory_key(None)


# Who may use it

OPEN = (HelloRequest(), LabelsRequest(0), StatusRequest())
CLOSED = (
    setup(), Adjust(0, (0.0,)), Begin(1, 72, 5, 100, 0), Commit(5), Train(5), Fetch(5, 0, 72), Samples(3), Abort(),
    Baud(500000),
)  # fmt: skip


def test_before_the_host_has_authenticated_it_only_says_who_it_is(keyed: Keyed) -> None:
    for message in CLOSED:
        assert keyed.node.ask(message) == Error(ErrorCode.UNAUTHENTICATED, message.type)
    assert keyed.node.library.memory_rate() == 0
    for request, reply in zip(OPEN, (Hello, Labels, Status), strict=True):
        assert isinstance(keyed.node.ask(request), reply)
    keyed.authenticate()
    assert isinstance(keyed.node.ask(setup()), Status)


def test_proof_is_of_the_key_both_nonces_and_the_hello(keyed: Keyed) -> None:
    (frame,) = keyed.node.feed(encode(FrameType.HELLO_REQUEST, 1, 0, HelloRequest().encode()))
    proof = keyed.challenge()
    assert proof.mac == mac(KEY, b"node", HOST, proof.nonce, frame.payload)


def test_no_nonce_comes_twice(keyed: Keyed) -> None:
    nonces = {keyed.challenge(bytes([i]) * 16).nonce for i in range(50)} | {keyed.challenge(bytes(16)).nonce}
    keyed.node.boot()  # at the same millisecond
    nonces |= {keyed.challenge(bytes([i]) * 16).nonce for i in range(50)}
    assert len(nonces) == 101


def test_a_repeated_challenge_gets_the_same_proof(keyed: Keyed) -> None:
    assert keyed.challenge() == keyed.challenge()


def test_a_wrong_mac_opens_nothing(keyed: Keyed) -> None:
    refused = Error(ErrorCode.UNAUTHENTICATED, FrameType.AUTHENTICATE)
    assert keyed.node.ask(Authenticate(mac(KEY, b"host", bytes(32)))) == refused  # nobody has challenged it
    proof = keyed.challenge()
    right = mac(KEY, b"host", HOST, proof.nonce)
    swapped, other = mac(KEY, b"host", proof.nonce, HOST), mac(KEY[::-1], b"host", HOST, proof.nonce)
    flipped = [bytes([*right[:at], right[at] ^ 0x80, *right[at + 1 :]]) for at in range(16)]
    for wrong in (bytes(16), proof.mac, swapped, other, *flipped):
        assert keyed.node.ask(Authenticate(wrong)) == refused
        assert refusal(keyed.node.ask(setup())) == ErrorCode.UNAUTHENTICATED
    for _ in range(2):  # comes again when the answer was lost
        assert isinstance(keyed.node.ask(Authenticate(right)), Status)


def test_an_old_authentication_is_worth_nothing_after_another_challenge(keyed: Keyed) -> None:
    old = keyed.challenge()
    right = mac(KEY, b"host", HOST, old.nonce)
    keyed.challenge(HOST[::-1])
    assert refusal(keyed.node.ask(Authenticate(right))) == ErrorCode.UNAUTHENTICATED
    assert keyed.challenge().nonce != old.nonce  # the host's old nonce again
    assert refusal(keyed.node.ask(Authenticate(right))) == ErrorCode.UNAUTHENTICATED


def test_a_session_outlives_a_challenge_that_nobody_follows_up(keyed: Keyed) -> None:
    keyed.authenticate()
    keyed.challenge(HOST[::-1])
    assert refusal(keyed.node.ask(Authenticate(bytes(16)))) == ErrorCode.UNAUTHENTICATED
    keyed.begin()
    assert isinstance(keyed.commit(keyed.down(keyed.weights)), Status)


@pytest.mark.parametrize("type", [Challenge, Authenticate], ids=lambda message: message.__name__)
def test_wrong_lengths_are_malformed(keyed: Keyed, type: type[Message]) -> None:
    for length in (0, 15, 17, 74):
        frames = keyed.node.feed(encode(type.type, 3, 0, bytes(length)))
        assert [BY_TYPE[frame.type].decode(frame.payload) for frame in frames] == [
            Error(ErrorCode.MALFORMED, type.type)
        ]


def test_a_node_without_a_key_knows_nothing_of_keys(keyed: Keyed) -> None:
    keyed.node.library.memory_key(None)
    keyed.node.boot()
    for message in (Challenge(HOST), Authenticate(bytes(16))):
        assert keyed.node.ask(message) == Error(ErrorCode.UNKNOWN, message.type)
    keyed.begin()
    assert isinstance(keyed.commit(b"\x55" * 16), Status)  # nobody looks
    assert isinstance(keyed.node.ask(Train(5)), Status)
    keyed.node.finish()
    offer = keyed.node.ask(Fetch(5, 0, 72))
    assert isinstance(offer, Offer) and offer.mac == bytes(16)


# Weights to the node


def flip(code: bytes) -> bytes:
    return bytes([code[0] ^ 1, *code[1:]])


TAMPERED: dict[str, Callable[[Keyed], bytes]] = {
    "mac": lambda keyed: flip(keyed.down(keyed.weights)),
    "no mac": lambda _: bytes(16),
    "blob": lambda keyed: keyed.down(keyed.weights[:-1] + b"\1"),
    "kind": lambda keyed: keyed.down(keyed.weights, TransferKind.SAMPLE),
    "setup": lambda keyed: replaced(keyed, setup=replace(keyed.setup, learning_rate=5.0)),
    "round": lambda keyed: replaced(keyed, setup=replace(keyed.setup, round=6)),
    "adjustment": lambda keyed: replaced(keyed, adjustment=(0.5, 0.0, 0.0)),
    "session": lambda keyed: replaced(keyed, session=keyed.session[::-1]),
    "node's key": lambda keyed: replaced(keyed, session=KEY),
}


def replaced(keyed: Keyed, **changes: object) -> bytes:
    """Return the mac of the weights under other circumstances."""
    before = dict(vars(keyed))
    vars(keyed).update(changes)
    code = keyed.down(keyed.weights)
    vars(keyed).update(before)
    return code


@pytest.mark.parametrize("tampered", TAMPERED)
def test_only_the_hosts_weights_are_taken(keyed: Keyed, tampered: str) -> None:
    keyed.authenticate()
    keyed.begin()
    wrong = Error(ErrorCode.WRONG_MAC, FrameType.COMMIT)
    assert keyed.commit(TAMPERED[tampered](keyed)) == wrong
    assert keyed.node.state() == State.READY
    assert refusal(keyed.node.ask(Train(5))) == ErrorCode.WRONG_STATE
    keyed.node.load(keyed.weights)  # begins anew
    assert isinstance(keyed.commit(keyed.down(keyed.weights)), Status)
    assert keyed.node.state() == State.LOADED


# The update to the host


@pytest.mark.parametrize("adjustment", [(0.0, 0.0, 0.0), (0.25, -1.5, 3.0)])
def test_an_update_is_proved_to_be_the_nodes(keyed: Keyed, adjustment: tuple[float, ...]) -> None:
    keyed.authenticate()
    keyed.adjustment = adjustment
    keyed.train()
    counts = np.bincount(samples()[1], minlength=CLASSES).astype("<u2").tobytes()
    trained = begin_of(keyed.weights).crc
    for encoding in Encoding if keyed.way == "accumulating" else (Encoding.WEIGHTS,):
        offer, blob = keyed.node.fetch(encoding)
        assert offer.mac == keyed.up(offer, blob, counts, trained)


def test_adjustments_are_hashed_as_they_are_kept(keyed: Keyed) -> None:
    asked = (0.5 / 256, -1.5 / 256, 1e9)
    keyed.authenticate()
    kept = (1 / 256, -2 / 256, 32767 / 256)
    keyed.adjustment = kept if keyed.way == "fixed" else struct.unpack("<3f", struct.pack("<3f", *asked))
    keyed.node.ask(keyed.setup)
    keyed.node.ask(Adjust(0, asked))
    keyed.node.load(keyed.weights)
    assert isinstance(keyed.commit(keyed.down(keyed.weights)), Status)


def test_a_round_goes_on_in_another_session(keyed: Keyed) -> None:
    keyed.authenticate()
    keyed.begin()
    keyed.authenticate(HOST[::-1])  # the cable was out
    assert isinstance(keyed.commit(keyed.down(keyed.weights)), Status)
    assert isinstance(keyed.node.ask(Train(5)), Status)
    keyed.node.finish()
    first, blob = keyed.node.fetch(Encoding.WEIGHTS)
    keyed.authenticate(HOST)
    for message in (keyed.setup, begin_of(keyed.weights), Commit(5, keyed.down(keyed.weights)), Train(5)):
        keyed.node.ask(message, TRANSFER)
        assert keyed.node.state() == State.DONE
    again, same = keyed.node.fetch(Encoding.WEIGHTS)
    assert same == blob and again.mac != first.mac
    counts = np.bincount(samples()[1], minlength=CLASSES).astype("<u2").tobytes()
    assert again.mac == keyed.up(again, blob, counts, begin_of(keyed.weights).crc)


# Streams


def test_streamed_samples_have_macs_too(streamed: Keyed) -> None:
    streamed.authenticate()
    streamed.setup = setup(epochs=1)
    streamed.begin()
    assert isinstance(streamed.commit(streamed.down(streamed.weights)), Status)
    assert isinstance(streamed.node.ask(Samples(2)), Status)
    assert isinstance(streamed.node.ask(Train(5)), Status)
    features, labels = samples()
    for position in range(2):
        blob = struct.pack("<IH", position, labels[position]) + features[position].tobytes()
        code = streamed.down(blob, TransferKind.SAMPLE)
        for answer, given in ((ErrorCode.WRONG_MAC, flip(code)), (None, code)):
            begin = replace(begin_of(blob), kind=TransferKind.SAMPLE)
            streamed.node.ask(begin, 40)
            streamed.node.feed(encode(FrameType.DATA, 40, 0, blob))
            reply = streamed.node.ask(Commit(5, given), 40)
            assert refusal(reply) == answer if answer else isinstance(reply, Status)
    streamed.node.finish()
    offer, blob = streamed.node.fetch(Encoding.WEIGHTS)
    assert offer.mac == streamed.up(offer, blob, b"", begin_of(streamed.weights).crc)
