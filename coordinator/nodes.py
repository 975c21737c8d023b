"""A node behind a link: what `rounds` asks of it, turned into messages and transfers."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TypeVar

from codegen.planner import EncodingChoice, Plan
from codegen.protocol import (
    MTU_MIN,
    Abort,
    Adjust,
    Encoding,
    Hello,
    Samples,
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
from coordinator.link.authentication import Terms
from coordinator.link.errors import LinkError, NodeError
from coordinator.link.flows import LinkStatistics
from coordinator.link.session import Session
from coordinator.rounds import NodeUnavailable, Order, Update, UpdateRefused
from coordinator.shares import Share
from coordinator.streaming import sample

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
        share: Share | None = None,
    ) -> None:
        """`connect` opens the port, greets the node and checks that it is this one with firmware of this plan; `pace`:
        how many times slower than its plan it may be; `share` is streamed to it."""
        self.name = name
        self.plan = plan
        self.port = port
        self._share = share
        self._classes = range(plan.sub_model.graph.classes)
        labels = [] if share is None else share.y.tolist()
        self.label_counts = tuple(labels.count(label) for label in self._classes)
        self._connect = connect
        self._observer = observer
        self._pace = pace
        self._session: Session | None = None
        self._hello: Hello | None = None
        self._in_step = False  # the last exchange ended as it should
        self._reports: asyncio.Queue[Status | LinkError] = asyncio.Queue()
        self._counted = LinkStatistics()  # up to the last NodeTraffic

    @property
    def hello(self) -> Hello:
        """What the node said when it was greeted last."""
        assert self._hello is not None
        return self._hello

    async def open(self) -> None:
        """Greet the node, drop what it may still hold of another run, and ask for its labels."""
        session = await self._greet()
        await session.request(Abort(), Status)
        if self._share is not None:
            return
        self.label_counts = await session.labels(len(self._classes))
        if self.plan.source == "flash" and sum(self.label_counts) != self.hello.samples:  # a sensor goes on capturing
            raise LinkError(
                f"{self.port}: HELLO says {self.hello.samples} samples, its {len(self._classes)} labels "
                f"make {sum(self.label_counts)}; rebuild and flash it"
            )

    async def close(self) -> None:
        """Close the port."""
        if self._session is not None:
            await self._session.close()

    async def settle(self, order: Order) -> None:
        """Have a sensor keep its samples as they are, and count them. Raises NodeUnavailable."""
        if self.plan.source == "sensor":
            await self._twice(order, self._settle)
            if not any(self.label_counts):
                raise NodeUnavailable("its sensor has captured no samples yet")

    async def train(self, order: Order) -> Update:
        """Send the order and the weights, wait, and fetch the update. Raises NodeUnavailable."""
        return await self._twice(order, self._train)

    async def _twice(self, order: Order, attempt: Callable[[Order], Awaitable[T]]) -> T:
        """Attempt something, and once more if the node starts anew meanwhile. Raises NodeUnavailable."""
        try:
            try:
                return await attempt(order)
            except _Rebooted:
                return await attempt(order)
        except _Rebooted:
            raise NodeUnavailable("it started anew twice in one round; is its supply stable?") from None
        except UpdateError as error:
            raise UpdateRefused(str(error)) from error
        except (LinkError, TierfedError) as error:
            raise NodeUnavailable(str(error)) from error
        finally:
            self._account(order.round)

    def encoding(self, wanted: EncodingChoice) -> Encoding:
        """Return how updates travel: what is wanted if the node offers it, else weights."""
        choice = Encoding.DELTA_Q8 if wanted == "auto" else Encoding[wanted.upper()]
        return choice if self.hello.encodings >> choice & 1 else Encoding.WEIGHTS

    async def _settle(self, order: Order) -> None:
        session = await self._in_touch()
        self._check_boot(await session.request(self._setup(order), Status))
        self.label_counts = await session.labels(len(self._classes))
        if not any(self.label_counts):
            await session.request(Abort(), Status)  # let it capture some
        self._in_step = True

    async def _in_touch(self) -> Session:
        """Return a session with a node that knows where we are; whoever ends as it should says so by `_in_step`."""
        session = self._session
        if session is None or session.closed or not self._in_step:
            session = await self._greet()
        self._in_step = False
        return session

    async def _train(self, order: Order) -> Update:
        if self.plan.source == "sensor" and not self._in_step:
            raise NodeUnavailable("it started anew within the round, and its samples are others now")
        session = await self._in_touch()
        encoding = self.encoding(order.encoding)
        self._progress(order.round, "sending", 0, len(order.weights))
        try:
            await self._set_up(session, order)
            sending = session.send(TransferKind.WEIGHTS, order.round, order.weights)
            self._check_boot(await self._watched(order.round, "sending", len(order.weights), sending))
            if self._share is not None:
                self._check_boot(await session.request(Samples(len(self._share.y)), Status))
            await self._finish(session, order)
            size = self.plan.transfer_bytes[1]
            offer, blob = await self._watched(order.round, "fetching", size, session.fetch(order.round, encoding))
        except NodeError as error:
            await self._find_out(session, error)
            raise
        if offer.samples != sum(self.label_counts):
            raise UpdateRefused(f"its update is of {offer.samples} samples; it has {sum(self.label_counts)}")
        delta = decode(self.plan, encoding, blob, order.weights)
        if self.plan.source == "sensor":
            await session.request(Abort(), Status)  # let it capture more
        self._in_step = True
        self._progress(order.round, "done", 1, 1, offer.loss)
        return Update(self.name, order.round, delta, offer.samples, offer.loss, offer.saturated)

    async def _greet(self) -> Session:
        """Return a session with the node, opened anew if the port had vanished."""
        if self._session is not None:
            await self._session.close()
        self._progress(0, "connecting")
        session, self._hello = await self._connect()
        if self._session is not None:
            session.stats.go_on_from(self._session.stats)
        self._session = session
        session.on_status = self._reports.put_nowait
        session.on_error = self._reports.put_nowait
        session.on_lost = self._reports.put_nowait
        session.on_log = lambda text: self._observer(NodeLog(self.name, text))
        return session

    def _setup(self, order: Order) -> Setup:
        return Setup(
            order.round, order.seed, order.learning_rate, order.momentum, order.epochs, order.batch,
            self.encoding(order.encoding), order.nested,
        )  # fmt: skip

    async def _set_up(self, session: Session, order: Order) -> None:
        """SETUP and ADJUST, as often as it takes for both sides to mean the same boot."""
        self._check_boot(await session.request(self._setup(order), Status))
        values = [] if order.adjustment is None else [float(value) for value in order.adjustment]
        for first in range(0, len(values), VALUES_PER_ADJUST):
            adjust = Adjust(first, tuple(values[first : first + VALUES_PER_ADJUST]))
            self._check_boot(await session.request(adjust, Status))
        adjustment = values or [0.0] * len(self._classes)
        labels = () if self._share is not None else self.label_counts
        trained = zlib.crc32(order.weights)
        session.terms = Terms.of(self._setup(order), adjustment, self.hello.kernel, labels, trained)

    async def _finish(self, session: Session, order: Order) -> None:
        """TRAIN, stream the samples if the node has none, and wait until it is done."""
        while not self._reports.empty():  # what came before is of no interest any more
            self._reports.get_nowait()
        status = await session.request(Train(order.round), Status)
        self._check_boot(status)
        patience = self._pace * max(1.0, 2 * self.plan.step_seconds)  # a node answers between two samples
        if self._share is not None and status.state == State.TRAINING:
            status = await self._stream(session, order, self._share, status, patience)
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

    async def _stream(self, session: Session, order: Order, share: Share, status: Status, patience: float) -> Status:
        """Send the samples that the node still lacks, the next one while it trains; return its last STATUS."""
        total, shown = order.epochs * len(share.y), 0.0
        for position in range(status.done, total):
            blob = sample(share, order.seed, position)
            status = await session.send(TransferKind.SAMPLE, order.round, blob, patience)
            self._check_boot(status)
            if session.loop.time() - shown >= REFRESH:
                shown = session.loop.time()
                self._progress(order.round, "training", status.done, total, status.loss)
        return status

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
        stats = self._session.stats if self._session is not None else LinkStatistics()
        rejected = stats.frames_rejected + stats.node_rejected
        figures = (stats.goodput, stats.retransmissions, stats.round_trip, rejected, stats.resets)
        self._observer(NodeProgress(self.name, number, stage, done, total, loss, *figures))

    def _account(self, number: int) -> None:
        """Tell what the round cost on the wire so far, also when it failed."""
        if self._session is None:
            return
        now, before = replace(self._session.stats), self._counted
        self._counted = now
        keys = ("bytes_down", "bytes_up", "retransmissions", "frames_rejected", "node_rejected", "resets")
        counts = {key: getattr(now, key) - getattr(before, key) for key in keys}
        self._observer(NodeTraffic(self.name, number, **counts, goodput=now.goodput, round_trip=now.round_trip))
