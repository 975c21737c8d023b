"""Nodes that were lost, looked for on every port of the run: they are known by their unique id, never by their port."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence

from codegen.protocol import Hello, HelloRequest
from coordinator.connection import NO_KEYS, Found, greet, introduce
from coordinator.events import Observer, PortLog, PortRefused
from coordinator.keys import NodeKey
from coordinator.link.errors import AuthenticationError, LinkError, PortError, ProtocolMismatch
from coordinator.link.ports import Opener, open_port
from coordinator.link.session import Session

AGAIN = 0.25  # seconds between two looks at ports that are not there
REST = 10.0  # seconds for which a port that was refused is left alone: opening it may reset its board
ANSWER = 0.8  # seconds for an answer at one rate; a node's own are tried twice: it may have to boot


class Search:
    """Who was found behind which port, and who is looked for."""

    def __init__(
        self,
        ports: Callable[[], Sequence[str]],
        rates: Sequence[int],
        observer: Observer,
        open_port: Opener = open_port,
        keys: Mapping[str, NodeKey] = NO_KEYS,
        pace: float = 1.0,
    ) -> None:
        """`ports` returns those there are now; `rates` are all that a board of the run may answer at."""
        self._ports, self._rates = ports, rates
        self._observer = observer
        self._open_port, self._keys = open_port, keys
        self._seconds = ANSWER * pace
        self._held: dict[str, Found] = {}  # by uid, all nodes of the run; one whose session is closed is lost
        self._looking: dict[str, asyncio.Task[Found]] = {}  # by uid
        self._asked: dict[str, asyncio.Task[None]] = {}  # by port
        self._resting: dict[str, float] = {}  # until when
        self.said: dict[str, str] = {}  # of each port, at last: why it was refused, or the id of a stranger
        self._missing: frozenset[str] = frozenset()  # uids of nodes that were not there when the run began
        self.trouble: dict[str, str] = {}  # why nobody was found on a port, at last

    async def greet(self, session: Session, rates: Sequence[int]) -> Hello:
        """Have whoever is behind an open port say who it is, now."""
        return await introduce(session, rates, self._keys, self._seconds)

    def hold(self, found: Found) -> None:
        """A node of the run is there."""
        self._held[found.uid] = found

    async def drop(self, found: Found) -> None:
        """It is none of the run's after all."""
        self._held.pop(found.uid, None)
        if (looking := self._looking.pop(found.uid, None)) is not None:
            looking.cancel()
        await found.session.close()

    async def find(self, uid: str, port: str, rates: Sequence[int]) -> Found:
        """Return the node of this id as soon as it answers anywhere. Where it was, `port`, it is looked for first, at
        its own `rates`; the search goes on when the caller gives up, so that its next call has the answer."""
        if uid not in self._looking:
            self._looking[uid] = asyncio.create_task(self._look(uid, port, rates))
        found = await asyncio.shield(self._looking[uid])
        self._looking.pop(uid, None)
        return found

    async def look_once(self, missing: Iterable[str]) -> list[Found]:
        """Ask all ports once for the nodes of these ids, which are not there yet; return those that are now."""
        self._missing = frozenset(missing)
        await self._ask_free([], [*self._rates, *self._rates])
        await asyncio.gather(*self._asked.values(), return_exceptions=True)
        return [found for uid in sorted(self._missing) if (found := self._live(uid)) is not None]

    async def close(self) -> None:
        """Give up; close what was found."""
        tasks = [*self._looking.values(), *self._asked.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.gather(*(found.session.close() for found in self._held.values()))

    def _live(self, uid: str) -> Found | None:
        found = self._held.get(uid)
        return None if found is None or found.session.closed else found

    async def _look(self, uid: str, port: str, rates: Sequence[int]) -> Found:
        """Ask all ports at once, over and over: who is found there may also be another one that is looked for."""
        order = [*rates, *rates, *(rate for rate in self._rates if rate not in rates)]
        while (found := self._live(uid)) is None:
            await self._ask_free([port], order)
            await asyncio.sleep(AGAIN)
        return found

    async def _ask_free(self, first: Sequence[str], rates: Sequence[int]) -> None:
        """Begin to ask all ports at which somebody might be, `first` of all these."""
        names = dict.fromkeys([*first, *await asyncio.to_thread(self._ports)])
        now = asyncio.get_running_loop().time()
        taken = {found.port for found in self._held.values() if not found.session.closed}
        for name in names:
            if name not in taken and name not in self._asked and self._resting.get(name, 0.0) <= now:
                self._asked[name] = asyncio.create_task(self._ask(name, rates))

    async def _ask(self, name: str, rates: Sequence[int]) -> None:
        """See who is behind a port."""
        try:
            tell = lambda port, text: self._observer(PortLog(port, text))  # noqa: E731
            found = await greet(name, rates, self._open_port, self._keys, tell, self._seconds)
            self.trouble.pop(name, None)
            try:
                await self._place(found)
            except BaseException:
                await found.session.close()
                raise
        except (ProtocolMismatch, AuthenticationError) as error:
            self.refuse(name, str(error))
        except LinkError as error:
            self.trouble[name] = str(error)
            if not isinstance(error, PortError):
                self._resting[name] = asyncio.get_running_loop().time() + self._seconds
        finally:
            del self._asked[name]

    async def _place(self, found: Found) -> None:
        """Keep a node of ours for whoever looks for it; refuse others."""
        before = self._live(found.uid)
        reason = ""
        if found.uid not in self._held and found.uid not in self._missing:
            reason = f"{found.port}: {found.uid} is a {found.hello.board} that is no node of this run; it is left alone"
        elif before is not None and await _is_there(before):
            reason = f"{found.port}: says it is {found.uid} as {before.port} does; the second is left alone, unplug one"
        if reason:
            self.refuse(found.port, reason, reason if found.uid in self._held else found.uid)
            await found.session.close()
            return
        if before is not None:
            await before.session.close(f"its node answers on {found.port} now")
        self._held[found.uid] = found

    def refuse(self, name: str, reason: str, about: str = "") -> None:
        """Leave a port alone for a while, and say why, once `about` the same thing, which else is the reason."""
        about = about or reason
        self._resting[name] = asyncio.get_running_loop().time() + REST
        self.trouble[name] = reason
        if self.said.get(name) != about:
            self.said[name] = about
            with contextlib.suppress(OSError):  # nobody awaits a port's task: the journal fails again at the next event
                self._observer(PortRefused(name, reason))


async def _is_there(found: Found) -> bool:
    """Whether a node still answers where it was found."""
    try:
        hello = await found.session.request(HelloRequest(), Hello, 0.5, 2)
    except LinkError:
        return False
    return hello.uid == found.hello.uid
