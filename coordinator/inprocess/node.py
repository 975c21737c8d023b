"""A node in this process: it trains what its plan's board would train, to the same bits."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from codegen.planner import Plan
from codegen.protocol import Encoding, Setup
from coordinator.deltas import decode
from coordinator.inprocess.engine import Engine
from coordinator.rounds import Loss, NodeUnavailable, Order, Update
from coordinator.shares import Array


class InProcessNode:
    """Satisfies rounds.Node. Nodes of one plan may share an engine: they train one after the other."""

    def __init__(self, name: str, engine: Engine, x: Array, y: Array, proxy: Array | None = None) -> None:
        """Samples u8 [n, features...], their labels [n], and proxy images u8 [at least plan.proxy, features...]."""
        graph = engine.plan.sub_model.graph
        held = np.zeros(0, np.uint8) if proxy is None else proxy[: engine.plan.proxy]
        self._name = name
        self._engine = engine
        self._x = np.ascontiguousarray(x.reshape(-1, graph.features))
        self._y = np.ascontiguousarray(y, np.uint16)
        self._proxy = np.ascontiguousarray(held.reshape(-1, graph.features))
        self._counts = tuple(int(count) for count in np.bincount(y, minlength=graph.classes))

    @property
    def name(self) -> str:
        """Unique in the federation."""
        return self._name

    @property
    def plan(self) -> Plan:
        """The sub-model that it trains."""
        return self._engine.plan

    @property
    def label_counts(self) -> tuple[int, ...]:
        """How many samples of each class it has."""
        return self._counts

    @property
    def lost(self) -> Loss | None:
        """Never."""
        return None

    async def settle(self, order: Order) -> None:
        """Nothing is to be settled: samples do not change."""

    async def train(self, order: Order) -> Update:
        """Train here and now. Raises NodeUnavailable if a loss is not finite."""
        engine = self._engine
        engine.adjust(np.zeros(len(self._counts), np.float32) if order.adjustment is None else order.adjustment)
        rehearsals = 0
        if order.targets is not None and len(self._proxy):
            engine.rehearse(np.ascontiguousarray(order.targets[: len(self._proxy)]))
            rehearsals = order.rehearsals
        setup = Setup(
            round=order.round, seed=order.seed, learning_rate=order.learning_rate, momentum=order.momentum,
            epochs=order.epochs, batch=order.batch, encoding=Encoding.WEIGHTS, nested=int(order.nested),
            rehearsals=rehearsals, max_norm=order.max_norm, shift=order.shift if self.plan.shifts else 0,
        )  # fmt: skip
        engine.weights = order.weights
        try:
            engine.round(setup, self._x, self._y, self._proxy)
        except ArithmeticError as error:
            raise NodeUnavailable(str(error)) from error
        delta = self.changed(engine.weights, order)
        return Update(self._name, order.round, delta, len(self._y), engine.loss, engine.saturated)

    def changed(self, after: bytes, order: Order) -> Sequence[np.ndarray]:
        """Return what the coordinator decodes of an update from order.weights to `after`: here all of it."""
        return decode(self.plan, Encoding.WEIGHTS, after, order.weights)
