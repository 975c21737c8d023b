"""What one training step costs: python -m benchmarks.engine [--json] [--only m4f]."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import boards
from benchmarks import atmega, bare, host, images
from benchmarks.images import ToolError
from benchmarks.workloads import dense_workload, with_kernel

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

NETWORKS: Mapping[str, tuple[str, ...]] = {
    "m4f": ("784-32-10", "64-16-10", "mnist_expanded", "mnist_base"),
    "atmega2560": ("64-16-10", "mnist_micro"),
    "atmega328p": ("mnist_nano",),
    "rv32imc": ("784-32-10", "64-16-10", "mnist_micro"),
    "host": ("mnist_expanded", "mnist_base", "mnist_micro"),
}
BOTH = {"atmega2560": ("f32", "fixed"), "atmega328p": ("fixed",), "rv32imc": ("f32", "fixed")}  # elsewhere f32 only
TARGETS = {
    "m4f": images.CORTEX_M4F,
    "atmega2560": images.ATMEGA2560,
    "atmega328p": images.ATMEGA328P,
    "rv32imc": images.RV32IMC,
}
SETTLING = 4  # steps after which fixed point's scales are those of its data
Results = Mapping[str, Mapping[str, Mapping[str, Any]]]  # what --json prints
CHIP_COLUMNS = (
    "target", "network", "in", "instructions", "cycles", "per MAC", "RAM", "less parameters", "of it stack", "flash",
)  # fmt: skip
HOST_COLUMNS = ("network", "ours", "TensorFlow", "times faster", "PyTorch", "times faster")
MEMORY = ("ram_bytes", "ram_bytes_beyond_parameters", "stack_bytes", "flash_bytes")
CONDITIONS = (
    "Forward, backward and update at batch 1, the update fused in, at the network's own width. f32: float32; fixed: "
    f"integers, the {SETTLING}th step, when their scales have settled. Nothing can be skipped: no input is zero and no "
    "ReLU is dead. mnist_*: the example's network at that tier. Instructions: -O2, under Unicorn, those included whose "
    "condition leaves them out; f32 on rv32imc in soft float. Cycles: ATmega -Os -flto, under simavr, exact; "
    "Cortex-M4F estimated by the core's published timings, no wait states. RAM: static, and the deepest stack, painted "
    "and read back. The example lies in flash and does not count; what the compiler's library adds does."
)
HOST_CONDITIONS = (
    f"Nanoseconds of processor time a sample, in a step of batch {host.BATCH} on one thread, inputs as above. Ours: "
    "the generated code at -O2, for any processor of this kind. TensorFlow: its graph or XLA's, PyTorch: "
    "eager or compiled, whichever is faster."
)


@dataclass(frozen=True)
class Job:
    """One measurement."""

    target: str
    network: str

    def run(self, folder: Path) -> dict[str, Any]:
        """Measure; return what --json shows under the network's name. Raises ToolError."""
        if self.target == "host":
            times = host.measure(self.network, folder)
            return {
                "nanoseconds_per_sample": round(times.tierfed),
                "tensorflow_nanoseconds_per_sample": round(times.tensorflow),
                "pytorch_nanoseconds_per_sample": times.pytorch and round(times.pytorch),
                "times_faster_than_tensorflow": round(times.tensorflow / times.tierfed, 2),
                "times_faster_than_pytorch": times.pytorch and round(times.pytorch / times.tierfed, 2),
            }
        if self.target not in BOTH:
            return self._on_chip("f32", folder)
        return {kernel: self._on_chip(kernel, folder / kernel) for kernel in BOTH[self.target]}

    def _on_chip(self, kernel: str, folder: Path) -> dict[str, Any]:
        target = TARGETS[self.target]
        workload = dense_workload(self.network, with_kernel(boards.load(target.board), kernel))
        image = images.build(workload, target, folder)
        steps = [0] * (SETTLING if kernel == "fixed" else 1)
        taken = (atmega if target.mcu else bare).run(image, workload, steps, folder)
        counted, count = ("cycles", taken.cycles) if target.mcu else ("instructions", taken.instructions)
        return {
            counted: count,
            **({"cycles_estimated": taken.cycles} if target is images.CORTEX_M4F else {}),
            f"{counted}_per_mac": round(count / workload.macs, 2),
            "ram_bytes": image.static_ram + taken.stack,
            "ram_bytes_beyond_parameters": image.static_ram + taken.stack - len(workload.packed),
            "stack_bytes": taken.stack,
            "flash_bytes": image.flash,
        }


def main(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
    only: Annotated[list[str] | None, typer.Option(help=f"Measure only this: {', '.join(NETWORKS)}.")] = None,
) -> None:
    """Measure one training step of the generated code on each target."""
    from rich.console import Console

    console = Console(stderr=True)
    if unknown := [name for name in only or () if name not in NETWORKS]:
        console.print(f"error: --only {unknown[0]}: expected {', '.join(NETWORKS)}", markup=False)
        raise typer.Exit(2)
    try:
        results = measure([Job(t, n) for t in only or NETWORKS for n in NETWORKS[t]], console)
    except ToolError as error:
        console.print(f"error: {error}", markup=False, soft_wrap=True)
        raise typer.Exit(1) from None
    if as_json:
        json.dump(results, sys.stdout, indent=2)
        print()
    else:
        _show(results)


def measure(jobs: list[Job], console: Console) -> dict[str, dict[str, Any]]:
    """Run the jobs, showing on `console` which; return what --json prints. Raises ToolError."""
    from rich.progress import Progress

    results: dict[str, dict[str, Any]] = {}
    with Progress(console=console, transient=True) as progress, tempfile.TemporaryDirectory() as folder:
        task = progress.add_task("", total=len(jobs))
        for job in jobs:
            progress.update(task, description=f"{job.target} {job.network}")
            found = job.run(Path(folder) / job.target / job.network)
            results.setdefault(job.target, {})[job.network] = found
            progress.advance(task)
    return results


def _show(results: Results) -> None:
    from rich.console import Console

    console = Console()
    if not console.is_terminal:
        console = Console(width=120)
    for table, conditions in ((_chips(results), CONDITIONS), (_host(results), HOST_CONDITIONS)):
        if table.row_count:
            console.print(table)
            console.print(conditions + "\n", markup=False, highlight=False)


def _chips(results: Results) -> Table:
    return _table("A training step on the chips", CHIP_COLUMNS, 3, chip_rows(results))


def _host(results: Results) -> Table:
    return _table("A training step on this machine", HOST_COLUMNS, 1, host_rows(results))


def _table(title: str, columns: Sequence[str], words: int, rows: Sequence[Sequence[str]]) -> Table:
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    for index, column in enumerate(columns):
        table.add_column(column, justify="left" if index < words else "right")
    for row in rows:
        table.add_row(*row)
    return table


def chip_rows(results: Results) -> list[list[str]]:
    """Return the lines of the chips' table: CHIP_COLUMNS."""
    rows = []
    for target, network, kernel, found in _rows(results):
        cycles = f"≈ {found['cycles_estimated']:,}" if target == "m4f" else _number(found, "cycles")
        per_mac = str(found["cycles_per_mac" if target.startswith("atmega") else "instructions_per_mac"])
        counts = [_number(found, "instructions"), cycles, per_mac]
        rows.append([target, network, kernel, *counts, *(_number(found, key) for key in MEMORY)])
    return rows


def host_rows(results: Results) -> list[list[str]]:
    """Return the lines of the host's table: HOST_COLUMNS."""
    rows = []
    for network, found in results.get("host", {}).items():
        ours, tensorflow, pytorch, *faster = found.values()
        theirs = ["pip install torch", ""] if pytorch is None else [f"{pytorch:,}", str(faster[1])]
        rows.append([network, f"{ours:,}", f"{tensorflow:,}", str(faster[0]), *theirs])
    return rows


def _number(found: Mapping[str, Any], key: str) -> str:
    return f"{found[key]:,}" if key in found else ""


def _rows(results: Results) -> Iterator[tuple[str, str, str, Mapping[str, Any]]]:
    for target, networks in results.items():
        for network, found in networks.items():
            if target in BOTH:
                yield from ((target, network, kernel, found[kernel]) for kernel in found)
            elif target != "host":
                yield target, network, "f32", found


if __name__ == "__main__":
    typer.run(main)
