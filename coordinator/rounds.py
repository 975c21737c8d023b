"""One round: orders out, updates in, one new global model. Knows nothing of ports, links or processes.

A node is anything with a plan that can train; a gateway with boards of its own or a model in this process will do.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import numpy.typing as npt

from codegen.graph import Graph
from codegen.planner import EncodingChoice, Plan
from codegen.tiers import Select, SubModel, channel_order, sub_model
from codegen.weights import pack
from coordinator.aggregation import Contribution, Weights
from coordinator.aggregation.plausibility import Suspect, judge
from coordinator.aggregation.sums import library
from coordinator.deltas import Delta, UpdateError
from coordinator.events import NodeAnswered, NodeFailed, NodeRefused, Observer, RoundAggregated, RoundStarted
from coordinator.joining import GLOBAL, Choice, Joiner, model_of
from coordinator.state import State, Targets

# A node may take this much longer than its plan says, and this many seconds more, before the round goes on without it.
PATIENCE_FACTOR = 4.0
PATIENCE_SECONDS = 30.0
# A node that is lost is waited for while others work or are needed, and for as long as it takes to put a plug back.
GRACE_SECONDS = 10.0
RETURN_SECONDS = 2.0  # of every later round: it may be there again
LOOK_SECONDS = 0.25

SMOOTHING = 0.1  # added to each label's share; with 0.001 `shards` and `tier` lose 2 to 5 points (docs/experiments.md)
LEAST_VARIETY = 3.0  # labels; images of a node that has fewer stay where they are


@dataclass(frozen=True)
class Order:
    """What a node is told to do in one round."""

    round: int
    seed: int  # u32
    learning_rate: float
    momentum: float
    epochs: int
    batch: int
    nested: bool
    encoding: EncodingChoice
    adjustment: npt.NDArray[np.float32] | None  # [classes], added to the logits
    weights: bytes  # the sub-model's trainable tensors, as codegen.weights packs them
    rehearsals: int = 0  # times that each proxy image which the node holds is trained on in an epoch
    targets: Targets | None = None  # of all proxy images; a node takes its first plan.proxy rows
    max_norm: float = 0.0  # bound of a batch's mean gradient; 0: none
    shift: int = 0  # pixels by which images are moved at random, at most


@dataclass(frozen=True)
class Update:
    """What a node gives back."""

    node: str
    round: int
    delta: Sequence[npt.NDArray[np.float32]]  # trainable tensors of its sub-model, after minus before
    samples: int  # it was trained on, one epoch's worth
    loss: float  # mean of the last epoch
    saturated: int = 0  # times that a fixed-point weight or logit was held at its limit


@dataclass(frozen=True)
class Loss:
    """A node is being looked for."""

    since: float  # the loop's time
    reason: str


class NodeUnavailable(Exception):  # noqa: N818 - it says what the node is
    """A node gives no update in this round; the message says why, in words that follow its name and a colon."""


class UpdateRefused(NodeUnavailable):
    """What a node gave cannot be true, which is worse than to give nothing: it counts against the node."""


class Node(Protocol):
    """A member of the federation. `settle`, then `train`; both raise NodeUnavailable (`train` UpdateRefused, too), and
    nothing of the round is left behind when they do."""

    @property
    def name(self) -> str:
        """Unique in the federation."""

    @property
    def plan(self) -> Plan:
        """The sub-model that it trains and what that costs."""

    @property
    def label_counts(self) -> tuple[int, ...]:
        """How many samples of each class it has."""

    @property
    def lost(self) -> Loss | None:
        """Since when it has been out of reach, and why; None if it is not."""

    async def settle(self, order: Order) -> None:
        """Begin the round of `order`, whose adjustment is still to come: `label_counts` holds until `train` ends."""

    async def train(self, order: Order) -> Update:
        """Train the weights of `order` on the node's own samples."""


@dataclass(frozen=True)
class Settings:
    """What of the federation file a round depends on."""

    seed: int
    learning_rate: Callable[[int], float]  # of a round, counted from 1
    momentum: float
    epochs: int
    batch: int
    nested: bool
    logit_adjustment: bool
    encoding: EncodingChoice
    select: Select
    min_nodes: int
    most_samples: int  # that a node can have
    plausible: bool = True  # only what is plausible beside the others' updates is aggregated
    max_norm: float = 0.0  # bound of a batch's mean gradient; 0: none
    shift: int = 0  # pixels by which a node moves its images at random, if its labels vary
    rehearsals: int = 0  # times that a node trains each of its proxy images in an epoch
    pace: float = 1.0  # how many times slower than its plan a node may be besides: emulators are

    def reach(self, number: int, samples: int) -> float:
        """Return how far a node's steps in round `number` go along gradients of norm 1."""
        return self.learning_rate(number) / (1 - self.momentum) * self.epochs * samples / self.batch


@dataclass(frozen=True)
class Outcome:
    """What a round came to. Not aggregated: `state` is what it began with."""

    state: State
    answered: tuple[str, ...]
    choice: Choice | None = None  # what it was aggregated by
    against: tuple[str, ...] = ()  # of them, those whose updates point away from every other

    @property
    def aggregated(self) -> bool:
        """Whether there were enough answers."""
        return self.choice is not None


async def run_round(
    number: int,
    graph: Graph,
    state: State,
    nodes: Sequence[Node],
    settings: Settings,
    observer: Observer,
    earlier: Weights | None = None,
    joiner: Joiner | None = None,
) -> Outcome:
    """Run round `number` on all nodes at once and return the new state. `earlier`: the weights before the last step;
    `joiner`: what joins the answers, if it is not their mean.

    The result depends on the order of `nodes` (the federation file's), not on the order in which they answer.
    """
    clock = asyncio.get_running_loop().time
    library()  # or CompilerError: no node shall train what cannot be summed
    started = clock()
    observer(RoundStarted(number, tuple(node.name for node in nodes), settings.learning_rate(number)))
    cuts = RoundCuts(number, graph, state, settings.select)
    timers: dict[str, asyncio.Timeout] = {}
    tasks = [asyncio.create_task(_ask(node, number, cuts, settings, timers, observer)) for node in nodes]
    hurry = asyncio.create_task(_hurry(nodes, tasks, timers, settings.min_nodes))
    try:
        contributions = [each for each in await asyncio.gather(*tasks) if each is not None]  # in node order
    finally:
        for task in (hurry, *tasks):
            task.cancel()
        await asyncio.gather(hurry, *tasks, return_exceptions=True)
    models = {GLOBAL: (graph, state.weights)} | _own_models(nodes, state)  # what can be averaged with each other
    refused: dict[str, str] = {}
    against: tuple[str, ...] = ()
    if settings.plausible:
        trained = {node.name: rehearsed(node, state, settings) for node in nodes}
        suspects = [Suspect(each, settings.reach(number, each.samples + trained[each.node])) for each in contributions]
        for name, model in models.items():
            alike = [suspect for suspect in suspects if model_of(suspect.contribution.sub_model, state) == name]
            verdict = judge(alike, *model, None if name else earlier)
            refused |= verdict.refused
            against += verdict.against
    believed = []
    for each in contributions:
        if each.node in refused:
            observer(NodeRefused(each.node, number, refused[each.node]))
        else:
            believed.append(each)
    answered = tuple(each.node for each in believed)
    enough = len(answered) >= settings.min_nodes
    reason = "" if enough else f"{len(answered)} of {len(nodes)} nodes answered; min_nodes is {settings.min_nodes}"
    outcome = Outcome(state, answered, against=against)
    if enough:
        joined = await asyncio.to_thread((joiner or Joiner(graph)).join, number, state, believed)
        outcome = Outcome(joined.state, answered, joined.choice, against)
    observer(RoundAggregated(number, answered, enough, reason, clock() - started))
    return outcome


def _own_models(nodes: Sequence[Node], state: State) -> dict[str, tuple[Graph, Weights]]:
    """Return the models that nodes have of their own, and their weights, by name: their only tier is all of them."""
    cuts = {node.plan.sub_model.tier.name: node.plan.sub_model for node in nodes}
    return {name: (cuts[name].graph, weights) for name, weights in state.own.items() if name in cuts}


class RoundCuts:
    """The sub-models of one round and their weights, made once a tier and arithmetic."""

    def __init__(self, number: int, graph: Graph, state: State, select: Select) -> None:
        """Fix which channels every tier takes in round `number`, which begins with `state`."""
        self._graph, self.state = graph, state
        self._order = channel_order(graph, select, number, state.weights)
        self._made: dict[tuple[str, str], tuple[SubModel, bytes]] = {}

    def of(self, plan: Plan) -> tuple[SubModel, bytes]:
        """Return a plan's sub-model in this round and its packed weights. Raises NodeUnavailable if fixed point cannot
        hold them."""
        tier = plan.sub_model.tier
        key = tier.name, plan.kernel
        if key not in self._made:
            own = self.state.own.get(tier.name)
            cut = sub_model(self._graph, tier, self._order) if own is None else plan.sub_model
            try:
                self._made[key] = cut, pack(plan, cut.cut(self.state.weights if own is None else own))
            except ValueError as error:
                raise NodeUnavailable(str(error)) from error
        return self._made[key]


async def _hurry(
    nodes: Sequence[Node],
    tasks: Sequence[asyncio.Task[Contribution | None]],
    timers: Mapping[str, asyncio.Timeout],
    least: int,
) -> None:
    """Once all that are still asked are lost, and there are enough answers without them, wait for each no longer than
    the grace."""
    clock = asyncio.get_running_loop().time
    returned = clock() + RETURN_SECONDS
    while waiting := {task: node for node, task in zip(nodes, tasks, strict=True) if not task.done()}:
        answers = sum(task not in waiting and task.result() is not None for task in tasks)
        losses = [(loss, timers[node.name]) for node in waiting.values() if (loss := node.lost) is not None]
        if answers >= least and len(losses) == len(waiting):
            for loss, timer in losses:
                now, end = clock(), timer.when()
                if now >= max(loss.since + GRACE_SECONDS, returned) and end is not None and end > now:
                    timer.reschedule(now)
        await asyncio.wait(waiting, timeout=LOOK_SECONDS, return_when=asyncio.FIRST_COMPLETED)


async def _ask(
    node: Node,
    number: int,
    cuts: RoundCuts,
    settings: Settings,
    timers: dict[str, asyncio.Timeout],
    observer: Observer,
) -> Contribution | None:
    """Return one node's contribution, or None after telling the observer why there is none. Its deadline is in
    `timers`, by the node's name."""
    clock = asyncio.get_running_loop().time
    started = clock()
    limit = settings.pace * PATIENCE_SECONDS
    try:
        cut, packed = cuts.of(node.plan)
        order = make_order(node, number, packed, cuts.state.targets, settings)
        async with asyncio.timeout(limit) as timers[node.name]:
            await node.settle(order)
            order = adjusted(order, node, settings)
            limit = settings.pace * deadline(node.plan, sum(node.label_counts), settings.epochs)
            timers[node.name].reschedule(clock() + limit)
            update = await node.train(order)
        check(update, order, cut, node, settings.most_samples)
    except TimeoutError:
        observer(NodeFailed(node.name, number, _too_late(node, limit, settings.pace)))
        return None
    except UpdateRefused as refusal:
        observer(NodeRefused(node.name, number, str(refusal)))
        return None
    except NodeUnavailable as failure:
        observer(NodeFailed(node.name, number, str(failure)))
        return None
    seconds = clock() - started
    observer(NodeAnswered(node.name, number, update.samples, update.loss, seconds, update.saturated))
    return Contribution(node.name, cut, update.delta, update.samples, node.label_counts, update.loss)


def _too_late(node: Node, limit: float, pace: float) -> str:
    loss = node.lost
    if loss is not None:
        return f"{loss.reason}; it was not found again in time"
    return f"no update within {limit:.0f} s, {PATIENCE_FACTOR * pace:g} times its plan"


def rehearsed(node: Node, state: State, settings: Settings) -> int:
    """Return how many proxy images a node trains on in an epoch of a round that begins with `state`, beside its own."""
    return 0 if state.targets is None else settings.rehearsals * node.plan.proxy


def make_order(node: Node, number: int, packed: bytes, targets: Targets | None, settings: Settings) -> Order:
    """Return what `node` is told in round `number`, but for the adjustment."""
    rehearses = targets is not None and node.plan.proxy > 0
    return Order(
        round=number,
        seed=node_seed(settings.seed, node.name, number),
        learning_rate=settings.learning_rate(number),
        momentum=settings.momentum,
        epochs=settings.epochs,
        batch=settings.batch,
        nested=settings.nested,
        encoding=settings.encoding,
        adjustment=None,
        weights=packed,
        max_norm=settings.max_norm,
        rehearsals=settings.rehearsals if rehearses else 0,
        targets=targets if rehearses else None,
    )


def adjusted(order: Order, node: Node, settings: Settings) -> Order:
    """Return the order with what depends on the labels that the node has now: logit adjustment and shift."""
    counts = node.label_counts
    order = replace(order, shift=settings.shift if variety(counts) >= LEAST_VARIETY else 0)
    return replace(order, adjustment=logit_adjustment(counts)) if settings.logit_adjustment else order


def check(update: Update, order: Order, cut: SubModel, node: Node, most_samples: int) -> None:
    """Raise UpdateRefused unless `update` may enter the global model, as far as it tells by itself."""
    samples = sum(node.label_counts)
    if update.round != order.round:
        raise UpdateRefused(f"answered for round {update.round}, not {order.round}")
    if update.samples != samples:
        raise UpdateRefused(f"says {update.samples} samples, but its labels make {samples}")
    if samples > most_samples:
        raise UpdateRefused(f"says {samples} samples; samples_per_node is {most_samples}")
    if not np.isfinite(update.loss):
        raise UpdateRefused("its loss is not finite; a smaller learning_rate may help")
    try:
        Delta.of(cut.graph, update.delta).check()
    except UpdateError as error:
        raise UpdateRefused(str(error)) from error


def deadline(plan: Plan, samples: int, epochs: int) -> float:
    """Return the seconds after which a node is given up for the round."""
    return PATIENCE_SECONDS + PATIENCE_FACTOR * plan.round_seconds(samples, epochs)


def node_seed(seed: int, name: str, number: int) -> int:
    """Return the u32 that a node shuffles and rounds with: the first 4 bytes, little-endian, of
    BLAKE2s("tierfed/<federation seed>/<node name>/<round>")."""
    text = f"tierfed/{seed}/{name}/{number}".encode()
    return int.from_bytes(hashlib.blake2s(text, digest_size=4).digest(), "little")


def logit_adjustment(label_counts: Sequence[int]) -> npt.NDArray[np.float32]:
    """Return the logarithm of a node's label shares, smoothed and centred: [classes], mean 0.

    Added to the logits in the loss, it takes from the node's labels the blame for being rare (Menon et al. 2021). The
    smoothing keeps some of it for labels that the node has not: else nothing would hold their logits.
    """
    counts = np.asarray(label_counts, np.float64)
    logs = np.log(counts / max(1.0, counts.sum()) + SMOOTHING)
    return np.asarray(logs - logs.mean(), np.float32)


def variety(label_counts: Sequence[int]) -> float:
    """Return how many labels a node has, counted by their shares: the exponential of their entropy, 1 to classes."""
    shares = np.asarray([count for count in label_counts if count], np.float64)
    shares /= max(1.0, shares.sum())
    return float(np.exp(-np.sum(shares * np.log(shares))))
