"""Being in touch with a node: its session, made anew when the wire was cut; lost when it is silent for longer than it
can explain; back when the same node answers again."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

from codegen.protocol import Hello, HelloRequest, Status
from coordinator.connection import Found
from coordinator.events import NodeBack, NodeLog, NodeLost, Observer
from coordinator.link.errors import LinkError, LinkLost, LinkTimeout
from coordinator.link.session import Session
from coordinator.rounds import Loss

T = TypeVar("T")

SILENCE = 0.8  # seconds that a node may owe an answer
REPORTS = 0.6  # seconds between two reports of a node that trains, besides a step
DEAF = 1.0  # seconds more after which it is greeted anew: it may have started at another rate
LOOK = 0.1  # seconds between two looks whether a silent node has said something


class Restarted(Exception):  # noqa: N818 - it says what the node has done
    """The node has forgotten the round: it started anew."""


class Connection(Protocol):
    """The way to a node."""

    async def find(self) -> Found:
        """Return it as it was found, then, whenever its session is closed, as it is found again."""

    async def greet(self, session: Session) -> Hello:
        """Have whoever is behind an open port say who it is, at any rate that the node may have."""

    @property
    def check(self) -> Callable[[Found], None]:
        """Raises TierfedError or LinkError unless it may take part: its firmware, its key."""

    def trouble(self) -> str:
        """Return why it was not found yet, or nothing."""


class Contact:
    """A node's session, however often it is made."""

    def __init__(
        self, name: str, connection: Connection, observer: Observer, step_seconds: float, pace: float = 1.0
    ) -> None:
        """`step_seconds`: that a node may train before it answers; `pace`: how many times slower it may be."""
        self.name = name
        self.silence = pace * max(SILENCE, REPORTS + 1.5 * step_seconds)
        self.reports: asyncio.Queue[Status | LinkError] = asyncio.Queue()  # what it said unasked
        self.port = ""
        self.in_step = False  # the last exchange ended as it should
        self.current: Session | None = None
        self._deaf = pace * DEAF
        self._connection = connection
        self._observer = observer
        self._hello: Hello | None = None
        self._lost: Loss | None = None
        self._round = 0

    @property
    def hello(self) -> Hello:
        """What the node said when it was greeted last."""
        assert self._hello is not None
        return self._hello

    @property
    def lost(self) -> Loss | None:
        """Since when the node has been looked for, and why."""
        if self._lost is None:
            return None
        trouble = self._connection.trouble()
        return Loss(self._lost.since, f"{self._lost.reason}; {trouble}" if trouble else self._lost.reason)

    async def open(self, attempt: Callable[[Session], Awaitable[T]]) -> T:
        """Attempt something with a node that is there."""
        self._adopt(await self._connection.find())
        self.in_step = True
        return await self.hold(0, attempt)

    async def close(self) -> None:
        """Close the port."""
        if self.current is not None:
            await self.current.close()

    def check_boot(self, status: Status) -> None:
        """Raise Restarted if the node has booted since it was greeted."""
        if status.boot != self.hello.boot:
            raise Restarted

    async def hold(self, number: int, attempt: Callable[[Session], Awaitable[T]]) -> T:
        """Attempt something in a round; look for the node if it is lost meanwhile, and attempt it again, without end.
        Raises Restarted if it starts anew twice, and what `attempt` and the connection raise."""
        self._round = number
        boot, restarts = None, 0
        while True:
            try:
                session = await self._in_touch()
                restarts += boot not in (None, self.hello.boot)
                if restarts > 1:
                    raise Restarted
                boot = self.hello.boot
                result = await self._watched(session, attempt(session))
            except Restarted:
                restarts, boot = restarts + (boot is not None), None
                if restarts > 1:
                    raise
                self._lose("it started anew")
            except (LinkLost, LinkTimeout) as error:
                self._lose(str(error))
            else:
                self.in_step = True
                self._back(True)
                return result

    async def _in_touch(self) -> Session:
        """Return a session with a node that knows where we are."""
        in_step, self.in_step = self.in_step, False
        session = self.current
        if session is not None and not session.closed and (in_step or await self._answers(session)):
            return session
        if session is not None:
            await session.close()  # or its port would count as taken
            self._lose(f"{self.port}: the port was closed")
        before = self.hello.boot
        self._adopt(await self._connection.find())
        assert self.current is not None
        self._back(self.hello.boot == before)
        return self.current

    async def _answers(self, session: Session) -> bool:
        """Whether the same node is still there, perhaps with another boot."""
        try:
            hello = await self._connection.greet(session)
        except LinkError as error:
            self._lose(str(error))
            return False
        if hello.uid != self.hello.uid:
            self._lose(f"{self.port}: another board, {hello.uid.hex()}, answers there now")
            return False
        self._connection.check(Found(self.port, session, hello))
        before, self._hello = self.hello.boot, hello
        self._back(hello.boot == before)
        return True

    def _adopt(self, found: Found) -> None:
        session, before = found.session, self.current
        if before is not None and before is not session:
            session.stats.go_on_from(before.stats)
        self.current = session
        self._hello, self.port = found.hello, found.port
        session.on_status = self.reports.put_nowait
        session.on_error = self.reports.put_nowait
        session.on_lost = self._vanished
        session.on_log = lambda text: self._observer(NodeLog(self.name, text))

    # Lost and back

    def _vanished(self, error: LinkLost) -> None:
        self.reports.put_nowait(error)
        with contextlib.suppress(OSError):  # nobody to tell in a callback: the journal fails again at the next event
            self._lose(str(error))

    def _lose(self, reason: str) -> None:
        if self._lost is None:
            self._lost = Loss(asyncio.get_running_loop().time(), reason)
            self._observer(NodeLost(self.name, self._round, reason))

    def _back(self, resumed: bool) -> None:
        if self._lost is not None:
            self._lost = None
            self._observer(NodeBack(self.name, self._round, self.port, resumed))

    async def _watched(self, session: Session, work: Awaitable[T]) -> T:
        """Await something that the node takes part in, and watch whether it does."""
        task, watch = asyncio.ensure_future(work), asyncio.ensure_future(self._watch(session))
        try:
            await asyncio.wait((task, watch), return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                return task.result()
            watch.result()  # which raises
            raise AssertionError
        finally:
            task.cancel()
            watch.cancel()
            await asyncio.gather(task, watch, return_exceptions=True)

    async def _watch(self, session: Session) -> None:
        """Tell when the node is silent for too long, and when it is back. Raises LinkTimeout when it should be greeted
        anew, Restarted when it or another board answers but does not hold the round."""
        while True:
            silence = session.silence
            if silence < self.silence and self._lost is not None:
                hello = await session.request(HelloRequest(), Hello, self.silence, 2)
                if (hello.uid, hello.boot) != (self.hello.uid, self.hello.boot):
                    raise Restarted
                self._back(True)
            elif silence < self.silence:
                await asyncio.sleep(max(self.silence - silence, LOOK))
            elif silence < self.silence + self._deaf:
                self._lose(f"{session.name}: nothing has come for {self.silence:.1f} s")
                await asyncio.sleep(LOOK)
            else:
                raise LinkTimeout(f"{session.name}: nothing has come for {silence:.0f} s")
