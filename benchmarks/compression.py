"""What 8-bit updates save and cost: python -m benchmarks.compression [--json] [--seeds 5].

The example's federation in one process, whole runs with the coordinator's own rounds and the boards' own training and
encoding. Every float32 node sends its updates as float32 differences; as differences in 8 bits (DELTA_Q8); the same
with error feedback, what rounding took from one update being added to the node's next; or, which no board does yet, as
weights in 8 bits, for which it needs no copy of the round's weights. Nodes in fixed point send their weights, as
always. Accuracy on the test images; nothing is chosen by these figures.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Annotated

import numpy as np
import typer

from benchmarks.encoder import Encoder
from benchmarks.images import ToolError
from boards import PROJECT_ROOT
from codegen.planner import Plan
from codegen.protocol import Encoding, encoded_size
from codegen.tiers import sub_model
from codegen.weights import pack, unpack, weight_bytes
from coordinator import federation
from coordinator.aggregation import Weights
from coordinator.deltas import decode
from coordinator.errors import TierfedError
from coordinator.events import Event, NodeFailed
from coordinator.federation import Federation
from coordinator.inprocess.engine import Engine
from coordinator.inprocess.node import InProcessNode
from coordinator.results import Inputs, load
from coordinator.rounds import Order, run_round
from coordinator.runs import round_settings
from coordinator.shares import Share, deal
from coordinator.state import State

EXAMPLE = PROJECT_ROOT / "examples" / "mnist" / "federation.toml"
FLOAT32, ROUNDED, FEEDBACK, WEIGHTS = WAYS = ("float32", "8 bits", "with feedback", "8-bit weights")


@dataclass(frozen=True)
class Cost:
    """What 8 bits cost against float32, in points: positive is worse."""

    mean: float
    error: float  # standard error of the mean over seeds


@dataclass(frozen=True)
class Figures:
    """What --json prints."""

    upload: dict[str, int]  # bytes a round: all nodes in float32, as planned, all float32 nodes in 8 bits
    ratio: dict[str, float]  # bytes of a float32 update to those in 8 bits, by tier
    accuracy: dict[str, dict[str, list[float]]]  # after the last round: by way and tier, per cent, a seed each
    cost: dict[str, dict[str, Cost]]  # by way and tier, and "mean" over tiers


class Member(InProcessNode):
    """A node whose updates are encoded in some way."""

    def __init__(self, name: str, engine: Engine, share: Share, encoder: Encoder | None, way: str) -> None:
        super().__init__(name, engine, share.x, share.y)
        self._encoder = encoder
        self._way = way
        self._residual = np.zeros(self.plan.sub_model.graph.parameters, np.float32)

    def changed(self, after: bytes, order: Order) -> Sequence[np.ndarray]:
        """Encode and decode the update. Feedback moves the origin by what rounding took; that of weights is 0."""
        if self._encoder is None:
            return super().changed(after, order)
        weights, sent = (np.frombuffer(blob, "<f4").astype(np.float32) for blob in (after, order.weights))
        origin = 0 * sent if self._way == WEIGHTS else sent - self._residual
        encoding = Encoding.DELTA_F32 if self._way == FLOAT32 else Encoding.DELTA_Q8
        blob = self._encoder.encode(weights, origin, encoding, order.seed)
        decoded = np.concatenate([t.reshape(-1) for t in decode(self.plan, encoding, blob, order.weights)])
        if self._way == FEEDBACK:
            self._residual = weights - origin - decoded
        delta = decoded - sent if self._way == WEIGHTS else decoded
        return unpack(self.plan, delta.astype("<f4").tobytes())


class Workshop:
    """Compiles what the nodes of a federation need, for each board once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._engines: dict[str, Engine] = {}
        self._encoders: dict[int, Encoder] = {}

    def engine(self, plan: Plan, weights: Weights) -> Engine:
        """Return what trains as a plan's board does; `weights` are global. Raises CompilerError."""
        board = plan.board.id
        if board not in self._engines:
            self._engines[board] = Engine(plan, weights)
        return self._engines[board]

    def encoder(self, count: int) -> Encoder:
        """Return what encodes an update of `count` weights. Raises ToolError."""
        if count not in self._encoders:
            self._encoders[count] = Encoder(count, self._folder / f"encoder-{count}")
        return self._encoders[count]

    def members(self, inputs: Inputs, way: str) -> list[Member]:
        """Return the federation's nodes, in its order. Raises ToolError and DataError."""
        shares, members = deal(inputs.federation, inputs.graph.classes), []
        for spec in inputs.federation.nodes():
            plan = inputs.plans[spec.kind]
            encoder = None if plan.kernel == "fixed" else self.encoder(plan.sub_model.graph.parameters)
            engine = self.engine(plan, inputs.weights)
            members.append(Member(spec.name, engine, shares[spec.name], encoder, way))
        return members


def accuracies(described: Federation, way: str, workshop: Workshop) -> dict[str, float]:
    """Run a federation to its end and return each tier's accuracy, per cent. Raises TierfedError and ToolError."""
    inputs = load(described)
    state, settings, members = State(inputs.weights), round_settings(described), workshop.members(inputs, way)
    for number in range(1, described.training.rounds + 1):
        state = asyncio.run(run_round(number, inputs.graph, state, members, settings, _complain)).state
    widest = max(inputs.plans.values(), key=lambda plan: plan.sub_model.graph.parameters)
    judge, images = workshop.engine(widest, state.result), np.ascontiguousarray(inputs.dataset.x_test)
    judge.weights = pack(widest, state.result)
    return {
        tier.name: round(100 * float((judge.logits(images, width).argmax(1) == inputs.dataset.y_test).mean()), 4)
        for width, tier in enumerate(widest.widths)
    }


def _complain(event: Event) -> None:
    """Nobody may be missing: the figures would be another federation's."""
    if isinstance(event, NodeFailed):
        raise ToolError(f"{event.node} failed in round {event.round}: {event.reason}")


def measure(described: Federation, runs: Iterable[tuple[int, str]], folder: Path) -> Figures:
    """Run every (seed, way). Raises TierfedError and ToolError."""
    workshop = Workshop(folder)
    found: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
    for seed, way in runs:
        found[way].append(accuracies(described.model_copy(update={"seed": seed}), way, workshop))
    inputs, tiers = load(described), found[FLOAT32][0].keys()
    return Figures(
        uploads(inputs),
        {tier.name: round(ratio(sub_model(inputs.graph, tier).graph.parameters), 3) for tier in described.tier_list()},
        {way: {name: [run[name] for run in found[way]] for name in tiers} for way in WAYS},
        {way: costs(found[FLOAT32], found[way]) for way in WAYS[1:]},
    )


def uploads(inputs: Inputs) -> dict[str, int]:
    """Return the bytes of a round's updates: in float32 from all nodes, as each board's plan has it, and in 8 bits from
    all float32 nodes."""
    found = dict.fromkeys(("float32", "planned", "8 bits"), 0)
    for spec in inputs.federation.nodes():
        plan = inputs.plans[spec.kind]
        count, weights = plan.sub_model.graph.parameters, weight_bytes(plan)
        rounded = weights if plan.kernel == "fixed" else encoded_size(Encoding.DELTA_Q8, count)
        found["float32"] += encoded_size(Encoding.DELTA_F32, count)
        found["planned"] += rounded if plan.keeps_origin else weights
        found["8 bits"] += rounded
    return found


def ratio(parameters: int) -> float:
    """Return how many times smaller 8 bits make an update of so many weights."""
    return encoded_size(Encoding.DELTA_F32, parameters) / encoded_size(Encoding.DELTA_Q8, parameters)


def costs(before: Sequence[Mapping[str, float]], after: Sequence[Mapping[str, float]]) -> dict[str, Cost]:
    """Return what each tier lost, the seeds paired, and all of them together."""
    lost = {name: [old[name] - new[name] for old, new in zip(before, after, strict=True)] for name in before[0]}
    lost["mean"] = [mean(tiers) for tiers in zip(*lost.values(), strict=True)]
    return {
        name: Cost(mean(points), stdev(points) / len(points) ** 0.5 if len(points) > 1 else float("nan"))
        for name, points in lost.items()
    }


def main(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
    seeds: Annotated[int, typer.Option(min=2, help="How many seeds, from 1 on.")] = 5,
) -> None:
    """Measure what 8-bit updates save, and what they cost in accuracy."""
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    runs = [(seed, way) for seed in range(1, seeds + 1) for way in WAYS]
    try:
        described = federation.load(EXAMPLE)
        with tempfile.TemporaryDirectory() as folder:
            progress = track(runs, "Training", console=console, transient=True)
            figures = measure(described, progress, Path(folder))
    except (ToolError, TierfedError) as error:
        console.print(f"error: {error}", markup=False, soft_wrap=True)
        raise typer.Exit(1) from None
    if as_json:
        json.dump(asdict(figures), sys.stdout, indent=2)
        print()
    else:
        _show(figures)


def _show(figures: Figures) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("tier", "times smaller", "float32 %", *(f"{way}: cost" for way in WAYS[1:]))
    for column in table.columns[1:]:
        column.justify = "right"
    for name in (*figures.accuracy[FLOAT32], "mean"):
        size = [f"{figures.ratio[name]:.2f}"] if name in figures.ratio else [""]
        known = figures.accuracy[FLOAT32].get(name)
        lost = [f"{found[name].mean:+.2f} ± {found[name].error:.2f}" for found in figures.cost.values()]
        table.add_row(name, *size, f"{mean(known):.2f}" if known else "", *lost)
    console = Console()
    if not console.is_terminal:
        console = Console(width=120)
    console.print(table)
    console.print("Bytes of a round's updates: " + ", ".join(f"{way} {size:,}" for way, size in figures.upload.items()))


if __name__ == "__main__":
    typer.run(main)
