"""What a run depends on, and what it leaves: the model, the headers, the summary."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

import boards
from codegen.graph import Graph
from codegen.header import model_header
from codegen.model_file import load_keras
from codegen.planner import Plan, best, plan
from coordinator.aggregation import Weights
from coordinator.data import Dataset, load_dataset
from coordinator.events import Evaluated, RoundAggregated, RunStarted
from coordinator.federation import Federation
from coordinator.global_model import OwnModel, global_model, own_models
from coordinator.journal import Line, event_name, of_kind, weights_sha256, write_durably
from coordinator.state import Shapes, State
from coordinator.tally import tally


@dataclass(frozen=True)
class Inputs:
    """Everything a run depends on, loaded."""

    federation: Federation
    graph: Graph
    weights: Weights  # before the first round
    dataset: Dataset
    plans: dict[str, Plan]  # by what kind the nodes are: NodeSpec.kind
    notes: tuple[str, ...] = ()  # what there is to say of the plans, a sentence each
    own: Mapping[str, OwnModel] = field(default_factory=dict)  # models that nodes have instead of a tier, by name

    @property
    def shapes(self) -> Shapes:
        """What the states of the run look like."""
        own = {name: [tensor.shape for tensor in each.graph.tensors] for name, each in self.own.items()}
        return Shapes([tensor.shape for tensor in self.graph.tensors], own=own)

    @property
    def state(self) -> State:
        """What the first round begins with."""
        return State(self.weights, own={name: each.weights for name, each in self.own.items()})

    @property
    def fingerprint(self) -> str:
        """SHA-256, as hex, of the federation file's meaning, the initial weights and the data set."""
        digest = hashlib.sha256(self.federation.digest.encode())
        for graph, weights in ((self.graph, self.weights), *(own[:2] for own in self.own.values())):
            digest.update(repr(graph.layers).encode() + weights_sha256(weights).encode())
        data = self.dataset
        for array in (data.x_train, data.y_train, data.x_test, data.y_test):
            digest.update(repr(array.shape).encode() + np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()


def load(federation: Federation) -> Inputs:
    """Read the model and the data and plan every board. Raises ModelError, DataError, PlanError."""
    graph, weights, notes = global_model(federation)
    dataset = load_dataset(federation.data_path, federation.data.range, graph.classes)
    tiers, settings = federation.tier_list(), federation.plan_settings()
    own = own_models(federation, graph)
    plans = {}
    for spec in {spec.kind: spec for spec in federation.nodes()}.values():
        model = own[spec.own] if spec.own else None
        whole, cuts = (model.graph, (model.tier,)) if model else (graph, tiers)
        plans[spec.kind] = best(boards.load(spec.board), whole, cuts, settings)
    return Inputs(federation, graph, weights, dataset, plans, notes, own)


@dataclass(frozen=True)
class NodeSummary:
    """What one node did over the whole run, resumptions included."""

    name: str
    board: str
    tier: str
    rounds_answered: int
    bytes_down: int
    bytes_up: int
    retransmissions: int
    saturated: int  # times that a fixed-point weight or logit was held at its limit
    frames_rejected: int  # that came damaged from the node
    node_rejected: int  # that came damaged to the node
    resets: int  # times that it started anew
    goodput: float | None  # bytes a second of a transfer's content; median of the rounds
    round_trip: float | None  # seconds, median of the rounds
    rounds_refused: int  # in which its update was not believed
    quarantined: str  # why; empty if it is not


@dataclass(frozen=True)
class Summary:
    """summary.json."""

    name: str
    rounds: int
    rounds_aggregated: int
    seconds: float
    accuracy: dict[str, float]  # of every tier's slice, after the last round
    history: list[dict[str, float]]  # the same after every round, from the untrained model on
    nodes: list[NodeSummary]
    seed: int
    federation: str  # hash of all that the run depends on
    weights_sha256: str


def write_keras(federation: Federation, weights: Sequence[npt.NDArray[np.float32]], path: Path) -> None:
    """Write the user's own model with the weights of the run, for plain Keras."""
    model = load_keras(federation.model_path, federation.seed)
    model.set_weights(weights)
    temporary = path.with_name("writing.keras")
    model.save(temporary)
    write_durably(path, temporary.read_bytes())
    temporary.unlink()


def headers(inputs: Inputs, weights: Sequence[npt.NDArray[np.float32]]) -> dict[str, str]:
    """Return model.h of every tier, for a board that has it, or the largest board if none has."""
    federation, graph = inputs.federation, inputs.graph
    tiers, settings = federation.tier_list(), federation.plan_settings()
    chosen = {made.sub_model.tier.name: made for made in inputs.plans.values()}
    largest = max(boards.all_boards(), key=lambda board: (board.ram, board.flash))
    plans = {tier.name: chosen.get(tier.name) or plan(largest, graph, tiers, tier, settings) for tier in tiers}
    return {name: model_header(made, weights) for name, made in plans.items()}


def summarise(inputs: Inputs, lines: Sequence[Line], fingerprint: str, digest: str, seconds: float) -> Summary:
    """Return the summary of a run from what was journaled; of a round run twice, the later one counts."""
    federation = inputs.federation
    aggregated = {line["round"]: line for line in of_kind(lines, RoundAggregated)}
    evaluated = {line["round"]: line["accuracy"] for line in of_kind(lines, Evaluated)}
    nodes = []
    for spec in federation.nodes():
        did = tally(lines, spec.name)
        nodes.append(
            NodeSummary(
                name=spec.name,
                board=spec.board,
                tier=inputs.plans[spec.kind].sub_model.tier.name,
                rounds_answered=did.rounds,
                bytes_down=did.bytes_down,
                bytes_up=did.bytes_up,
                retransmissions=did.retransmissions,
                saturated=did.saturated,
                frames_rejected=did.frames_rejected,
                node_rejected=did.node_rejected,
                resets=did.resets,
                goodput=did.goodput,
                round_trip=did.round_trip,
                rounds_refused=did.refused,
                quarantined=did.quarantined,
            )
        )
    return Summary(
        name=federation.name,
        rounds=federation.training.rounds,
        rounds_aggregated=sum(line["aggregated"] for line in aggregated.values()),
        seconds=round(seconds, 3),
        accuracy=evaluated[max(evaluated)],
        history=[evaluated[number] for number in sorted(evaluated)],
        nodes=nodes,
        seed=federation.seed,
        federation=fingerprint,
        weights_sha256=digest,
    )


def earlier_seconds(lines: Sequence[Line]) -> float:
    """Return how long the coordinators before this one worked on the run, as far as the journal shows."""
    total, started, last = 0.0, 0.0, 0.0
    for line in lines:
        if line["event"] == event_name(RunStarted):
            total, started = total + last - started, line["time"]
        last = line["time"]
    return float(total + last - started)
