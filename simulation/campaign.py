"""`python -m simulation.campaign`: thousands of runs, each with the faults of its seed, and what they ended in."""

from __future__ import annotations

import argparse
import json
import multiprocessing
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

import boards
from simulation.faults import DRAWN, draw
from simulation.judge import OUTCOMES, judge
from simulation.world import REHEARSING, World

FOLDER = boards.PROJECT_ROOT / "build" / "simulation"
CHUNK = 10  # seeds that a worker takes at a time


@dataclass(frozen=True)
class Verdict:
    """What a seed ended in: one of OUTCOMES, or the violation that it found."""

    seed: int
    faults: tuple[str, ...]  # kinds of those that took place
    outcome: str
    violation: str = ""


@cache
def _world() -> World:
    return World(FOLDER, REHEARSING)


def try_seed(seed: int) -> Verdict:
    """Hold the run of a seed and judge it."""
    world = _world()
    faults = draw(seed, world.extent)
    with tempfile.TemporaryDirectory() as folder:
        try:
            ending = world.play(faults, Path(folder), seed)
            outcome = judge(world, ending, Path(folder))
        except Exception as error:  # whatever it is, it is what the campaign looks for
            return Verdict(seed, tuple(fault.kind for fault in faults), "", f"{type(error).__name__}: {error}")
    return Verdict(seed, tuple(fault.kind for fault in ending.injected), outcome)


def tell(seed: int) -> None:
    """Replay a seed and print all that happens. Raises Violation."""
    world = _world()
    faults = draw(seed, world.extent)
    for fault in faults:
        print(fault)
    with tempfile.TemporaryDirectory() as folder:
        ending = world.play(faults, Path(folder), seed, show=lambda time, event: print(f"{time:9.3f} s  {event}"))
        for number, part in enumerate(ending.parts, 1):
            print(f"coordinator {number}: {part or 'completed the run'}")
        print(f"answered: {ending.answered}")
        print(judge(world, ending, Path(folder)))


def verdicts(seeds: Sequence[int], jobs: int) -> Iterator[Verdict]:
    """Try all seeds in `jobs` processes; in the order in which they end."""
    _world()  # compiles the firmware, once
    ignore = (signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the campaign, not what its workers do
    with multiprocessing.get_context("spawn").Pool(jobs, signal.signal, ignore) as pool:
        yield from pool.imap_unordered(try_seed, seeds, CHUNK)


def tabulate(found: Sequence[Verdict]) -> list[dict[str, int | str]]:
    """Return a row for each kind of fault: how many took place, in how many runs all was well in the end, and what
    those runs ended in. A run with several faults counts for each of them."""
    rows = list[dict[str, int | str]]()
    for kind in DRAWN:
        runs = [each for each in found if kind in each.faults]
        ended = Counter(each.outcome for each in runs)
        rows.append(
            {
                "fault": kind,
                "injected": sum(each.faults.count(kind) for each in runs),
                "runs": len(runs),
                "survived": sum(not each.violation for each in runs),
                **{outcome: ended[outcome] for outcome in OUTCOMES},
            }
        )
    return rows


def show(rows: Sequence[dict[str, int | str]]) -> None:
    """Print the table."""
    from coordinator.cli.options import print_table

    print_table(list(rows[0]), [[str(value) for value in row.values()] for row in rows])


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the campaign; 1 if it finds a violation."""
    parser = argparse.ArgumentParser(prog="python -m simulation.campaign", description=__doc__)
    parser.add_argument("--seeds", type=int, default=10_000, help="how many")
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    parser.add_argument("--seed", type=int, help="replay one, and print all that happens")
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    parser.add_argument("--json", action="store_true", help="print the table as JSON")
    options = parser.parse_args(arguments)
    if options.seed is not None:
        tell(options.seed)
        return 0

    from rich.progress import track

    found, failed = list[Verdict](), list[Verdict]()
    seeds = range(options.first, options.first + options.seeds)
    progress = track(verdicts(seeds, options.jobs), "Runs", options.seeds, disable=not sys.stderr.isatty())
    with suppress(KeyboardInterrupt):  # what was found so far is shown all the same
        for verdict in progress:
            found.append(verdict)
            if verdict.violation:
                failed.append(verdict)
                replay = f"python -m simulation.campaign --seed {verdict.seed}"
                print(f"seed {verdict.seed}: {verdict.violation}\n  {replay}", flush=True)
    rows = tabulate(found)
    if options.json:
        print(json.dumps({"rows": rows, "failed": [asdict(each) for each in failed]}, indent=2))
    else:
        show(rows)
        print(f"{len(found)} runs, {len(failed)} violations")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
