"""What a run depends on, and what it leaves: the model, the headers, the summary."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

import boards
from codegen.graph import Graph
from codegen.header import model_header
from codegen.model_file import load_keras
from codegen.planner import Plan, best, plan
from coordinator.aggregation import Weights
from coordinator.data import Dataset, load_dataset
from coordinator.events import CheckpointWritten, Evaluated, Images, RoundAggregated, RunStarted, StoppedEarly
from coordinator.federation import Federation
from coordinator.global_model import OwnModel, global_model, own_models
from coordinator.journal import Line, event_name, of_kind, weights_sha256, write_durably
from coordinator.shares import proxy_images
from coordinator.state import Shapes, State
from coordinator.stopping import ranking
from coordinator.tally import tally

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True)
class Inputs:
    """Everything a run depends on, loaded."""

    federation: Federation
    graph: Graph
    weights: Weights  # before the first round
    dataset: Dataset
    proxy: npt.NDArray[np.uint8]  # unlabelled images [proxy, features...] that all share
    plans: dict[str, Plan]  # by what kind the nodes are: NodeSpec.kind
    notes: tuple[str, ...] = ()  # what there is to say of the plans, a sentence each
    own: Mapping[str, OwnModel] = field(default_factory=dict)  # models that nodes have instead of a tier, by name

    @property
    def shapes(self) -> Shapes:
        """What the states of the run look like."""
        own = {name: [tensor.shape for tensor in each.graph.tensors] for name, each in self.own.items()}
        return Shapes([tensor.shape for tensor in self.graph.tensors], (len(self.proxy), self.graph.classes), own)

    @property
    def state(self) -> State:
        """What the first round begins with."""
        return State(self.weights, own={name: each.weights for name, each in self.own.items()})

    @property
    def fingerprint(self) -> str:
        """SHA-256, as hex, of the federation file's meaning, the initial weights, the data set and the proxy set."""
        digest = hashlib.sha256(self.federation.digest.encode())
        for graph, weights in ((self.graph, self.weights), *(own[:2] for own in self.own.values())):
            digest.update(repr(graph.layers).encode() + weights_sha256(weights).encode())
        data = self.dataset
        for array in (data.x_train, data.y_train, data.x_test, data.y_test, self.proxy):
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
    proxy = proxy_images(federation, dataset)
    return Inputs(federation, graph, weights, dataset, proxy, plans, notes, own)


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
class Judged:
    """What every tier's slice of the global model after a round answers."""

    round: int
    file: str  # the checkpoint; empty: there is none, the round changed nothing
    images: Images
    accuracy: dict[str, float]
    per_class: dict[str, list[float | None]]  # share of right answers; None: no image of the class
    confusion: dict[str, list[list[int]]]  # images by class shown, then by class answered


@dataclass(frozen=True)
class Summary:
    """summary.json."""

    name: str
    rounds: int  # that were run
    rounds_aggregated: int
    seconds: float
    accuracy: dict[str, float]  # of every tier's slice of global.keras, on the test images
    history: list[dict[str, float]]  # after every round, from the untrained model on, on `images`
    images: Images
    stopped: str  # why before the last round that was asked for; empty: it was not
    result: Judged  # global.keras: of the best round if there are validation images, else of the last
    best: Judged | None  # by the validation images
    last: Judged | None  # by the validation images
    nodes: list[NodeSummary]
    seed: int
    federation: str  # hash of all that the run depends on
    weights_sha256: str


def trained(
    federation: Federation, weights: Sequence[npt.NDArray[np.float32]], own: str | None = None
) -> keras.Model:
    """Return the user's own model with the weights of the run; `own`: one that nodes have of their own, by its name."""
    model = load_keras(federation.own_models[own] if own else federation.model_path, federation.seed)
    model.set_weights(weights)
    return model


def write_keras(model: keras.Model, path: Path) -> None:
    """Write a model for plain Keras."""
    temporary = path.with_name("writing.keras")
    model.save(temporary)
    write_durably(path, temporary.read_bytes())
    temporary.unlink()


def headers(inputs: Inputs, state: State) -> dict[str, str]:
    """Return model.h of every tier and of every model of a node's own, for a board that has it, or the largest board
    if none has."""
    federation, graph = inputs.federation, inputs.graph
    tiers, settings = federation.tier_list(), federation.plan_settings()
    chosen = {made.sub_model.tier.name: made for made in inputs.plans.values()}
    largest = max(boards.all_boards(), key=lambda board: (board.ram, board.flash))
    plans = {tier.name: chosen.get(tier.name) or plan(largest, graph, tiers, tier, settings) for tier in tiers}
    plans |= {name: chosen[name] for name in inputs.own}
    return {name: model_header(made, state.own.get(name, state.result)) for name, made in plans.items()}


def summarise(inputs: Inputs, lines: Sequence[Line], fingerprint: str, digest: str, seconds: float) -> Summary:
    """Return the summary of a run from what was journaled; of a round run twice, the later one counts."""
    federation = inputs.federation
    aggregated = {line["round"]: line for line in of_kind(lines, RoundAggregated)}
    test, kept = ({line["round"]: line for line in judged_by(lines, images)} for images in ("test", "validation"))
    history, best = kept or test, ranking(lines, federation.training.rounds)
    result = _judged(lines, judged_by(lines, "test")[-1])
    stopped = of_kind(lines, StoppedEarly)
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
        rounds=stopped[-1]["round"] if stopped else federation.training.rounds,
        rounds_aggregated=sum(line["aggregated"] for line in aggregated.values()),
        seconds=round(seconds, 3),
        accuracy=result.accuracy,
        history=[history[number]["accuracy"] for number in sorted(history)],
        images="validation" if kept else "test",
        stopped=stopped[-1]["reason"] if stopped else "",
        result=result,
        best=_judged(lines, kept[best[0].round]) if best else None,
        last=_judged(lines, kept[max(kept)]) if kept else None,
        nodes=nodes,
        seed=federation.seed,
        federation=fingerprint,
        weights_sha256=digest,
    )


def judged_by(lines: Sequence[Line], images: Images) -> list[Line]:
    """Return what was evaluated on these images, in the order in which it was."""
    return [line for line in of_kind(lines, Evaluated) if line.get("images", "test") == images]


def _judged(lines: Sequence[Line], line: Line) -> Judged:
    files = {line["round"]: line["file"] for line in of_kind(lines, CheckpointWritten)}
    return Judged(
        line["round"], files.get(line["round"], ""), line.get("images", "test"), line["accuracy"],
        line.get("per_class", {}), line.get("confusion", {}),
    )  # fmt: skip


def earlier_seconds(lines: Sequence[Line]) -> float:
    """Return how long the coordinators before this one worked on the run, as far as the journal shows."""
    total, started, last = 0.0, 0.0, 0.0
    for line in lines:
        if line["event"] == event_name(RunStarted):
            total, started = total + last - started, line["time"]
        last = line["time"]
    return float(total + last - started)
