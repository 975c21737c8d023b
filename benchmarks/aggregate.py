"""How fast updates become a model: python -m benchmarks.aggregate [--json] [--quick].

Updates as they come off the wire, float32 and in 8 bits, of nodes all of one width or of the four tiers in turn, are
decoded and joined by the functions that a run calls. Beside it the plain way in numpy, whose arrays are decoded
beforehand, and Flower's `aggregate`, which takes nodes of one width only. Seconds of the processor on one core, the
least of some repetitions; more different updates than a cache holds. The peak of memory is measured with updates that
are made one by one, and forgotten. What judges the updates beforehand (plausibility.py) has a column of its own.
"""

from __future__ import annotations

import json
import os
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from itertools import cycle, islice, product
from typing import TYPE_CHECKING, Annotated, Any

import typer

import boards
from benchmarks.workloads import perceptron
from codegen.planner import Plan, Training, plan
from codegen.protocol import Q8_BLOCK, Encoding
from codegen.tiers import DEFAULT_TIERS, tiers_from

if TYPE_CHECKING:
    import numpy as np

    from codegen.graph import Graph
    from coordinator.aggregation import Contribution, Weights

Updates = Iterable[tuple[Plan, bytes]]  # off the wire, and from whom
Decoded = Sequence[tuple[list[Any], list["np.ndarray"]]]  # where they belong, and the float32 tensors
HIDDEN = (64, 1258)  # units of a 784-…-10 network: 50,890 and 1,000,120 parameters
NODES = (100, 1000)
ENCODINGS = (Encoding.DELTA_F32, Encoding.DELTA_Q8)
FLEETS = {"equal": ("expanded",), "mixed": tuple(DEFAULT_TIERS)}
POOL = 1 << 27  # bytes of different updates
REPETITIONS = 5
SAMPLES, CLASSES = 600, 10
ONE_THREAD = {f"{name}_NUM_THREADS": "1" for name in ("OPENBLAS", "OMP", "MKL")}
MISSING = "Flower is not installed, so its column is empty; type: pip install -e '.[bench]'"


@dataclass(frozen=True)
class Figures:
    """Milliseconds a round. None: Flower refuses different widths, or is not installed."""

    fleet: str
    encoding: str
    nodes: int
    parameters: int
    tierfed: float
    numpy: float
    flower: float | None
    judging: float  # what plausibility.py takes besides
    peak: float  # of memory, in float32 models of full width

    @property
    def times_numpy(self) -> float:
        """How many times faster than numpy."""
        return self.numpy / self.tierfed

    @property
    def times_flower(self) -> float | None:
        """How many times faster than Flower."""
        return None if self.flower is None else self.flower / self.tierfed


@cache
def plan_of(hidden: int, tier: str) -> Plan:
    """Return the plan of a tier on a board with room for it."""
    board = replace(boards.load("esp32dev"), ram=1 << 30, flash=1 << 30)
    tiers = tiers_from(DEFAULT_TIERS)
    chosen = next(each for each in tiers if each.name == tier)
    return plan(board, perceptron(784, hidden, CLASSES), tiers, chosen, Training(nested=False))


def blob(parameters: int, encoding: Encoding, seed: int) -> bytes:
    """Return what a node may send."""
    import numpy as np

    rng = np.random.default_rng(seed)
    if encoding is Encoding.DELTA_F32:
        return (rng.standard_normal(parameters, np.float32) / 100).tobytes()
    blocks = np.zeros(-(-parameters // Q8_BLOCK), np.dtype([("scale", "<f4"), ("levels", "i1", (Q8_BLOCK,))]))
    blocks["scale"] = rng.uniform(1e-4, 1e-3, len(blocks))
    blocks["levels"] = rng.integers(-127, 128, (len(blocks), Q8_BLOCK), np.int8)
    return blocks.tobytes()[: parameters + 4 * len(blocks)]


def made(hidden: int, tiers: Sequence[str], encoding: Encoding, nodes: int) -> Updates:
    """Yield each node's plan and update, made when it is asked for."""
    for node in range(nodes):
        planned = plan_of(hidden, tiers[node % len(tiers)])
        yield planned, blob(planned.sub_model.graph.parameters, encoding, node)


def contributions(updates: Updates, encoding: Encoding) -> Iterator[Contribution]:
    """Yield what a run makes of updates off the wire."""
    from coordinator.aggregation import Contribution
    from coordinator.deltas import decode

    for node, (planned, update) in enumerate(updates):
        delta = decode(planned, encoding, update, b"")
        yield Contribution(str(node), planned.sub_model, delta, samples(node), (SAMPLES // CLASSES,) * CLASSES)


def samples(node: int) -> int:
    """Return what a node counts."""
    return SAMPLES + node % 7


def tierfed(graph: Graph, weights: Weights, updates: Updates, encoding: Encoding) -> Weights:
    """Decode and join updates, as a run does."""
    from coordinator.aggregation.substructure import Substructure

    aggregator = Substructure(graph, weights)
    for each in contributions(updates, encoding):
        aggregator.add(each)
    return aggregator.result()


def plain(weights: Weights, decoded: Decoded) -> list[Any]:
    """Join decoded updates in numpy: the weighted sum, and what it is divided by."""
    import numpy as np

    sums, counts = ([np.zeros_like(tensor) for tensor in weights] for _ in range(2))
    for node, (cut, delta) in enumerate(decoded):
        for total, count, places, part in zip(sums, counts, cut, delta, strict=True):
            total[places] += samples(node) * part
            count[places] += samples(node)
    return [old + total / np.maximum(count, 1) for old, total, count in zip(weights, sums, counts, strict=True)]


def plain_equal(weights: Weights, decoded: Decoded) -> list[Any]:
    """The same for updates of full width, where one number counts for all parameters."""
    import numpy as np

    sums = [np.zeros_like(tensor) for tensor in weights]
    for node, (_, delta) in enumerate(decoded):
        for total, part in zip(sums, delta, strict=True):
            total += samples(node) * part
    count = sum(samples(node) for node in range(len(decoded)))
    return [old + total / count for old, total in zip(weights, sums, strict=True)]


def flower(decoded: Decoded) -> Callable[[], Any] | None:
    """Return Flower's way; None if it is not installed."""
    try:
        from flwr.server.strategy.aggregate import aggregate
    except ImportError:
        return None
    results = [(list(delta), samples(node)) for node, (_, delta) in enumerate(decoded)]
    return lambda: aggregate(results)


def milliseconds(call: Callable[[], Any], repetitions: int) -> float:
    """Return the least time of the processor that a call takes."""
    taken = []
    for _ in range(repetitions):
        begun = time.process_time()
        call()
        taken.append(time.process_time() - begun)
    return 1000 * min(taken)


def measure(fleet: str, encoding: Encoding, nodes: int, hidden: int, repetitions: int) -> Figures:
    """Return a row."""
    from coordinator.aggregation.substructure import selection
    from coordinator.deltas import decode

    graph = plan_of(hidden, "expanded").sub_model.graph
    weights = first_weights(hidden)
    pool = [*islice(made(hidden, FLEETS[fleet], encoding, nodes), max(4, POOL // (4 * graph.parameters)))]
    updates = [*islice(cycle(pool), nodes)]
    once = [
        ([selection(axes) for axes in planned.sub_model.slices], [*decode(planned, encoding, update, b"")])
        for planned, update in pool
    ]
    decoded = [*islice(cycle(once), nodes)]
    joined = {"equal": plain_equal, "mixed": plain}[fleet]
    theirs = flower(decoded) if fleet == "equal" else None
    return Figures(
        fleet=fleet,
        encoding=encoding.name.lower(),
        nodes=nodes,
        parameters=graph.parameters,
        tierfed=milliseconds(lambda: tierfed(graph, weights, updates, encoding), repetitions),
        numpy=milliseconds(lambda: joined(weights, decoded), repetitions),
        flower=None if theirs is None else milliseconds(theirs, repetitions),
        judging=milliseconds(lambda: judge(graph, weights, updates, encoding), 1),
        peak=peak(lambda: tierfed(graph, weights, made(hidden, FLEETS[fleet], encoding, nodes), encoding))
        / (4 * graph.parameters),
    )


def first_weights(hidden: int) -> Weights:
    """Return weights to begin with."""
    import numpy as np

    rng = np.random.default_rng(0)
    shapes = plan_of(hidden, "expanded").sub_model.graph.shapes
    return [rng.normal(0, 0.05, shape).astype(np.float32) for shape in shapes]


def judge(graph: Graph, weights: Weights, updates: Updates, encoding: Encoding) -> None:
    """Look at every update's values, and judge them beside each other, as a run does."""
    from coordinator.aggregation.plausibility import Suspect, judge

    suspects = [Suspect(each, 10.0) for each in contributions(updates, encoding)]
    for suspect in suspects:
        suspect.contribution.delta.check()  # type: ignore[attr-defined]
    judge(suspects, graph, weights, [0.99 * tensor for tensor in weights])


def peak(call: Callable[[], Any]) -> int:
    """Return how many bytes more there are at the height of a call."""
    tracemalloc.start()
    call()
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return most


def main(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
    quick: Annotated[bool, typer.Option("--quick", help="100 nodes only.")] = False,
) -> None:
    """Measure how fast updates become a model."""
    from importlib.util import find_spec

    from rich.console import Console
    from rich.progress import track

    if any(os.environ.get(name) != value for name, value in ONE_THREAD.items()):
        os.environ |= ONE_THREAD  # numpy asks for it once, when it is loaded
        os.execv(sys.executable, [sys.executable, "-m", "benchmarks.aggregate", *sys.argv[1:]])
    console = Console(stderr=True)
    if find_spec("flwr") is None:
        console.print(MISSING, markup=False, soft_wrap=True)
    rows = [*product(FLEETS, ENCODINGS, NODES[: 1 if quick else None], HIDDEN)]
    figures = [measure(*row, REPETITIONS) for row in track(rows, "Adding up", console=console, transient=True)]
    if as_json:
        times = ("times_numpy", "times_flower")
        printed = [asdict(each) | {name: getattr(each, name) for name in times} for each in figures]
        json.dump(printed, sys.stdout, indent=2)
        print()
    else:
        _show(figures)


def _show(figures: Sequence[Figures]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("widths", "updates", "nodes × size", "Tierfed ms", "numpy", "Flower", "judging ms", "peak, models")
    for column in table.columns[2:]:
        column.justify = "right"
    for each in figures:
        beside = f"{each.flower:.1f} ({each.times_flower:.1f}×)" if each.flower is not None else ""
        table.add_row(
            each.fleet,
            each.encoding,
            f"{each.nodes} × {each.parameters:,}",
            f"{each.tierfed:.1f}",
            f"{each.numpy:.1f} ({each.times_numpy:.1f}×)",
            beside,
            f"{each.judging:.0f}",
            f"{each.peak:.1f}",
        )
    console = Console()
    if not console.is_terminal:
        console = Console(width=120)
    console.print(table)


if __name__ == "__main__":
    typer.run(main)
