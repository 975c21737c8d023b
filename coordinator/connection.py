"""A board that answers: its port opened, its rate found, its HELLO heard."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import boards
from codegen.protocol import Hello
from coordinator.keys import NodeKey
from coordinator.link.errors import AuthenticationError, LinkError, LinkTimeout, NodeError, PortBusy, PortError
from coordinator.link.ports import Opener, list_ports, open_port
from coordinator.link.session import Port, Session

SWITCH_SECONDS = 1.5  # a node answers at a new rate within this time, or is back at the old one in two
FALLBACK_SECONDS = 2.2
NO_KEYS: Mapping[str, NodeKey] = {}
BUSY_SECONDS, BUSY_TRIES = 2.0, 8  # how long a port may be busy, and how often it is tried


@dataclass
class Found:
    """A board that answered on a port."""

    port: str
    session: Session
    hello: Hello

    @property
    def uid(self) -> str:
        """16 hexadecimal digits."""
        return self.hello.uid.hex()


def likely_ports() -> list[str]:
    """Return the ports whose USB ids are those of a board that we know."""
    known = {usb for board in boards.all_boards() for usb in board.training.usb}
    return [port.name for port in list_ports() if port.usb in known]


def rates_of(kinds: Iterable[boards.Board]) -> list[int]:
    """Return the rates to greet these boards at: as they boot, then as an earlier run left those it did not reset."""
    bauds = [board.training.bauds for board in kinds]
    return list(dict.fromkeys([*sorted({each[0] for each in bauds}), *sorted({max(each) for each in bauds})]))


async def greet(
    name: str, rates: Sequence[int], open_port: Opener = open_port, keys: Mapping[str, NodeKey] = NO_KEYS
) -> Found:
    """Open a port and have the board behind it say who it is, at the first of `rates` at which it answers, and prove it
    if its id is in `keys`. Raises LinkError, and of that AuthenticationError for a wrong proof."""
    if virtual(name):
        rates = rates[:1]  # a rate means nothing there
    port = await _opened(name, rates[0], open_port)
    session = Session(port)
    try:
        for rate in rates:
            port.set_baud(rate)
            try:
                hello = await session.hello()
            except LinkTimeout:
                if rate == rates[-1]:
                    raise
            else:
                key = keys.get(hello.uid.hex())
                if key is not None:
                    hello = await authenticate(session, key)
                await speed_up(session, port, hello, rate)
                return Found(name, session, session.node or hello)
    except BaseException:
        await session.close()
        raise
    raise PortError(f"{name}: no rate to try")


async def _opened(name: str, rate: int, open_port: Opener) -> Port:
    """Open a port. One that is busy may be free in a moment: a desktop's modem manager looks at every board that is
    plugged in, and a coordinator that has lost a board looks for it where another one may be by now."""
    for _ in range(BUSY_TRIES):
        try:
            return await asyncio.to_thread(open_port, name, rate)
        except PortBusy:
            await asyncio.sleep(BUSY_SECONDS / BUSY_TRIES)
    return await asyncio.to_thread(open_port, name, rate)


async def authenticate(session: Session, key: NodeKey) -> Hello:
    """Have both ends prove that they have the node's key; return the HELLO that was proved."""
    try:
        return await session.authenticate(key.secret)
    except AuthenticationError as error:
        raise AuthenticationError(f"{error}; {key.node} has a key: flash it with that, `{key.flash}`") from None


async def speed_up(session: Session, port: Port, hello: Hello, rate: int) -> None:
    """Change to the fastest rate that the board holds, if both ends can; go back if nothing is heard there."""
    try:
        fastest = max(boards.load(hello.board).training.bauds)
    except boards.BoardError:
        return  # refused later, in words
    if fastest == rate or "://" in port.name:
        return
    try:
        await session.set_baud(fastest)
        await session.hello(SWITCH_SECONDS)
    except AuthenticationError:
        raise
    except NodeError:
        return  # it stays where it is
    except LinkError:
        port.set_baud(rate)
        await asyncio.sleep(FALLBACK_SECONDS)
        await session.hello()


def networked(port: str) -> bool:
    """Whether a port is reached through a network, where anybody may answer. This machine's own address counts as well:
    what listens there may be a tunnel's end."""
    return port.lower().startswith(("socket://", "rfc2217://"))


def virtual(port: str) -> bool:
    """Whether there is no wire behind a port of which we could set the rate."""
    return port.startswith("socket://")
