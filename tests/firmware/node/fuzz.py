"""Bytes that a node must survive: rounds that go well, and every way to disturb them."""

from __future__ import annotations

import dataclasses
import random
import struct
from collections.abc import Iterator

from codegen.protocol import (
    Abort,
    Ack,
    Adjust,
    Authenticate,
    Baud,
    Begin,
    Challenge,
    Commit,
    Encoding,
    Fetch,
    FrameType,
    HelloRequest,
    LabelsRequest,
    Message,
    Setup,
    StatusRequest,
    Train,
)
from coordinator.link.frames import encode
from tests.firmware.node.harness import begin_of, frame_of, setup

EDGES = (0, 1, 2, 5, 74, 75, 127, 128, 255, 256, 1196, 32767, 32768, 65535, 2**31, 2**32 - 1)


def hostile_stream(source: random.Random, count: int, weights: bytes) -> Iterator[bytes]:
    """Yield `count` pieces of a byte stream to a node that takes these weights."""
    plan: list[bytes] = []
    calm = False  # now and then nothing disturbs a round: what comes next meets a node that trains, or is done
    for _ in range(count):
        if not plan:
            plan, calm = list(_round(source, weights)), source.random() < 0.1
        choice = 0.0 if calm else source.random()
        if choice < 0.6:
            yield plan.pop(0)
        elif choice < 0.75:
            yield _odd_request(source, weights)
        elif choice < 0.85:
            yield _any_frame(source)
        elif choice < 0.95:
            yield _damaged(source, plan.pop(0))
        else:
            yield source.randbytes(source.randrange(300))


def _round(source: random.Random, weights: bytes) -> Iterator[bytes]:
    """A round as it should be; chunks are lost on the way if something disturbs it."""
    round = source.randrange(4)
    payload = source.choice([74, 40, 64])
    yield frame_of(setup(round, epochs=source.choice([1, 1, 20]), batch=source.choice([1, 4, 255])), 1)
    yield frame_of(begin_of(weights, round, payload), 2)
    for _ in range(2):  # twice, since some of them are damaged
        for at in range(0, len(weights), payload):
            yield encode(FrameType.DATA, 2, at // payload, weights[at : at + payload])
    yield frame_of(Commit(round), 2)
    yield frame_of(Train(round), 4)
    for _ in range(15):
        yield frame_of(StatusRequest(), 5)
    encoding = source.choice(list(Encoding))
    yield frame_of(Fetch(round, encoding, payload), 6)
    for next in range(0, 17, 2):
        yield encode(FrameType.ACK, 6, next, Ack(0, source.randrange(2)).encode())


def _odd_request(source: random.Random, weights: bytes) -> bytes:
    """A well-formed request whose numbers are odd."""
    message: Message = source.choice(
        (
            HelloRequest(), LabelsRequest(0), setup(), Adjust(0, (1.0, 2.0)), begin_of(weights), Begin(1, 72, 0, 0, 0),
            Commit(0), Train(0), Fetch(0, 0, 72), StatusRequest(), Abort(), Baud(1), Ack(0, 0),
            Challenge(source.randbytes(16)), Authenticate(source.randbytes(16)),
        )
    )  # fmt: skip
    changes: dict[str, int | float] = {}
    for field in dataclasses.fields(message):
        if isinstance(getattr(message, field.name), int) and source.random() < 0.5:
            changes[field.name] = source.choice(EDGES)
    if isinstance(message, Setup) and source.random() < 0.3:
        changes["learning_rate"] = struct.unpack("<f", source.randbytes(4))[0]
    try:
        payload = dataclasses.replace(message, **changes).encode()
    except struct.error:  # an edge too far for the field
        payload = source.randbytes(len(message.encode()))
    return encode(message.type, source.randrange(8), source.choice(EDGES[:14]), payload)


def _any_frame(source: random.Random) -> bytes:
    """A valid frame of any type and content."""
    type = source.choice([*FrameType, source.randrange(256)])
    return encode(type, source.randrange(8), source.randrange(65536), source.randbytes(source.randrange(120)))


def _damaged(source: random.Random, frame: bytes) -> bytes:
    """A frame with bytes flipped, lost or doubled."""
    data = bytearray(frame)
    for _ in range(source.randrange(1, 4)):
        at = source.randrange(len(data)) if data else 0
        how = source.randrange(3)
        if how == 0 and data:
            data[at] ^= 1 << source.randrange(8)
        elif how == 1:
            del data[at : at + 1]
        else:
            data[at:at] = data[at : at + 1] or b"\0"
    return bytes(data)
