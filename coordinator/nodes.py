"""A node behind a link: what `rounds` asks of it, turned into messages and transfers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from codegen.planner import EncodingChoice, Plan
from codegen.protocol import (
    MTU_MIN,
    Abort,
    Adjust,
    Encoding,
    Hello,
    Setup,
    State,
    Status,
    StatusRequest,
    Train,
    TransferKind,
)
from coordinator.deltas import UpdateError, decode
from coordinator.errors import TierfedError
from coordinator.events import NodeLog, NodeProgress, NodeTraffic, Observer, Stage
from coordinator.link.errors import LinkError, NodeError
from coordinator.link.session import Session
from coordinator.rounds import NodeUnavailable, Order, Update

T = TypeVar("T")

SILENCE = 2.0  # seconds without a STATUS after which a training node is asked for one
REFRESH = 0.25  # seconds between two looks at a transfer's progress
VALUES_PER_ADJUST = (MTU_MIN - 2) // 4  # that fit the smallest frame


class _Rebooted(Exception):  # noqa: N818 - internal
    """The boot id changed: the node has forgotten the round."""


class LinkNode:
    """One board or twin on a port. Satisfies rounds.Node."""

    def __init__(
        self,
        name: str,
        plan: Plan,
        port: str,
        connect: Callable[[], Awaitable[tuple[Session, Hello]]],
        observer: Observer,
        pace: float = 1.0,
    ) -> None:
        """`connect` opens the port, greets the node and checks that it is this one with firmware of this plan; `pace`:
        how many times slower than its plan it may be."""
        self.name = name
        self.plan = plan
        self.port = port
        self.label_counts: tuple[int, ...] = ()
        self._connect = connect
        self._observer = observer
        self._pace = pace
        self._session: Session | None = None
        self._hello: Hello | None = None
        self._in_step = False  # the last exchange ended as it should
        self._reports: asyncio.Queue[Status | LinkError] = asyncio.Queue()
        self._counted = (0, 0, 0, 0)  # of the session, up to the last NodeTraffic
        self._retransmissions = 0  # of all sessions

    @property
    def hello(self) -> Hello:
        """What the node said when it was greeted last."""
        assert self._hello is not None
        return self._hello

    async def open(self) -> None:
        """Greet the node, drop what it may still hold of another run, and ask for its labels."""
        session = await self._greet()
        await session.request(Abort(), Status)
        classes = self.plan.sub_model.graph.classes
        self.label_counts = await session.labels(classes)
        if sum(self.label_counts) != self.hello.samples:
            raise LinkError(
                f"{self.port}: HELLO says {self.hello.samples} samples, its {classes} labels "
                f"make {sum(self.label_counts)}; rebuild and flash it"
            )

    async def close(self) -> None:
        """Close the port."""
        if self._session is not None:
            await self._session.close()

    async def train(self, order: Order) -> Update:
        """Send the order and the weights, wait, and fetch the update. Raises NodeUnavailable."""
        try:
            try:
                return await self._train(order)
            except _Rebooted:
                return await self._train(order)
        except _Rebooted:
            raise NodeUnavailable("it started anew twice in one round; is its supply stable?") from None
        except (LinkError, UpdateError, TierfedError) as error:
            raise NodeUnavailable(str(error)) from error
        finally:
            self._account(order.round)

    def encoding(self, wanted: EncodingChoice) -> Encoding:
        """Return how updates travel: what is wanted if the node offers it, else weights."""
        choice = Encoding.DELTA_Q8 if wanted == "auto" else Encoding[wanted.upper()]
        return choice if self.hello.encodings >> choice & 1 else Encoding.WEIGHTS

    async def _train(self, order: Order) -> Update:
        session = self._session
        if session is None or session.closed or not self._in_step:
            session = await self._greet()
        self._in_step = False
        encoding = self.encoding(order.encoding)
        self._progress(order.round, "sending", 0, len(order.weights))
        try:
            await self._set_up(session, order, encoding)
            sending = session.send(TransferKind.WEIGHTS, order.round, order.weights)
            self._check_boot(await self._watched(order.round, "sending", len(order.weights), sending))
            await self._finish(session, order)
            size = self.plan.transfer_bytes[1]
            offer, blob = await self._watched(order.round, "fetching", size, session.fetch(order.round, encoding))
        except NodeError as error:
            await self._find_out(session, error)
            raise
        if offer.samples != self.hello.samples:
            raise NodeUnavailable(f"its update is of {offer.samples} samples; it has {self.hello.samples}")
        delta = decode(self.plan, encoding, blob, order.weights)
        self._in_step = True
        self._progress(order.round, "done", 1, 1, offer.loss)
        return Update(self.name, order.round, delta, offer.samples, offer.loss, offer.saturated)

    async def _greet(self) -> Session:
        """Return a session with the node, opened anew if the port had vanished."""
        if self._session is not None:
            await self._session.close()
        self._progress(0, "connecting")
        session, self._hello = await self._connect()
        self._session, self._counted = session, (0, 0, 0, 0)
        session.on_status = self._reports.put_nowait
        session.on_error = self._reports.put_nowait
        session.on_lost = self._reports.put_nowait
        session.on_log = lambda text: self._observer(NodeLog(self.name, text))
        return session

    async def _set_up(self, session: Session, order: Order, encoding: Encoding) -> None:
        """SETUP and ADJUST, as often as it takes for both sides to mean the same boot."""
        setup = Setup(
            order.round, order.seed, order.learning_rate, order.momentum, order.epochs, order.batch, encoding,
            order.nested,
        )  # fmt: skip
        self._check_boot(await session.request(setup, Status))
        values = [] if order.adjustment is None else [float(value) for value in order.adjustment]
        for first in range(0, len(values), VALUES_PER_ADJUST):
            adjust = Adjust(first, tuple(values[first : first + VALUES_PER_ADJUST]))
            self._check_boot(await session.request(adjust, Status))

    async def _finish(self, session: Session, order: Order) -> None:
        """TRAIN, and wait until it is done."""
        while not self._reports.empty():  # what came before is of no interest any more
            self._reports.get_nowait()
        status = await session.request(Train(order.round), Status)
        self._check_boot(status)
        patience = self._pace * max(1.0, 2 * self.plan.step_seconds)  # a node answers between two samples
        while status.state == State.TRAINING and status.round == order.round:
            self._progress(order.round, "training", status.done, status.total, status.loss)
            try:
                async with asyncio.timeout(SILENCE):
                    report = await self._reports.get()
            except TimeoutError:
                report = await session.request(StatusRequest(), Status, patience)
            if isinstance(report, LinkError):
                raise report
            status = report
            self._check_boot(status)
        if status.state != State.DONE or status.round != order.round:
            raise NodeUnavailable(f"it left the round: state {status.state}, round {status.round}")
        self._progress(order.round, "training", status.total, status.total, status.loss)

    def _check_boot(self, status: Status) -> None:
        if status.boot != self.hello.boot:
            raise _Rebooted

    async def _find_out(self, session: Session, error: NodeError) -> None:
        """A node that refuses may have started anew: raise _Rebooted if it did."""
        try:
            self._check_boot(await session.request(StatusRequest(), Status))
        except LinkError:
            raise error from None

    async def _watched(self, number: int, stage: Stage, size: int, transfer: Awaitable[T]) -> T:
        """Await a transfer, telling the observer how far it is."""
        task = asyncio.ensure_future(transfer)
        before = self._moved(stage)
        try:
            while not (await asyncio.wait((task,), timeout=REFRESH))[0]:
                self._progress(number, stage, min(self._moved(stage) - before, size), size)
            return task.result()
        finally:
            task.cancel()

    def _moved(self, stage: Stage) -> int:
        stats = self._session.stats if self._session is not None else None
        return 0 if stats is None else stats.bytes_down if stage == "sending" else stats.bytes_up

    def _progress(self, number: int, stage: Stage, done: int = 0, total: int = 0, loss: float | None = None) -> None:
        goodput, again = 0.0, self._retransmissions
        if self._session is not None:
            goodput = self._session.stats.goodput
            again += self._session.stats.retransmissions - self._counted[2]
        self._observer(NodeProgress(self.name, number, stage, done, total, loss, goodput, again))

    def _account(self, number: int) -> None:
        """Tell what the round cost on the wire so far, also when it failed."""
        if self._session is None:
            return
        stats = self._session.stats
        now = (stats.bytes_down, stats.bytes_up, stats.retransmissions, stats.frames_rejected)
        down, up, again, rejected = (new - old for new, old in zip(now, self._counted, strict=True))
        self._counted = now
        self._retransmissions += again
        self._observer(NodeTraffic(self.name, number, down, up, again, rejected))
