"""A round held as a coordinator does, with whatever is behind a session."""

from __future__ import annotations

import zlib

from codegen.protocol import Encoding, Hello, Setup, State, Status, StatusRequest, Train, TransferKind
from coordinator.link.authentication import Terms
from coordinator.link.session import Session

EPOCHS = 2


async def hold_round(session: Session, hello: Hello, classes: int, weights: bytes) -> bytes:
    """Have a node that said `hello` train on its samples from these weights; return the update, as weights."""
    labels = await session.labels(classes)
    assert sum(labels) == hello.samples
    setup = Setup(1, 7, 0.05, 0.0, EPOCHS, 1, Encoding.WEIGHTS, 1)
    session.terms = Terms.of(setup, (0.0,) * classes, hello.kernel, labels, zlib.crc32(weights))
    await session.request(setup, Status)
    await session.send(TransferKind.WEIGHTS, 1, weights)
    status = await session.request(Train(1), Status)
    while status.state == State.TRAINING:
        status = await session.request(StatusRequest(), Status, timeout=5.0)
    assert (status.state, status.done) == (State.DONE, EPOCHS * hello.samples)
    return (await session.fetch(1, Encoding.WEIGHTS))[1]
