"""What fixed point costs in accuracy: python -m benchmarks.arithmetic [--json] [--seeds 3].

One node alone learns MNIST at a tier, in float32 and in fixed point, from the same weights and in the same order: the
5,000 first training images of the example's data, 10 epochs at batch 1, the steps an eighth of 0.1 and 0.85 times
smaller after each epoch. Accuracy on the 10,000 test images, in per cent, the mean of the seeds. Nothing is chosen by
these figures.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass, replace
from typing import Annotated

import typer

import boards
from benchmarks.workloads import EXAMPLE, TIERS, with_kernel
from boards import KERNELS
from codegen.model_file import load_graph
from codegen.planner import Training, plan
from codegen.protocol import Encoding, Setup
from codegen.weights import pack
from coordinator.compiler import CompilerError
from coordinator.data import load_dataset
from coordinator.inprocess.engine import Engine

SAMPLES, EPOCHS = 5000, 10
RATE, DECAY, BATCH = 0.1, 0.85, 8
LEARNERS = ("compact", "micro", "nano")
ROOM = 1 << 20  # bytes: enough for any of them in either arithmetic


@dataclass(frozen=True)
class Accuracy:
    """Per cent, a seed each; `saturated`: weights and logits held at the end of 16 bits, all seeds together."""

    f32: tuple[float, ...]
    fixed: tuple[float, ...]
    saturated: int

    @property
    def lost(self) -> float:
        """Mean points that fixed point costs."""
        return (sum(self.f32) - sum(self.fixed)) / len(self.f32)


def measure(name: str, seeds: range) -> Accuracy:
    """Train a tier in both arithmetics. Raises CompilerError."""
    found = {kernel: [_train(name, kernel, seed) for seed in seeds] for kernel in KERNELS}
    return Accuracy(
        f32=tuple(accuracy for accuracy, _ in found["f32"]),
        fixed=tuple(accuracy for accuracy, _ in found["fixed"]),
        saturated=sum(saturated for _, saturated in found["fixed"]),
    )


def _train(name: str, kernel: str, seed: int) -> tuple[float, int]:
    import numpy as np

    data = load_dataset(EXAMPLE.with_name("mnist-10k.npz"))
    x, x_test = (np.ascontiguousarray(images.reshape(len(images), -1)) for images in (data.x_train, data.x_test))
    graph, weights = load_graph(EXAMPLE, None, seed)
    tier = next(tier for tier in TIERS if tier.name == name)
    board = with_kernel(boards.load("megaatmega2560"), kernel)
    board = replace(board, ram=ROOM, training=replace(board.training, static_ram=ROOM))
    planned = plan(board, graph, (tier,), tier, Training(batch=1, nested=False, encoding="weights"))
    engine, saturated = Engine(planned, weights), 0
    engine.weights = pack(planned, planned.sub_model.cut(weights))
    for epoch in range(EPOCHS):
        setup = Setup(1, seed * EPOCHS + epoch, RATE * DECAY**epoch, 0.0, 1, BATCH, Encoding.WEIGHTS, 0)
        engine.round(setup, x[:SAMPLES], data.y_train[:SAMPLES].astype(np.uint16), x[:0])
        saturated += engine.saturated
    return 100 * float((engine.logits(x_test).argmax(1) == data.y_test).mean()), saturated


def main(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
    seeds: Annotated[int, typer.Option(min=1, help="How many seeds, from 1 on.")] = 3,
) -> None:
    """Measure what fixed point costs in accuracy."""
    from rich.console import Console
    from rich.progress import track

    console, results = Console(stderr=True), {}
    try:
        for name in track(LEARNERS, "Training", console=console, transient=True):
            results[name] = measure(name, range(1, seeds + 1))
    except CompilerError as error:
        console.print(f"error: {error}", markup=False, soft_wrap=True)
        raise typer.Exit(1) from None
    if as_json:
        json.dump(
            {name: {**asdict(found), "lost": found.lost} for name, found in results.items()}, sys.stdout, indent=2
        )
        print()
    else:
        _show(results)


def _show(results: dict[str, Accuracy]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("tier", "float32 %", "fixed point %", "lost", "saturated")
    for column in table.columns[1:]:
        column.justify = "right"
    for name, found in results.items():
        mean = [f"{sum(values) / len(values):.2f}" for values in (found.f32, found.fixed)]
        table.add_row(name, *mean, f"{found.lost:.2f}", f"{found.saturated:,}")
    Console().print(table)


if __name__ == "__main__":
    typer.run(main)
