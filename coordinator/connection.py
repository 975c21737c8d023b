"""A board that answers: its port opened, its rate found, its HELLO heard."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import boards
from codegen.protocol import Hello
from coordinator.keys import NodeKey
from coordinator.link.channel import Port
from coordinator.link.errors import AuthenticationError, LinkError, LinkTimeout, NodeError, PortBusy
from coordinator.link.ports import Opener, list_ports, open_port
from coordinator.link.session import RESET_SECONDS, Session

SWITCH_SECONDS = 1.5  # a node answers at a new rate within this time, or is back at the old one in two
FALLBACK_SECONDS = 2.2
NO_KEYS: Mapping[str, NodeKey] = {}
BUSY_SECONDS, BUSY_TRIES = 2.0, 8  # how long a port may be busy, and how often it is tried

OnLine = Callable[[str, str], None]  # a port, and a line of text that came from it


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
    name: str,
    rates: Sequence[int],
    open_port: Opener = open_port,
    keys: Mapping[str, NodeKey] = NO_KEYS,
    on_line: OnLine | None = None,
    seconds: float = RESET_SECONDS,
) -> Found:
    """Open a port and have the board behind it say who it is, at the first of `rates` at which it answers, and prove it
    if its id is in `keys`.

    `on_line` is told the lines of text that come instead; seconds: for an answer at each rate. Raises LinkError, and of
    that AuthenticationError for a wrong proof.
    """
    session = Session(await _opened(name, rates[0], open_port))
    if on_line is not None:
        session.on_log = lambda text: on_line(name, text)
    try:
        return Found(name, session, await introduce(session, rates, keys, seconds))
    except BaseException:
        await session.close()
        raise


async def introduce(
    session: Session, rates: Sequence[int], keys: Mapping[str, NodeKey] = NO_KEYS, seconds: float = RESET_SECONDS
) -> Hello:
    """The same on a port that is open, which is not closed whatever happens."""
    silence = LinkTimeout(f"{session.name}: no rate to try")
    for rate in rates[:1] if virtual(session.name) else rates:  # a rate means nothing there
        session.port.set_baud(rate)
        try:
            hello = await session.hello(seconds)
        except LinkTimeout as error:
            silence = error
        else:
            key = keys.get(hello.uid.hex())
            if key is not None and not session.authenticated:
                hello = await authenticate(session, key)
            await speed_up(session, hello, rate)
            return session.node or hello
    raise silence


async def _opened(name: str, rate: int, open_port: Opener) -> Port:
    """Open a port. One that is busy may be free in a moment: a desktop's modem manager looks at every board that is
    plugged in, and a coordinator that has lost a board looks for it where another one may be by now."""
    for _ in range(BUSY_TRIES):
        try:
            return await _open(name, rate, open_port)
        except PortBusy:
            await asyncio.sleep(BUSY_SECONDS / BUSY_TRIES)
    return await _open(name, rate, open_port)


async def _open(name: str, rate: int, open_port: Opener) -> Port:
    opening = asyncio.ensure_future(asyncio.to_thread(open_port, name, rate))
    try:
        return await asyncio.shield(opening)
    except asyncio.CancelledError:
        opening.add_done_callback(_abandon)  # the thread opens it all the same, and nobody else could then
        raise


def _abandon(opening: asyncio.Future[Port]) -> None:
    if not opening.cancelled() and opening.exception() is None:
        opening.result().close()


async def authenticate(session: Session, key: NodeKey) -> Hello:
    """Have both ends prove that they have the node's key; return the HELLO that was proved."""
    try:
        return await session.authenticate(key.secret)
    except AuthenticationError as error:
        raise AuthenticationError(f"{error}; {key.node} has a key: flash it with that, `{key.flash}`") from None


async def speed_up(session: Session, hello: Hello, rate: int) -> None:
    """Change to the fastest rate that the board holds, if both ends can; go back if nothing is heard there."""
    try:
        fastest = max(boards.load(hello.board).training.bauds)
    except boards.BoardError:
        return  # refused later, in words
    if fastest == rate or "://" in session.name:
        return
    try:
        await session.set_baud(fastest)
        await session.hello(SWITCH_SECONDS)
    except AuthenticationError:
        raise
    except NodeError:
        return  # it stays where it is
    except LinkError:
        session.port.set_baud(rate)
        await asyncio.sleep(FALLBACK_SECONDS)
        await session.hello()


def networked(port: str) -> bool:
    """Whether a port is reached through a network, where anybody may answer. This machine's own address counts as well:
    what listens there may be a tunnel's end."""
    return port.lower().startswith(("socket://", "rfc2217://"))


def virtual(port: str) -> bool:
    """Whether there is no wire behind a port of which we could set the rate."""
    return port.lower().startswith("socket://")
