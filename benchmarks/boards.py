"""What the images of boards take and do: python -m benchmarks.boards [--json] [--only uno].

Builds the example federation's image for every board whose chip can be emulated here, and holds rounds with it.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import typer

import boards
from benchmarks import emulated
from boards import PROJECT_ROOT
from codegen.linked import Linked, LinkedError
from codegen.planner import best
from codegen.weights import pack
from coordinator import federation, platformio
from coordinator.data import load_dataset, write_shard
from coordinator.emulation import emulator_of
from coordinator.errors import TierfedError
from coordinator.federation import Federation
from coordinator.global_model import GlobalModel, global_model
from coordinator.images import built_image
from coordinator.link.errors import LinkError

EXAMPLE = PROJECT_ROOT / "examples" / "mnist" / "federation.toml"
SAMPLES = 8  # in the image that is run: a step takes as long with more
COLUMNS = (
    "board", "tier", "RAM plan", "linked", "flash plan", "linked", "stack", "step ms", "goodput", "round s",
)  # fmt: skip
CONDITIONS = (
    "The example federation's images as `pio run -e BOARD` builds them, in bytes, without samples; RAM as linked: the "
    "plan without its stack reserve. Stack: painted, after rounds under the emulator. Step: the chip's cycles for the "
    f"second epoch of {SAMPLES} samples, at every width; an nRF52's are those that its emulator reckons. Goodput: "
    "content as a share of what the wire carries at the board's fastest rate, from BEGIN to LOADED or from FETCH to "
    f"the last chunk, whichever is less; each the fastest of {emulated.TRANSFERS} transfers, the emulator held to the "
    "wall's time. On a desk a USB bridge adds 1 to 4 ms a turn. Round: computed from these, for as many of a node's "
    "samples as its flash holds."
)


@dataclass(frozen=True)
class Figures:
    """One board, as --json prints it; `goodput` is the lower of both ways, as a share of 1."""

    tier: str
    ram_planned: int
    ram_actual: int
    flash_planned: int
    flash_actual: int
    stack_peak: int
    step_ms: float
    goodput: float
    round_s: float


def rows(measured: Mapping[str, Figures]) -> list[list[str]]:
    """Return the cells of the table, a row a board, in the order of COLUMNS."""
    return [
        [
            name, found.tier, *(f"{size:,}" for size in (found.ram_planned, found.ram_actual)),
            *(f"{size:,}" for size in (found.flash_planned, found.flash_actual)), str(found.stack_peak),
            f"{found.step_ms:.1f}", f"{100 * found.goodput:.1f} %", f"{found.round_s:.1f}",
        ]
        for name, found in measured.items()
    ]  # fmt: skip


def measure(name: str, described: Federation, model: GlobalModel, folder: Path) -> Figures:
    """Build a board's image, run it, and compare it with its plan. Raises TierfedError, LinkError, LinkedError."""
    board, kind = boards.load(name), emulator_of(name)
    assert kind is not None
    plan = best(board, model.graph, described.tier_list(), described.plan_settings())
    dataset, shard = load_dataset(described.data_path, described.data.range), folder / f"{name}.tfs"
    write_shard(shard, dataset.x_train[:SAMPLES], dataset.y_train[:SAMPLES], dataset.classes)
    linked = Linked(_build(name, described, None, folder / f"{name}-plain.elf"), board.training.env)
    image = _build(name, described, shard, folder / f"{name}.elf")
    with emulated.running(kind, image, board) as running:
        weights = pack(plan, plan.sub_model.cut(model.weights))
        found = emulated.measure(running, board, described, weights)
    goodputs = (found.goodput_down, found.goodput_up)
    rate = max(board.training.bauds) / emulated.BITS_A_BYTE
    wire = sum(count / (share * rate) for count, share in zip(found.round_bytes, goodputs, strict=True))
    samples = min(described.data.samples_per_node, plan.samples_in_flash)
    return Figures(
        tier=plan.sub_model.tier.name,
        ram_planned=plan.ram - board.training.stack,
        ram_actual=linked.ram,
        flash_planned=plan.flash,
        flash_actual=linked.flash,
        stack_peak=found.stack,
        step_ms=round(1e3 * found.step_seconds, 2),
        goodput=round(min(goodputs), 3),
        round_s=round(samples * described.training.epochs * found.step_seconds + wire, 2),
    )


def _build(board: str, described: Federation, shard: Path | None, copy: Path) -> Path:
    """Build an image in the project's .pio, copy it and return the copy. Raises ToolchainError."""
    variables = {"TIERFED_FEDERATION": str(described.path), "TIERFED_SHARD": str(shard or "")}
    with platformio.workspace() as place:
        platformio.run(f"the image of {board} could not be built", [board], place, variables)
        shutil.copyfile(built_image(place, board), copy)
    return copy


def main(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
    only: Annotated[list[str] | None, typer.Option(help="Measure only this board.")] = None,
) -> None:
    """Measure the images of boards in emulators of their chips."""
    from rich.console import Console
    from rich.progress import track

    console, results = Console(stderr=True), dict[str, Figures]()
    can = [board.id for board in boards.all_boards() if emulator_of(board.id)]
    if unknown := [name for name in only or () if name not in can]:
        console.print(f"error: --only {unknown[0]}: expected {', '.join(can)}", markup=False)
        raise typer.Exit(2)
    try:
        platformio.seed()
        described = federation.load(EXAMPLE)
        model = global_model(described)
        with tempfile.TemporaryDirectory() as folder:
            for name in track(only or can, "Building and running", console=console, transient=True):
                results[name] = measure(name, described, model, Path(folder))
    except (TierfedError, LinkError, LinkedError) as error:
        console.print(f"error: {error}", markup=False, soft_wrap=True)
        raise typer.Exit(1) from None
    if as_json:
        json.dump({name: asdict(found) for name, found in results.items()}, sys.stdout, indent=2)
        print()
    else:
        _show(results)


def _show(results: Mapping[str, Figures]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(*COLUMNS)
    for column in table.columns[2:]:
        column.justify = "right"
    table.columns[0].no_wrap = True
    for row in rows(results):
        table.add_row(*row)
    console = Console()
    if not console.is_terminal:
        console = Console(width=120)
    console.print(table)
    console.print(CONDITIONS, markup=False, highlight=False)


if __name__ == "__main__":
    typer.run(main)
