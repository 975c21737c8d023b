"""A round against nodes that live in this process."""

import asyncio
import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import numpy as np
import pytest

import boards
from codegen.graph import Graph, Layer
from codegen.planner import Plan, Training, best
from codegen.tiers import Select, Tier, tiers_from
from codegen.weights import unpack
from coordinator import rounds
from coordinator.aggregation import Contribution, Weights
from coordinator.aggregation.robust import Rule, aggregator
from coordinator.aggregation.weighting import Weighting, weighted
from coordinator.events import Event, NodeAnswered, NodeFailed, NodeRefused, RoundAggregated, RoundStarted
from coordinator.federation import Aggregation
from coordinator.joining import Joiner
from coordinator.rounds import Loss, NodeUnavailable, Order, Outcome, Settings, Update, run_round
from coordinator.state import State

HIDDEN = Layer("hidden", "dense", (1, 1, 12), (1, 1, 8), slope=0.1, bias=True, trainable=True)
LOGITS = Layer("logits", "dense", (1, 1, 8), (1, 1, 3), bias=True, trainable=True)
GRAPH = Graph("tiny", (HIDDEN, LOGITS), 3, True)
SETTINGS = Settings(
    seed=7, learning_rate=lambda number: 0.5**number, momentum=0.0, epochs=2, batch=8, nested=True,
    logit_adjustment=True, encoding="auto", select="prefix", min_nodes=2, most_samples=10,
)  # fmt: skip


@cache
def plan(tier: str, kernel: str = "f32") -> Plan:
    widths = tiers_from({"expanded": 1.0, "base": 0.5})
    board = boards.load("esp32dev")
    board = replace(board, training=replace(board.training, kernel=kernel))
    return best(board, GRAPH, [each for each in widths if each.name == tier], Training())


def draw(graph: Graph) -> Weights:
    rng = np.random.default_rng(5)
    return [rng.normal(size=tensor.shape).astype(np.float32) for tensor in graph.tensors]


def weights() -> Weights:
    return draw(GRAPH)


@dataclass
class Local:
    """A node that answers after `delay` with noise seeded by its order, or with what `change` makes of that."""

    name: str
    tier: str = "expanded"
    delay: float = 0.0
    kernel: str = "f32"
    label_counts: tuple[int, ...] = (4, 3, 3)
    lost: Loss | None = None
    settled: tuple[int, ...] | None = None  # labels as they turn out when the round begins
    change: Callable[[Update], Update] = lambda update: update
    orders: list[Order] = field(default_factory=list)

    @property
    def plan(self) -> Plan:
        return plan(self.tier, self.kernel)

    async def settle(self, _order: Order) -> None:
        if self.settled is not None:
            self.label_counts = self.settled
        if not any(self.label_counts):
            raise NodeUnavailable("it has no samples")

    async def train(self, order: Order) -> Update:
        self.orders.append(order)
        await asyncio.sleep(self.delay)
        rng = np.random.default_rng(order.seed)
        shapes = [tensor.shape for tensor in self.plan.sub_model.graph.tensors]
        delta = [rng.normal(size=shape).astype(np.float32) for shape in shapes]
        return self.change(Update(self.name, order.round, delta, sum(self.label_counts), 0.25))


def play(
    nodes: list[Local], number: int = 1, settings: Settings = SETTINGS, joiner: Joiner | None = None
) -> tuple[Outcome, list[Event]]:
    events: list[Event] = []
    outcome = asyncio.run(run_round(number, GRAPH, State(weights()), nodes, settings, events.append, joiner=joiner))
    return outcome, events


def bits(tensors: Weights) -> list[bytes]:
    return [tensor.tobytes() for tensor in tensors]


def failures(events: list[Event], kind: type[NodeFailed] | type[NodeRefused] = NodeFailed) -> dict[str, str]:
    return {event.node: event.reason for event in events if isinstance(event, kind)}


def test_the_order_of_arrival_changes_nothing() -> None:
    delays = [(0.0, 0.02, 0.04), (0.04, 0.02, 0.0), (0.02, 0.0, 0.04)]
    results = []
    for delay in delays:
        outcome, events = play([Local(name, tier, wait) for name, tier, wait in
                                zip("abc", ("expanded", "base", "expanded"), delay, strict=True)])  # fmt: skip
        arrived = [event.node for event in events if isinstance(event, NodeAnswered)]
        assert arrived == [name for _, name in sorted(zip(delay, "abc", strict=True))]
        assert outcome.answered == ("a", "b", "c")
        results.append(bits(outcome.state.weights))
    assert results[0] == results[1] == results[2] != bits(weights())


OWN = Graph("own", (replace(HIDDEN, out_shape=(1, 1, 5)), replace(LOGITS, in_shape=(1, 1, 5))), 3, True)


class Owner(Local):
    """A node with a model of its own."""

    @property
    def plan(self) -> Plan:
        return best(boards.load("esp32dev"), OWN, [Tier("own", 1.0)], Training())


def test_a_model_of_their_own_is_averaged_by_those_that_have_it() -> None:
    own = draw(OWN)
    state = State(weights(), own={"own": own, "nobody's": own})
    others = [Local("a"), Local("b", "base")]
    owners = [Owner("c", label_counts=(8, 1, 1)), Owner("d", label_counts=(1, 1, 3))]
    mixed = asyncio.run(run_round(1, GRAPH, state, [others[0], owners[0], others[1], owners[1]], SETTINGS, print)).state
    assert bits(mixed.weights) == bits(play(others)[0].state.weights)
    assert owners[0].orders[0].weights == b"".join(bits(own))
    assert list(mixed.own) == list(state.own) and bits(mixed.own["nobody's"]) == bits(own)
    deltas = [asyncio.run(owner.train(owner.orders[0])).delta for owner in owners]
    for tensor, before, one, other in zip(mixed.own["own"], own, *deltas, strict=True):
        np.testing.assert_allclose(tensor, before + (10 * one + 5 * other) / 15, rtol=1e-5, atol=1e-6)


def test_who_has_a_model_of_its_own_is_judged_beside_its_like() -> None:
    """A hundred times the norm that others have is too much among them, not of weights a hundred times as large."""
    large = 100 * np.ones(1, np.float32)
    state = State(weights(), own={"own": [tensor * large for tensor in draw(OWN)]})

    def grown(update: Update) -> Update:
        return replace(update, delta=[delta * large for delta in update.delta])

    nodes = [*(Local(name) for name in "abcd"), Owner("e", change=grown)]
    events: list[Event] = []
    outcome = asyncio.run(run_round(1, GRAPH, state, nodes, SETTINGS, events.append))
    assert outcome.answered == ("a", "b", "c", "d", "e") and not failures(events, NodeRefused)


def test_what_a_node_is_told() -> None:
    wide, narrow = Local("wide"), Local("narrow", "base", label_counts=(10, 0, 0))
    play([wide, narrow], 3)
    order = narrow.orders[0]
    assert (order.round, order.learning_rate, order.epochs, order.batch, order.nested) == (3, 0.125, 2, 8, True)
    cut = narrow.plan.sub_model
    assert order.weights == b"".join(tensor.tobytes() for tensor in cut.cut(weights()))
    assert wide.orders[0].weights == b"".join(bits(weights()))
    assert order.adjustment is not None and order.adjustment.dtype == np.float32
    shares = np.log(np.array([11, 1, 1]) / 13)
    np.testing.assert_allclose(order.adjustment, shares - shares.mean(), rtol=1e-6)
    assert wide.orders[0].seed != order.seed
    digest = hashlib.blake2s(b"tierfed/7/narrow/3", digest_size=4).digest()
    assert order.seed == int.from_bytes(digest, "little")


def test_labels_count_as_they_are_when_the_round_begins() -> None:
    late, empty = Local("late", settled=(10, 0, 0)), Local("empty", settled=(0, 0, 0))
    outcome, events = play([late, Local("other"), empty])
    assert outcome.answered == ("late", "other")
    assert failures(events) == {"empty": "it has no samples"}
    np.testing.assert_array_equal(late.orders[0].adjustment, rounds.logit_adjustment((10, 0, 0)))


def test_every_node_is_sent_its_own_arithmetic() -> None:
    nodes = [Local("a"), Local("b", kernel="fixed"), Local("c", "base", kernel="fixed")]
    outcome, _ = play(nodes)
    assert outcome.answered == ("a", "b", "c")
    for node in nodes[1:]:
        sent = unpack(node.plan, node.orders[0].weights)
        for value, wanted in zip(sent, node.plan.sub_model.cut(weights()), strict=True):
            np.testing.assert_allclose(value, wanted, atol=2**-12)
    assert len(nodes[1].orders[0].weights) == 4 + 2 * nodes[1].plan.sub_model.graph.parameters


def test_weights_that_fixed_point_cannot_hold_cost_the_node_its_round() -> None:
    cuts = rounds.RoundCuts(1, GRAPH, State([tensor * 1e20 for tensor in weights()]), "prefix")
    assert cuts.of(plan("expanded"))[1]
    with pytest.raises(NodeUnavailable, match="too large for fixed point; lower the learning rate"):
        cuts.of(plan("expanded", "fixed"))


def test_what_a_node_held_at_its_limit_is_told() -> None:
    _, events = play([Local("a", change=lambda update: replace(update, saturated=7)), Local("b")])
    held = {event.node: event.saturated for event in events if isinstance(event, NodeAnswered)}
    assert held == {"a": 7, "b": 0}


def test_adjustment_can_be_switched_off() -> None:
    node = Local("a")
    play([node, Local("b")], settings=replace(SETTINGS, logit_adjustment=False))
    assert node.orders[0].adjustment is None


def refuse(_: Update) -> Update:
    raise NodeUnavailable("its port vanished")


def with_value(value: float) -> Callable[[Update], Update]:
    def change(update: Update) -> Update:
        update.delta[1][2] = value
        return update

    return change


def test_a_node_that_gives_nothing_has_failed() -> None:
    outcome, events = play([Local("a"), Local("gone", change=refuse), Local("c")])
    assert outcome.aggregated and outcome.answered == ("a", "c")
    assert (failures(events), failures(events, NodeRefused)) == ({"gone": "its port vanished"}, {})


OFFENCES = [
    (with_value(np.nan), "not finite"),
    (with_value(-np.inf), "not finite"),
    (lambda update: replace(update, loss=float("nan")), "not finite"),
    (lambda update: replace(update, round=0), "answered for round 0, not 1"),
    (lambda update: replace(update, samples=1_000_000), "says 1000000 samples, but its labels make 10"),
    (lambda update: replace(update, delta=update.delta[:-1]), "does not have the shapes of its sub-model"),
    (lambda update: replace(update, delta=[each[..., :1] for each in update.delta]), "does not have the shapes"),
]


@pytest.mark.parametrize(("change", "sentence"), OFFENCES)
def test_what_cannot_be_true_is_refused(change: Callable[[Update], Update], sentence: str) -> None:
    outcome, events = play([Local("a"), Local("bad", change=change), Local("c")])
    alone, _ = play([Local("a"), Local("c")])
    assert outcome.aggregated and outcome.answered == ("a", "c")
    assert sentence in failures(events, NodeRefused)["bad"] and not failures(events)
    assert bits(outcome.state.weights) == bits(alone.state.weights)


def test_a_node_that_says_it_has_more_samples_than_there_are_is_refused() -> None:
    outcome, events = play([Local("a"), Local("bad", label_counts=(10, 1, 0)), Local("c")])
    assert outcome.answered == ("a", "c")
    assert failures(events, NodeRefused) == {"bad": "says 11 samples; samples_per_node is 10"}


@pytest.mark.parametrize("plausible", [True, False])
def test_what_is_not_plausible_is_not_aggregated(plausible: bool) -> None:
    huge = Local("huge", change=lambda update: replace(update, delta=[1e4 * each for each in update.delta]))
    outcome, events = play([Local("a"), huge, Local("b"), Local("c")], settings=replace(SETTINGS, plausible=plausible))
    alone, _ = play([Local("a"), Local("b"), Local("c")])
    assert (bits(outcome.state.weights) == bits(alone.state.weights)) == plausible
    assert outcome.answered == (("a", "b", "c") if plausible else ("a", "huge", "b", "c"))
    assert ["more than" in reason for reason in failures(events, NodeRefused).values()] == [True] * plausible


JOINED = [
    ({"weights": "uniform"}, "none", "uniform"),
    ({"weights": "inverse_loss"}, "none", "inverse_loss"),
    ({"robust": "median"}, "median", "samples"),
    ({"robust": "krum", "faulty": 0.4}, "krum", "samples"),
]


@pytest.mark.parametrize(("changes", "rule", "weighting"), JOINED)
def test_updates_are_joined_as_the_settings_say(changes: dict[str, Any], rule: Rule, weighting: Weighting) -> None:
    nodes = [Local("a"), Local("b", change=lambda update: replace(update, loss=0.5)),
             Local("c", "base", label_counts=(1, 1, 1)), Local("d"), Local("e")]  # fmt: skip
    outcome, events = play(nodes, joiner=Joiner(GRAPH, Aggregation(**changes)))
    losses = {event.node: event.loss for event in events if isinstance(event, NodeAnswered)}
    oracle = aggregator(rule, GRAPH, weights(), changes.get("faulty", 0.2))
    given = []
    for node in nodes:
        update = asyncio.run(node.train(node.orders[0]))
        given.append(Contribution(node.name, node.plan.sub_model, update.delta, update.samples, node.label_counts,
                                  losses[node.name]))  # fmt: skip
    for each in weighted(given, weighting):
        oracle.add(each)
    assert bits(outcome.state.weights) == bits(oracle.result())
    assert bits(outcome.state.weights) != bits(play(nodes)[0].state.weights)


def test_a_node_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rounds, "PATIENCE_SECONDS", 0.05)
    monkeypatch.setattr(rounds, "PATIENCE_FACTOR", 0.0)
    outcome, events = play([Local("a"), Local("slow", delay=30.0), Local("c")])
    assert outcome.answered == ("a", "c")
    assert "no update within" in failures(events)["slow"]


def test_the_deadline_follows_from_the_plan() -> None:
    made = plan("expanded")
    more = rounds.deadline(made, 2000, 3) - rounds.deadline(made, 1000, 3)
    assert more == pytest.approx(rounds.PATIENCE_FACTOR * 3000 * made.step_seconds)


def test_too_few_answers_change_nothing() -> None:
    outcome, events = play([Local("a"), Local("b", change=refuse), Local("c", change=refuse)])
    assert not outcome.aggregated and bits(outcome.state.weights) == bits(weights())
    (end,) = [event for event in events if isinstance(event, RoundAggregated)]
    assert end.reason == "1 of 3 nodes answered; min_nodes is 2" and end.answered == ("a",)


def test_a_bug_is_not_hidden() -> None:
    def broken(_: Update) -> Update:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        play([Local("a"), Local("b", change=broken), Local("c", delay=0.05)])


def test_events_in_order() -> None:
    _, events = play([Local("a"), Local("b", delay=0.01)])
    assert [type(event) for event in events] == [RoundStarted, NodeAnswered, NodeAnswered, RoundAggregated]


@pytest.mark.parametrize("select", ["rolling", "importance"])
def test_other_slices_go_there_and_come_back(select: Select) -> None:
    """Where only narrow nodes train, exactly the channels that were sent change."""
    node = Local("a", "base", change=lambda update: replace(update, delta=[np.ones_like(d) for d in update.delta]))
    outcome, _ = play([node], 3, replace(SETTINGS, select=select, min_nodes=1))
    changed = np.flatnonzero(outcome.state.weights[1] != weights()[1])
    assert len(changed) == 4
    sent = np.frombuffer(node.orders[0].weights, "<f4")
    np.testing.assert_array_equal(np.sort(sent[12 * 4 : 12 * 4 + 4]), np.sort(weights()[1][changed]))
    if select == "rolling":
        assert changed.tolist() == [3, 4, 5, 6]
