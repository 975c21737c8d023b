"""What tests of sessions share: a session on a wire in virtual time, and what moves over it."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

from codegen.protocol import Encoding, FrameType, State, Status, TransferKind
from coordinator.link.frames import Decoder
from coordinator.link.session import Session
from simulation.clock import run_virtually
from simulation.wire import WirePort

T = TypeVar("T")
BLOB = random.Random(1).randbytes(20_000)
STATUS = Status(State.TRAINING, 1, 7, 10, 20, 0.5, 0, 0)


def with_session(port: WirePort, work: Callable[[Session], Awaitable[T]]) -> T:
    """Run `work` with a session on the port."""

    async def main() -> T:
        session = Session(port)
        try:
            return await work(session)
        finally:
            await session.close()

    return run_virtually(main)


def has(kind: FrameType, data: bytes) -> bool:
    """Tell whether a frame of this type is among what is written."""
    return any(frame.type == kind for frame in Decoder().feed(data))


def nothing(_: bytes) -> bytes:
    """What passes when everything is swallowed."""
    return b""


async def there_and_back(session: Session) -> bytes:
    """Move BLOB to the node and fetch it again."""
    await session.hello()
    status = await session.send(TransferKind.WEIGHTS, 1, BLOB)
    assert status.state == State.LOADED
    offer, blob = await session.fetch(1, Encoding.WEIGHTS)
    assert (offer.size, offer.samples, offer.loss) == (len(BLOB), 5, 0.25)
    return blob
