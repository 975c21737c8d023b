"""Whatever a wire does and in whatever order, a transfer arrives to the bit, and the decoder believes only frames."""

from __future__ import annotations

import random
from collections import deque

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from coordinator.link.frames import Decoder, Frame, encode
from coordinator.link.transfer import Receiver, Sender

BYTE = st.integers(0, 255)
STEP = 0.05  # seconds between two things that happen
SLACK = 200  # steps that a transfer takes at most once the wire is good, besides one a chunk


class TransferMachine(RuleBasedStateMachine):
    """A Sender and a Receiver, and between them queues from which anything may come in any order, twice or never."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.down: deque[tuple[int, bytes]] = deque()  # chunks
        self.up: deque[tuple[int, int]] = deque()  # acknowledgements

    @initialize(size=st.integers(0, 4000), payload=st.integers(1, 248))
    def begin(self, size: int, payload: int) -> None:
        self.blob = random.Random(size).randbytes(size)
        self.payload = payload
        self.receiver = Receiver(size, payload, lambda: self.now)
        self.resume()

    def resume(self) -> None:
        """A sender that knows nothing, as after a restart of its side."""
        self.sender = Sender(self.blob, self.payload, lambda: self.now)
        self.up.clear()
        self.acknowledge()

    def send(self) -> None:
        """Put what is ready on the wire."""
        self.down.extend((chunk, bytes(data)) for chunk, data in self.sender.ready())

    def acknowledge(self) -> None:
        """Put an acknowledgement on the wire."""
        next, map, _ = self.receiver.acknowledgement()
        self.up.append((next, map))

    @rule()
    def send_what_is_ready(self) -> None:
        self.send()

    @precondition(lambda self: self.down)
    @rule(place=st.integers(0, 40), times=st.sampled_from([0, 1, 1, 1, 2]))
    def a_chunk_arrives(self, place: int, times: int) -> None:
        self.down.rotate(-(place % len(self.down)) if place > 20 else 0)  # mostly in order
        chunk, data = self.down.popleft()
        for _ in range(times):
            self.receiver.accept(chunk, data)
            self.acknowledge()

    @precondition(lambda self: self.up)
    @rule(place=st.integers(0, 40), times=st.sampled_from([0, 1, 1, 1, 2]))
    def an_acknowledgement_arrives(self, place: int, times: int) -> None:
        self.up.rotate(-(place % len(self.up)) if place > 20 else 0)
        next, map = self.up.popleft()
        for _ in range(times):
            self.sender.acknowledge(next, map)

    @rule(chunk=st.integers(0, 70_000), length=st.integers(0, 255), map=st.integers(0, 2**32 - 1))
    def nonsense_arrives(self, chunk: int, length: int, map: int) -> None:
        right = min(self.payload, max(0, len(self.blob) - chunk * self.payload))
        if length != right:  # with the right length it would be a chunk, which a CRC-32 over all of them finds
            assert not self.receiver.accept(chunk, bytes(length))
        if chunk > self.sender.count:
            self.sender.acknowledge(chunk, map)

    @rule(seconds=st.floats(0, 3))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        for side in (self.sender, self.receiver):
            if self.now >= side.deadline:
                side.expire()

    @rule(payload=st.integers(1, 248))
    def chunks_change_their_length(self, payload: int) -> None:
        """What is under way has another transfer number and is lost."""
        self.payload = payload
        self.sender.resize(payload)
        self.receiver.resize(payload)
        self.down.clear()
        self.up.clear()
        self.acknowledge()

    @rule()
    def the_sender_starts_anew(self) -> None:
        self.resume()

    @invariant()
    def what_is_there_is_right(self) -> None:
        if hasattr(self, "receiver"):
            whole = min(self.receiver.next * self.payload, len(self.blob))
            assert self.receiver.blob[:whole] == self.blob[:whole]
            assert self.receiver.done == (whole == len(self.blob))
            assert self.receiver.next <= self.receiver.count
            assert self.sender.next <= self.receiver.next  # nothing counts as arrived that is not there

    def teardown(self) -> None:
        """From now on the wire is good: the rest arrives, soon."""
        if not hasattr(self, "receiver"):
            return
        for _ in range(self.sender.count + SLACK):
            self.send()
            while self.down:
                self.receiver.accept(*self.down.popleft())
                self.acknowledge()
            while self.up:
                self.sender.acknowledge(*self.up.popleft())
            if self.sender.done:
                break
            self.time_passes(STEP)
        assert self.sender.done and self.receiver.done
        assert self.receiver.blob == self.blob


class DecoderMachine(RuleBasedStateMachine):
    """Frames, noise and text in pieces of any size: what comes out is what was whole."""

    def __init__(self) -> None:
        super().__init__()
        self.decoder = Decoder()
        self.wire = b""
        self.sent: list[Frame] = []
        self.taken: list[Frame] = []
        self.clean = True  # the wire ends in a delimiter

    @rule(type=BYTE, transfer=BYTE, chunk=st.integers(0, 65535), payload=st.binary(max_size=248))
    def a_frame(self, type: int, transfer: int, chunk: int, payload: bytes) -> None:
        self.wire += (b"" if self.clean else b"\0") + encode(type, transfer, chunk, payload)
        self.sent.append(Frame(type, transfer, chunk, payload))
        self.clean = True

    @rule(noise=st.binary(min_size=1, max_size=600).map(lambda noise: noise.replace(b"\0", b"\1")))
    def noise(self, noise: bytes) -> None:
        self.wire += noise
        self.clean = False

    @rule(lines=st.integers(1, 100))
    def a_board_that_talks(self, lines: int) -> None:
        self.wire += b"rst:0x1 (POWERON_RESET)\r\n" * lines
        self.clean = False

    @rule(size=st.integers(1, 300))
    def a_piece_is_read(self, size: int) -> None:
        piece, self.wire = self.wire[:size], self.wire[size:]
        self.taken += self.decoder.feed(piece)

    @invariant()
    def only_what_was_sent_comes_in_its_order(self) -> None:
        assert self.taken == self.sent[: len(self.taken)]
        assert len(self.decoder._rest) < 600  # a board that never ends a line does not fill the memory

    def teardown(self) -> None:
        self.taken += self.decoder.feed(self.wire + b"\0")
        assert self.taken == self.sent


TestTransfers = TransferMachine.TestCase
TestTransfers.settings = settings(max_examples=150, stateful_step_count=60, deadline=None)
TestDecoder = DecoderMachine.TestCase
TestDecoder.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
