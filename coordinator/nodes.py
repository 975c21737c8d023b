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
    ErrorCode,
    Hello,
    Samples,
    Setup,
    State,
    Status,
    StatusRequest,
    Train,
    TransferKind,
)
from coordinator.contact import Connection, Contact, Restarted
from coordinator.deltas import UpdateError, decode
from coordinator.errors import TierfedError
from coordinator.events import NodeProgress, NodeTraffic, Observer, Stage
from coordinator.link.authentication import Terms
from coordinator.link.errors import LinkError, NodeError
from coordinator.link.flows import LinkStatistics, Partial
from coordinator.link.session import Session
from coordinator.rounds import Loss, NodeUnavailable, Order, Update, UpdateRefused
from coordinator.shares import Share
from coordinator.streaming import epoch_length, sample

T = TypeVar("T")

SILENCE = 2.0  # seconds without a STATUS after which a training node is asked for one
OPEN_SECONDS = 15.0  # that a node which was greeted may take to say what it holds
REFRESH = 0.25  # seconds between two looks at a transfer's progress
FORGOT = (ErrorCode.WRONG_STATE, ErrorCode.WRONG_ROUND, ErrorCode.UNAUTHENTICATED)  # said of a round it does not hold
VALUES_PER_ADJUST = (MTU_MIN - 2) // 4  # that fit the smallest frame


class LinkNode:
    """One board or twin on a port. Satisfies rounds.Node."""

    def __init__(
        self,
        name: str,
        plan: Plan,
        connection: Connection,
        observer: Observer,
        pace: float = 1.0,
        share: Share | None = None,
    ) -> None:
        """`pace`: how many times slower than its plan it may be; `share` is streamed to it."""
        self.name = name
        self.plan = plan
        self._share = share
        self._classes = range(plan.sub_model.graph.classes)
        labels = [] if share is None else share.y.tolist()
        self.label_counts = tuple(labels.count(label) for label in self._classes)
        self._contact = Contact(name, connection, observer, plan.step_seconds, pace)
        self._observer = observer
        self._pace = pace
        self._settled: int | None = None  # its boot, when its sensor's samples were counted
        self._partial = Partial()
        self._counted = LinkStatistics()  # up to the last NodeTraffic

    @property
    def hello(self) -> Hello:
        """What the node said when it was greeted last."""
        return self._contact.hello

    @property
    def port(self) -> str:
        """Where it was found last."""
        return self._contact.port

    @property
    def lost(self) -> Loss | None:
        """Since when the node has been looked for, and why."""
        return self._contact.lost

    async def open(self) -> None:
        """Have the node drop what it may still hold of another run, and ask for its labels. Raises LinkError."""
        self._progress(0, "connecting")
        try:
            async with asyncio.timeout(self._pace * OPEN_SECONDS):
                await self._contact.open(self._open)
        except Restarted:
            raise LinkError(f"{self.port}: it started anew twice; is its supply stable?") from None
        except TimeoutError:
            raise LinkError(self.lost.reason if self.lost else f"{self.port}: it does not say what it holds") from None

    async def _open(self, session: Session) -> None:
        await session.request(Abort(), Status)
        if self._share is None:
            self.label_counts = await session.labels(len(self._classes))
            if self.plan.source == "flash" and sum(self.label_counts) != self.hello.samples:  # a sensor goes on
                raise LinkError(
                    f"{self.port}: HELLO says {self.hello.samples} samples, its {len(self._classes)} labels "
                    f"make {sum(self.label_counts)}; rebuild and flash it"
                )

    async def close(self) -> None:
        """Close the port."""
        await self._contact.close()

    async def settle(self, order: Order) -> None:
        """Have a sensor keep its samples as they are, and count them. Raises NodeUnavailable."""
        if self.plan.source == "sensor":
            await self._hold(order, self._settle)
            if not any(self.label_counts):
                raise NodeUnavailable("its sensor has captured no samples yet")

    async def train(self, order: Order) -> Update:
        """Send the order and the weights, wait, and fetch the update. Raises NodeUnavailable."""
        return await self._hold(order, self._train)

    async def _hold(self, order: Order, attempt: Callable[[Session, Order], Awaitable[T]]) -> T:
        """Attempt something: where it was when the wire was cut, from the start, once, when the node has started anew.
        Raises NodeUnavailable."""
        try:
            return await self._contact.hold(order.round, lambda session: attempt(session, order))
        except Restarted:
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

    async def _settle(self, session: Session, order: Order) -> None:
        self._contact.check_boot(await session.request(self._setup(order), Status))
        self.label_counts = await session.labels(len(self._classes))
        self._settled = self.hello.boot
        if not any(self.label_counts):
            await session.request(Abort(), Status)  # let it capture some

    async def _train(self, session: Session, order: Order) -> Update:
        """One attempt at a round. A node does not do again what it has done: every request may be repeated."""
        encoding = self.encoding(order.encoding)
        self._progress(order.round, "sending", 0, len(order.weights))
        try:
            await self._set_up(session, order)
            sending = session.send(TransferKind.WEIGHTS, order.round, order.weights)
            self._contact.check_boot(await self._shown(order.round, "sending", len(order.weights), sending))
            targets = self._targets(order)
            if targets:
                self._contact.check_boot(await session.send(TransferKind.TARGETS, order.round, targets))
            if self._share is not None:
                self._contact.check_boot(await session.request(Samples(len(self._share.y)), Status))
            await self._finish(session, order)
            fetching = session.fetch(order.round, encoding, self._partial)
            offer, blob = await self._shown(order.round, "fetching", self.plan.transfer_bytes[1], fetching)
        except NodeError as error:
            await self._find_out(session, order, error)
            raise
        if offer.samples != sum(self.label_counts):
            raise UpdateRefused(f"its update is of {offer.samples} samples; it has {sum(self.label_counts)}")
        delta = decode(self.plan, encoding, blob, order.weights)
        if self.plan.source == "sensor":
            await session.request(Abort(), Status)  # let it capture more
        self._progress(order.round, "done", 1, 1, offer.loss)
        return Update(self.name, order.round, delta, offer.samples, offer.loss, offer.saturated)

    def _targets(self, order: Order) -> bytes:
        """Return the soft targets of the proxy images that the node holds; none if it is not to rehearse them."""
        if order.targets is None or not order.rehearsals:
            return b""
        return order.targets[: self.plan.proxy].tobytes()

    def _setup(self, order: Order) -> Setup:
        return Setup(
            order.round, order.seed, order.learning_rate, order.momentum, order.epochs, order.batch,
            self.encoding(order.encoding), order.nested, order.rehearsals if self._targets(order) else 0,
            order.max_norm, order.shift if self.plan.shifts else 0,
        )  # fmt: skip

    async def _set_up(self, session: Session, order: Order) -> None:
        """SETUP and ADJUST, as often as it takes for both sides to mean the same boot."""
        self._contact.check_boot(await session.request(self._setup(order), Status))
        if self.plan.source == "sensor" and (
            self.hello.boot != self._settled or await session.labels(len(self._classes)) != self.label_counts
        ):
            raise NodeUnavailable("it started anew within the round, and its samples are others now")
        values = [] if order.adjustment is None else [float(value) for value in order.adjustment]
        for first in range(0, len(values), VALUES_PER_ADJUST):
            adjust = Adjust(first, tuple(values[first : first + VALUES_PER_ADJUST]))
            self._contact.check_boot(await session.request(adjust, Status))
        adjustment = values or [0.0] * len(self._classes)
        labels = () if self._share is not None else self.label_counts
        trained = zlib.crc32(order.weights) ^ zlib.crc32(self._targets(order))  # 0 of nothing
        session.terms = Terms.of(self._setup(order), adjustment, self.hello.kernel, labels, trained)

    async def _finish(self, session: Session, order: Order) -> None:
        """TRAIN, stream the samples if the node has none, and wait until it is done."""
        reports = self._contact.reports
        while not reports.empty():  # what came before is of no interest any more
            reports.get_nowait()
        status = await session.request(Train(order.round), Status)
        self._contact.check_boot(status)
        patience = self._pace * max(1.0, 2 * self.plan.step_seconds)  # a node answers between two samples
        if self._share is not None and status.state == State.TRAINING:
            status = await self._stream(session, order, self._share, status, patience)
        with session.listening():
            while status.state == State.TRAINING and status.round == order.round:
                self._progress(order.round, "training", status.done, status.total, status.loss)
                status = await self._report(session, patience)
                self._contact.check_boot(status)
        if status.state != State.DONE or status.round != order.round:
            raise Restarted  # whatever its boot id says, which may be noise
        self._progress(order.round, "training", status.total, status.total, status.loss)

    async def _report(self, session: Session, patience: float) -> Status:
        """Return what the node says of its training, unasked or asked."""
        try:
            async with asyncio.timeout(SILENCE):
                report = await self._contact.reports.get()
        except TimeoutError:
            report = await session.request(StatusRequest(), Status, patience)
        if isinstance(report, LinkError):
            raise report
        return report

    async def _stream(self, session: Session, order: Order, share: Share, status: Status, patience: float) -> Status:
        """Send the samples that the node still lacks, the next one while it trains; return its last STATUS."""
        proxy = share.proxy[: self.plan.proxy] if self._targets(order) else share.proxy[:0]
        share, shown = replace(share, proxy=proxy), 0.0
        total = order.epochs * epoch_length(share, order.rehearsals)
        for position in range(status.done, total):
            blob = sample(share, order.seed, position, order.rehearsals)
            status = await session.send(TransferKind.SAMPLE, order.round, blob, patience)
            self._contact.check_boot(status)
            if session.loop.time() - shown >= REFRESH:
                shown = session.loop.time()
                self._progress(order.round, "training", status.done, total, status.loss)
        return status

    async def _find_out(self, session: Session, order: Order, error: NodeError) -> None:
        """A node that refuses may have started anew: raise Restarted if it did."""
        try:
            status = await session.request(StatusRequest(), Status)
        except LinkError:
            raise error from None
        self._contact.check_boot(status)
        if error.code in FORGOT and (status.state == State.IDLE or status.round != order.round):
            raise Restarted

    async def _shown(self, number: int, stage: Stage, size: int, transfer: Awaitable[T]) -> T:
        """Await a transfer, telling the observer how far it is."""
        task = asyncio.ensure_future(transfer)
        before = self._moved(stage)
        try:
            while not (await asyncio.wait((task,), timeout=REFRESH))[0]:
                self._progress(number, stage, min(self._moved(stage) - before, size), size)
            return task.result()
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def _moved(self, stage: Stage) -> int:
        session = self._contact.current
        return 0 if session is None else session.stats.bytes_down if stage == "sending" else session.stats.bytes_up

    def _progress(self, number: int, stage: Stage, done: int = 0, total: int = 0, loss: float | None = None) -> None:
        stats = self._contact.current.stats if self._contact.current is not None else LinkStatistics()
        rejected = stats.frames_rejected + stats.node_rejected
        figures = (stats.goodput, stats.retransmissions, stats.round_trip, rejected, stats.resets)
        self._observer(NodeProgress(self.name, number, stage, done, total, loss, *figures))

    def _account(self, number: int) -> None:
        """Tell what the round cost on the wire so far, also when it failed."""
        if self._contact.current is None:
            return
        now, before = replace(self._contact.current.stats), self._counted
        self._counted = now
        keys = ("bytes_down", "bytes_up", "retransmissions", "frames_rejected", "node_rejected", "resets")
        counts = {key: getattr(now, key) - getattr(before, key) for key in keys}
        self._observer(NodeTraffic(self.name, number, **counts, goodput=now.goodput, round_trip=now.round_trip))
