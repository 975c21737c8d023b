"""Every message of the link, declared once; the Python codec and the C header are made from these classes.

A message is the payload of one frame. Integers and floats are little-endian and packed without gaps; text is UTF-8,
padded with zeros to its width. A `tail` repeats its element to the end of the payload. How frames and transfers work
is in docs/protocol.md.
"""

from __future__ import annotations

import enum
import struct
from dataclasses import dataclass, fields
from functools import cache
from typing import Annotated, ClassVar, Self, get_args, get_type_hints

from boards import MTU_RANGE, WINDOW_RANGE

PROTOCOL_VERSION = 5
MTU_MIN, MTU_MAX = MTU_RANGE[0], MTU_RANGE[-1]
WINDOW_MAX = WINDOW_RANGE[-1]
FRAME_OVERHEAD = 8  # bytes of a frame on top of its payload
MAC_BYTES = NONCE_BYTES = 16
NO_LABEL = 0xFFFF  # of a proxy image among streamed samples
Q8_BLOCK = 256  # elements that share one scale in delta_q8

u8 = Annotated[int, "B"]
u16 = Annotated[int, "H"]
u32 = Annotated[int, "I"]
f32 = Annotated[float, "f"]
id8 = Annotated[bytes, "8s"]
bytes16 = Annotated[bytes, "16s"]
text12 = Annotated[str, "12s"]
text25 = Annotated[str, "25s"]
u16_tail = Annotated[tuple[int, ...], "*H"]
f32_tail = Annotated[tuple[float, ...], "*f"]
text_tail = Annotated[str, "*s"]


class FrameType(enum.IntEnum):
    """First byte of a frame. Below 0x80 the host may send it; replies and reports of a node have the top bit set."""

    HELLO_REQUEST = 0x01
    LABELS_REQUEST = 0x02
    SETUP = 0x03
    ADJUST = 0x04
    BEGIN = 0x05
    COMMIT = 0x06
    TRAIN = 0x07
    FETCH = 0x08
    STATUS_REQUEST = 0x09
    ABORT = 0x0A
    BAUD = 0x0B
    SAMPLES = 0x0C
    CHALLENGE = 0x0D
    AUTHENTICATE = 0x0E
    DATA = 0x10
    ACK = 0x11
    HELLO = 0x81
    LABELS = 0x82
    STATUS = 0x83
    OFFER = 0x84
    LOG = 0x85
    ERROR = 0x86
    PROOF = 0x87


class State(enum.IntEnum):
    """What a node is doing, as STATUS reports it."""

    IDLE = 0
    READY = 1  # SETUP accepted, weights missing
    LOADED = 2  # weights are here and their CRC-32 holds
    TRAINING = 3
    DONE = 4  # the update can be fetched


class Encoding(enum.IntEnum):
    """How an update travels. HELLO's `encodings` is a set of bits, 1 << encoding."""

    WEIGHTS = 0  # weights after training, laid out as they came; the host subtracts what it sent
    DELTA_F32 = 1  # float32 differences
    DELTA_Q8 = 2  # blocks of Q8_BLOCK elements: a float32 scale, then int8 each, stochastically rounded


def encoded_size(encoding: Encoding, parameters: int) -> int:
    """Return the bytes that an update of so many float32 parameters has in this encoding."""
    if encoding is Encoding.DELTA_Q8:
        return parameters + 4 * -(-parameters // Q8_BLOCK)
    return 4 * parameters


class TransferKind(enum.IntEnum):
    """What BEGIN announces."""

    WEIGHTS = 1
    SAMPLE = 2  # u32 position, counted over all epochs of the round; u16 label or NO_LABEL; the features
    TARGETS = 3  # soft targets of the proxy images that the node holds: u8 [proxy, classes], in 1/255


class Source(enum.IntEnum):
    """Where a node's samples come from."""

    FLASH = 0  # compiled in
    STREAM = 1  # the host sends each one as its turn comes
    SENSOR = 2  # captured on the board, between rounds


class Kernel(enum.IntEnum):
    """The node's arithmetic, and with it how weights travel: see docs/protocol.md."""

    F32 = 0
    FIXED = 1


class ErrorCode(enum.IntEnum):
    """Why a node refuses or stops; `detail` of ERROR is explained beside each."""

    MALFORMED = 1  # detail: the frame type whose payload has the wrong length
    UNKNOWN = 2  # detail: the frame type
    WRONG_STATE = 3  # detail: the node's State
    WRONG_ROUND = 4  # detail: the node's round
    WRONG_SIZE = 5  # detail: the number of bytes expected
    BAD_CRC = 6  # detail: the CRC-32 computed; the transfer must be sent again
    UNSUPPORTED = 7  # detail: the encoding or kind asked for; 0: batch, epochs, learning rate or number of samples
    NOT_FINITE = 8  # detail: the weight, in fixed point the exponent, or in training the sample with which it began
    NO_SAMPLES = 9
    WRONG_POSITION = 10  # detail: the position expected of the next sample
    WRONG_LABEL = 11  # detail: the number of classes; or the label is NO_LABEL where it must not be, or is not
    UNAUTHENTICATED = 12  # detail: the frame type; the node has a key, which the host must prove to have
    WRONG_MAC = 13  # detail: the frame type; the transfer must be sent again
    NO_TARGETS = 14  # the round rehearses, and the soft targets are missing


class ProtocolError(ValueError):
    """A payload that is not the message its frame type says."""


@dataclass(frozen=True)
class Message:
    """Base of all messages; subclasses declare `type` and the fields in wire order."""

    type: ClassVar[FrameType]

    @classmethod
    @cache
    def layout(cls) -> tuple[str, str]:
        """Return the `struct` format of the fixed part and of one tail element ('' if there is no tail)."""
        hints = get_type_hints(cls, include_extras=True)
        codes = [get_args(hints[field.name])[1] for field in fields(cls)]
        tail = codes.pop()[1:] if codes and codes[-1].startswith("*") else ""
        return "<" + "".join(codes), tail

    @classmethod
    @cache
    def _padded(cls) -> tuple[int, ...]:
        """Return the places of the fields that hold text padded with zeros."""
        hints = get_type_hints(cls)
        tail = cls.layout()[1]
        places = [place for place, field in enumerate(fields(cls)) if hints[field.name] is str]
        return tuple(places[:-1] if tail == "s" else places)

    def encode(self) -> bytes:
        """Return the payload."""
        fixed, tail = self.layout()
        values = [v.encode() if isinstance(v, str) else v for v in (getattr(self, f.name) for f in fields(self))]
        if not tail:
            return struct.pack(fixed, *values)
        last = values.pop()
        packed = last if tail == "s" else struct.pack(f"<{len(last)}{tail}", *last)
        return struct.pack(fixed, *values) + packed

    @classmethod
    def decode(cls, payload: bytes) -> Self:
        """Return the message in `payload`; raises ProtocolError if its length or text is wrong."""
        fixed, tail = cls.layout()
        size = struct.calcsize(fixed)
        rest = len(payload) - size
        width = struct.calcsize("<" + tail) if tail else 0
        if rest < 0 or (rest and not tail) or (width and rest % width):
            raise ProtocolError(f"{cls.type.name} of {len(payload)} bytes; expected {size}{' or more' if tail else ''}")
        values: list[object] = list(struct.unpack(fixed, payload[:size]))
        if tail == "s":
            values.append(_text(payload[size:]))
        elif tail:
            values.append(struct.unpack(f"<{rest // width}{tail}", payload[size:]))
        for place in cls._padded():
            text = values[place]
            if isinstance(text, bytes):
                values[place] = _text(text.rstrip(b"\0"))
        return cls(*values)


def _text(data: bytes) -> str:
    """Return text as it may be shown: what a terminal would obey comes out as U+FFFD."""
    return "".join(letter if letter.isprintable() else "\ufffd" for letter in data.decode(errors="replace"))


@dataclass(frozen=True)
class HelloRequest(Message):
    """Who are you? Answered by HELLO in any state."""

    type = FrameType.HELLO_REQUEST
    protocol: u8 = PROTOCOL_VERSION


@dataclass(frozen=True)
class Hello(Message):
    """Everything the host must know before it trusts a node; 74 bytes, the smallest mtu."""

    type = FrameType.HELLO
    protocol: u8
    mtu: u8  # largest payload, both ways
    window: u8  # chunks it keeps in flight; the host may WINDOW_MAX
    encodings: u8  # bits, 1 << Encoding
    boot: u32  # another number at every boot
    uid: id8
    firmware: u32  # of the sources it was built from
    model: u32  # of the sub-model it was built for: Plan.model_hash
    samples: u32
    proxy: u16  # images without labels that it holds to rehearse
    batch: u8  # largest; 1: no gradient buffer
    kernel: u8  # Kernel
    parameters: u32  # trainable
    source: u8  # Source of its samples
    board: text25
    tier: text12


@dataclass(frozen=True)
class Challenge(Message):
    """Prove that you have the key. Answered by PROOF, or by ERROR (UNKNOWN) if the node has none."""

    type = FrameType.CHALLENGE
    nonce: bytes16  # the host's: random, another one each time


@dataclass(frozen=True)
class Proof(Message):
    """The node has the key, and its HELLO is as it said; now the host is to prove that it has it too."""

    type = FrameType.PROOF
    nonce: bytes16  # the node's
    mac: bytes16


@dataclass(frozen=True)
class Authenticate(Message):
    """The host has the key as well: a session begins. Answered by STATUS, or by ERROR (UNAUTHENTICATED)."""

    type = FrameType.AUTHENTICATE
    mac: bytes16


@dataclass(frozen=True)
class LabelsRequest(Message):
    """How many samples of each label? For classes from `first` on."""

    type = FrameType.LABELS_REQUEST
    first: u16


@dataclass(frozen=True)
class Labels(Message):
    """Samples of each label from `first` on, as many as fit a frame; ask again for the rest."""

    type = FrameType.LABELS
    first: u16
    counts: u16_tail


@dataclass(frozen=True)
class Setup(Message):
    """Begin a round: clears the adjustment and what is left of another round. Answered by STATUS (READY)."""

    type = FrameType.SETUP
    round: u16
    seed: u32
    learning_rate: f32  # > 0, of the mean gradient of a batch; a node without gradient buffer divides it by `batch`
    momentum: f32
    epochs: u8
    batch: u8
    encoding: u8  # wanted for the update
    nested: u8  # 1: train every narrower width as well
    rehearsals: u8 = 0  # times that each proxy image the node holds is trained on in an epoch
    max_norm: f32 = 0.0  # bound of a batch's mean gradient, where there is a gradient buffer; 0: none
    shift: u8 = 0  # pixels by which each image is moved at random, at most, where the node has a place for that


@dataclass(frozen=True)
class Adjust(Message):
    """Logit adjustment of the classes from `first` on. Answered by STATUS."""

    type = FrameType.ADJUST
    first: u16
    values: f32_tail


@dataclass(frozen=True)
class Begin(Message):
    """A transfer to the node follows; the frame's `transfer` names it from here on. Answered by ACK, also when the same
    blob is under way already, perhaps in chunks of another length: the ACK tells where to go on."""

    type = FrameType.BEGIN
    kind: u8
    payload: u8  # bytes of a chunk, at most the node's mtu; smaller where the wire is bad
    round: u16
    size: u32
    crc: u32


@dataclass(frozen=True)
class Commit(Message):
    """All chunks were sent: check the CRC-32 and take the transfer. Answered by STATUS (LOADED; TRAINING of a
    sample, which is trained only then) or ERROR."""

    type = FrameType.COMMIT
    round: u16
    mac: bytes16 = bytes(MAC_BYTES)  # zeros without a key


@dataclass(frozen=True)
class Samples(Message):
    """How many samples an epoch has; between SETUP and TRAIN, to a node whose samples are streamed. Answered by
    STATUS."""

    type = FrameType.SAMPLES
    count: u32


@dataclass(frozen=True)
class Train(Message):
    """Start. Answered by STATUS (TRAINING, or DONE if it is); more STATUS follow unasked, at most two a second, and one
    at the end. A streaming node trains each sample as it comes."""

    type = FrameType.TRAIN
    round: u16


@dataclass(frozen=True)
class Fetch(Message):
    """Send the update of this round as transfer `transfer`, from the frame's chunk on. Answered by OFFER, and DATA."""

    type = FrameType.FETCH
    round: u16
    encoding: u8
    payload: u8  # bytes of a chunk, as in BEGIN


@dataclass(frozen=True)
class Offer(Message):
    """The update to come."""

    type = FrameType.OFFER
    round: u16
    encoding: u8
    size: u32
    crc: u32
    samples: u32  # it was trained on, one epoch's worth
    loss: f32  # mean over the last epoch
    saturated: u32  # as in STATUS
    mac: bytes16 = bytes(MAC_BYTES)  # zeros without a key


@dataclass(frozen=True)
class StatusRequest(Message):
    """How far are you? Answered by STATUS in any state."""

    type = FrameType.STATUS_REQUEST


@dataclass(frozen=True)
class Status(Message):
    """State and progress; also sent unasked (transfer 0) while training."""

    type = FrameType.STATUS
    state: u8
    round: u16
    boot: u32
    done: u32  # samples of this round so far, all epochs
    total: u32
    loss: f32  # running mean of this epoch
    rejected: u16  # frames dropped since boot
    saturated: u32  # times in this round that a fixed-point weight or logit was held at its limit


@dataclass(frozen=True)
class Abort(Message):
    """Drop the round. Answered by STATUS (IDLE)."""

    type = FrameType.ABORT


@dataclass(frozen=True)
class Baud(Message):
    """Change the wire's rate after the reply; a node that hears nothing valid for 2 s at the new rate goes back.
    Answered by STATUS, or by ERROR (UNSUPPORTED)."""

    type = FrameType.BAUD
    rate: u32


@dataclass(frozen=True)
class Ack(Message):
    """Acknowledges a transfer's chunks, either way; the frame's `chunk` is the next one needed. A node's ACK answers
    each DATA; the host's asks for more."""

    type = FrameType.ACK
    map: u32  # bit i: chunk `next + 1 + i` has arrived
    stalled: u8  # host: 1 if nothing came for a while, send again all in flight; node: number of the COMMIT it answers


@dataclass(frozen=True)
class Log(Message):
    """A line for people."""

    type = FrameType.LOG
    text: text_tail


@dataclass(frozen=True)
class Error(Message):
    """Refusal of a request (its transfer), or a stop (transfer 0)."""

    type = FrameType.ERROR
    code: u8
    detail: u32


MESSAGES: tuple[type[Message], ...] = tuple(Message.__subclasses__())
BY_TYPE: dict[int, type[Message]] = {message.type: message for message in MESSAGES}
