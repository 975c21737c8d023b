"""What unlike boards cost: python -m benchmarks.fleet [--json] [--seeds 5] [--method NAME]… [--validation].

Ten nodes × 1,000 MNIST images train the example's model for 20 rounds of one epoch: two hold all of it, the others a
half, a quarter and an eighth of its channels. They train what boards would, to the bit: the generated C, in-process.
Beside every method: the same nodes and images on equal hardware. Rows with two attackers among the ten, and a rule
against them, come only by --method, such as flip_median. Accuracy on the test images, by which nothing is chosen;
--validation takes training images that no node holds instead.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from statistics import mean, stdev
from typing import Annotated

import typer

from benchmarks.fleet_methods import METHODS, REFERENCES, ROWS, SPLITS, TIERS, best_of, variants
from benchmarks.images import ToolError
from boards import PROJECT_ROOT
from coordinator.errors import TierfedError

DATA = (PROJECT_ROOT.parent / "shared" / "data" / "mnist.npz", PROJECT_ROOT / "examples" / "mnist" / "mnist-10k.npz")
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")  # a run is a process, and a core has one


@dataclass(frozen=True)
class Figure:
    """Accuracy in per cent over the seeds."""

    mean: float
    std: float  # sample standard deviation; 0 of one seed


Table = dict[str, dict[str, dict[str, Figure]]]  # by split, method and tier


@dataclass(frozen=True)
class Job:
    """One run, in a process of its own."""

    split: str
    variant: str  # of a method
    seed: int
    data: Path
    validation: bool


def work(job: Job) -> dict[str, float]:
    """Run it and return each tier's accuracy, per cent."""
    from benchmarks.fleet_run import run

    with tempfile.TemporaryDirectory(prefix="tierfed-") as folder:
        return run(job.split, variants()[job.variant], job.seed, job.data, job.validation, Path(folder))


def table(found: Mapping[Job, Mapping[str, float]], methods: Sequence[str]) -> Table:
    """Return the mean and spread of what was found; where a method has variants, each tier's best counts."""
    splits = [split for split in SPLITS if any(job.split == split for job in found)]
    return {split: {method: _row(found, split, best_of(method)) for method in methods} for split in splits}


def _row(found: Mapping[Job, Mapping[str, float]], split: str, names: Sequence[str]) -> dict[str, Figure]:
    runs = {name: [done for job, done in found.items() if (job.split, job.variant) == (split, name)] for name in names}
    figures = {name: {tier: _figure([run[tier] for run in done]) for tier in done[0]} for name, done in runs.items()}
    return {
        tier: max((known[tier] for known in figures.values() if tier in known), key=lambda figure: figure.mean)
        for tier in TIERS
        if any(tier in known for known in figures.values())
    }


def _figure(values: Sequence[float]) -> Figure:
    return Figure(round(mean(values), 3), round(stdev(values), 3) if len(values) > 1 else 0.0)


def measure(jobs: Sequence[Job], cores: int) -> dict[Job, dict[str, float]]:
    """Do all jobs, on so many cores. Raises whatever one raises."""
    from rich.console import Console
    from rich.progress import track

    os.environ.update(dict.fromkeys(THREADS, "1"))
    found = {}
    with ProcessPoolExecutor(cores, mp_context=get_context("spawn")) as pool:
        running = {pool.submit(work, job): job for job in jobs}
        console = Console(stderr=True)
        for done in track(as_completed(running), "Training", len(jobs), console=console, transient=True):
            found[running[done]] = done.result()
    return {job: found[job] for job in jobs}


def main(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
    seeds: Annotated[int, typer.Option(min=1, help="How many seeds, from 1 on.")] = 5,
    method: Annotated[list[str] | None, typer.Option(help=f"Only these rows; of {', '.join(ROWS)}.")] = None,
    split: Annotated[list[str] | None, typer.Option(help=f"Only these splits; of {', '.join(SPLITS)}.")] = None,
    validation: Annotated[bool, typer.Option("--validation", help="Training images instead of the test's.")] = False,
    data: Annotated[Path | None, typer.Option(help="MNIST as .npz; without it the example's subset.")] = None,
    cores: Annotated[int, typer.Option(min=1, help="Runs at a time.")] = len(os.sched_getaffinity(0)),
) -> None:
    """Measure every method beside equal hardware."""
    for name, known in [(each, ROWS) for each in method or []] + [(each, SPLITS) for each in split or []]:
        if name not in known:
            raise typer.BadParameter(f"{name!r}; expected one of {', '.join(known)}")
    path = data or next(path for path in DATA if path.exists())
    methods, began = method or list(METHODS), time.perf_counter()
    names = dict.fromkeys(name for each in methods for name in best_of(each))
    jobs = [
        Job(each, name, seed, path, validation)
        for seed in range(1, seeds + 1)
        for each in split or SPLITS
        for name in names
    ]
    try:
        figures = table(measure(jobs, cores), methods)
    except (ToolError, TierfedError) as error:
        print(f"error: {error}", file=sys.stderr)
        raise typer.Exit(1) from None
    took = f"{len(jobs)} runs on {cores} cores in {(time.perf_counter() - began) / 60:.1f} minutes, with {path.name}"
    if as_json:
        json.dump({s: {m: {t: asdict(f) for t, f in ts.items()} for m, ts in ms.items()} for s, ms in figures.items()},
                  sys.stdout, indent=2)  # fmt: skip
        print()
        print(took, file=sys.stderr)
    else:
        _show(figures)
        print(took)


def _show(figures: Table) -> None:
    from rich.console import Console
    from rich.table import Table as RichTable

    console = Console()
    if not console.is_terminal:
        console = Console(width=120)
    for split, rows in figures.items():
        shown = RichTable(split, *TIERS, "beside all_expanded")
        for column in shown.columns[1:]:
            column.justify = "right"
        widest = rows.get(REFERENCES[0], {}).get(TIERS[0])
        for method, row in rows.items():
            cells = [f"{row[tier].mean:.2f} ± {row[tier].std:.2f}" if tier in row else "" for tier in TIERS]
            beside = f"{row[TIERS[0]].mean - widest.mean:+.2f}" if widest and TIERS[0] in row else ""
            shown.add_row(method, *cells, beside)
        console.print(shown)


if __name__ == "__main__":
    typer.run(main)
