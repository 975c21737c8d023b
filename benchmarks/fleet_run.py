"""One run of benchmarks.fleet, with the coordinator's own federation file, dealing and rounds."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import boards
from benchmarks.attackers import Attackers, drawn
from benchmarks.fleet_methods import ATTACKERS, SMALL, TIERS, Variant
from benchmarks.images import ToolError
from benchmarks.workloads import EXAMPLE, with_kernel
from boards import Board
from codegen.graph import Graph
from codegen.planner import Plan, plan
from codegen.planner import Training as PlanTraining
from codegen.tiers import Tier
from codegen.weights import pack
from coordinator import federation
from coordinator.data import Array, load_dataset
from coordinator.events import Event, NodeFailed
from coordinator.federation import Federation
from coordinator.inprocess.engine import Engine
from coordinator.inprocess.node import InProcessNode
from coordinator.joining import joiner
from coordinator.partition import partition
from coordinator.results import Inputs, load
from coordinator.rounds import Order, run_round
from coordinator.runs import round_settings
from coordinator.shares import Share, deal
from coordinator.state import State

BOARD = boards.load("esp32-s3-devkitc-1")  # which has room for all of the example, and for proxy images
NODES, EACH, SPARE = 10, 1000, 1000  # images that are spare may be proxies
TRAINING = {"rounds": 20, "epochs": 1, "batch": 8}  # all else as in the example
VALIDATION = 8000  # the first training images, on which settings are chosen
SEED_STREAM = 0x464C  # keeps these draws apart from every other use of the seed
NOBODY = Attackers(frozenset(), "flip")
PACE = 1000.0  # the machine may be busy: nobody is late


def run(split: str, variant: Variant, seed: int, data: Path, validation: bool, folder: Path) -> dict[str, float]:
    """Return the accuracy, per cent, of each tier's slice after the last round. Raises TierfedError and ToolError."""
    each = write_data(split, seed, data, validation, folder / "data.npz")
    described = describe(variant, seed, each, folder)
    inputs = load(described)
    state, settings = State(inputs.weights), replace(round_settings(described), pace=PACE)
    workshop, joins = Workshop(inputs), joiner(inputs)
    nodes = workshop.nodes(variant)
    earlier = None
    for number in range(1, described.training.rounds + 1):
        before = state.weights
        going = run_round(number, inputs.graph, state, nodes, settings, _complain, earlier, joins)
        earlier, state = before, asyncio.run(going).state
    return workshop.accuracies(state, variant)


def write_data(split: str, seed: int, data: Path, validation: bool, path: Path) -> int:
    """Write what the nodes hold, and SPARE images that none does, as a data set that says whose each sample is; return
    how many are each node's: EACH, or fewer of a small data set."""
    whole = load_dataset(data)
    pool = np.arange(VALIDATION if validation else 0, len(whole.x_train))
    each = min(EACH, (len(pool) - SPARE) // NODES)
    if each < 1:
        raise ToolError(f"{data}: {len(pool)} images to deal out; expected more than {SPARE}: take the full MNIST")
    dealt = _deal(split, seed, whole.y_train[pool], each)
    left = np.setdiff1d(np.arange(len(pool)), np.concatenate(dealt))
    proxy = np.random.default_rng([seed, SEED_STREAM]).permutation(left)[:SPARE]
    indices = pool[np.concatenate([*dealt, proxy])]
    judged = (whole.x_train[:VALIDATION], whole.y_train[:VALIDATION])
    x_test, y_test = judged if validation else (whole.x_test, whole.y_test)
    owner = np.repeat(np.arange(NODES + 1), [each] * NODES + [SPARE])
    arrays = {"x_train": whole.x_train[indices], "y_train": whole.y_train[indices], "owner_train": owner}
    np.savez(path, x_test=x_test, y_test=y_test, **arrays)
    return each


def _deal(split: str, seed: int, labels: Array, each: int) -> list[Array]:
    """Return each node's indices. tier: the wide nodes have one half of the classes, the narrow ones the other."""
    if split == "iid":
        return partition(labels, NODES, each, "iid", seed)
    if split == "dirichlet":
        return partition(labels, NODES, each, "dirichlet", seed, alpha=0.3)
    if split == "shards":
        return partition(labels, NODES, each, "shards", seed, classes_per_node=2)
    rng, half = np.random.default_rng([seed, SEED_STREAM]), (int(labels.max()) + 1) // 2
    low, high = (rng.permutation(np.flatnonzero(side)) for side in (labels < half, labels >= half))
    wide = NODES // 2  # the expanded and the base ones come first
    return [*high[: wide * each].reshape(wide, each), *low[: (NODES - wide) * each].reshape(NODES - wide, each)]


def describe(variant: Variant, seed: int, each: int, folder: Path) -> Federation:
    """Write the federation file of a run beside its data, and read it."""
    tables = {
        "model": {"path": str(EXAMPLE)},
        "data": {"path": "data.npz", "samples_per_node": each, "split": "owner"},
        "training": {**example(), **TRAINING, **variant.training},
        "aggregation": dict(variant.aggregation),
        "nodes": [{"board": BOARD.id, "name": "node", "count": NODES}],
        **({"proxy": {"images": variant.proxy}} if variant.proxy else {}),
    }
    document = {"name": "fleet", "seed": seed, **tables}
    return federation.parse(document, json.dumps(document), folder / "federation.toml")


def example() -> dict[str, Any]:
    """Return the example's [training], which is what a user begins with."""
    return federation.load(EXAMPLE.with_name("federation.toml")).training.model_dump()


class Member(InProcessNode):
    """A node that may be one of the attackers."""

    def __init__(self, name: str, engine: Engine, share: Share, liars: Attackers, index: int) -> None:
        super().__init__(name, engine, share.x, share.y, share.proxy)
        self._liars, self._index = liars, index

    def changed(self, after: bytes, order: Order) -> Sequence[np.ndarray]:
        """Return what it sends, which is what it learnt unless it lies."""
        return self._liars.sent(self._index, order.round, super().changed(after, order))


class Workshop:
    """The engines of a run's nodes, each compiled once."""

    def __init__(self, inputs: Inputs) -> None:
        self._inputs = inputs
        self._engines: dict[tuple[str, str], Engine] = {}

    def nodes(self, variant: Variant) -> list[Member]:
        """Return those that take part. Raises CompilerError and DataError."""
        shares = deal(self._inputs.federation, self._inputs.graph.classes)
        liars = drawn(self._inputs.federation.seed, NODES, ATTACKERS, variant.attack) if variant.attack else NOBODY
        nodes = []
        for index, ((name, share), tier) in enumerate(zip(shares.items(), variant.tiers, strict=True)):
            if tier is not None:
                engine = self.engine(tier, variant.small if tier in SMALL else "ordinary")
                nodes.append(Member(name, engine, share, liars, index))
        return nodes

    def engine(self, tier: str, kind: str) -> Engine:
        """Return what trains a tier on a board of some kind. Raises CompilerError."""
        if (tier, kind) not in self._engines:
            described, graph = self._inputs.federation, self._inputs.graph
            tiers = {each.name: each for each in described.tier_list()}
            made = plan_on(kind, graph, list(tiers.values()), tiers[tier], described.plan_settings())
            self._engines[tier, kind] = Engine(made, self._inputs.weights)
        return self._engines[tier, kind]

    def accuracies(self, state: State, variant: Variant) -> dict[str, float]:
        """Return the accuracy of each tier's slice, or if all nodes are of one tier only of that."""
        judge, dataset = self.engine(TIERS[0], "ordinary"), self._inputs.dataset
        judge.weights = pack(judge.plan, state.result)
        images = np.ascontiguousarray(dataset.x_test.reshape(len(dataset.x_test), -1))
        return {
            tier: round(100 * float((judge.logits(images, width).argmax(1) == dataset.y_test).mean()), 4)
            for width, tier in enumerate(TIERS)
            if variant.judged in (None, tier)
        }


def plan_on(kind: str, graph: Graph, tiers: list[Tier], tier: Tier, settings: PlanTraining) -> Plan:
    """Return the plan of a tier on a board with all the room it wants, on one without room for a gradient buffer
    (batch1), or on one that trains in fixed point."""
    board = with_kernel(BOARD, "fixed") if kind == "fixed" else BOARD
    made = plan(board, graph, tiers, tier, settings)
    if kind == "batch1":
        made = plan(without_gradients(board, graph, tiers, tier, settings), graph, tiers, tier, settings)
    assert made.fits and made.accumulates == (kind == "ordinary"), made
    return made


def without_gradients(board: Board, graph: Graph, tiers: list[Tier], tier: Tier, settings: PlanTraining) -> Board:
    """Return the board with a byte of RAM less than a gradient buffer needs."""
    least = replace(settings, proxy=0, encoding="weights")
    return replace(board, ram=plan(board, graph, tiers, tier, least).ram - 1)


def _complain(event: Event) -> None:
    """Nobody may be missing: the figures would be another federation's."""
    if isinstance(event, NodeFailed):  # who is refused, is so on boards, too
        raise ToolError(f"{event.node} failed in round {event.round}: {event.reason}")
