"""How many wires one host keeps full: python -m benchmarks.gateway [--json] [--nodes 64] [--baud 1000000].

Every wire is emulated at its bit rate in real time, with the firmware's link at its end; sessions on one core of this
machine serve them all, the wires share another. Half of the nodes are sent a blob again and again while one is fetched
from the others, then the other way round.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Annotated

import typer

from benchmarks.images import PACKAGES, TARGETS, WARNINGS, ToolError, run_tool
from boards import load
from codegen.protocol import Encoding, TransferKind
from codegen.protocol_header import protocol_header
from coordinator.link.errors import LinkError
from coordinator.link.ports import open_port
from coordinator.link.session import Session
from simulation.wire import SOURCES, peer_flags

BOARD = load("esp32dev")  # whose link the nodes have
BLOB = 65536  # bytes of a transfer
BITS_A_BYTE = 10
CONDITIONS = (
    "Content as a share of what each wire could carry, turns and checks included. The wires hand over what has come "
    "once a millisecond, as USB does. Host: what all sessions take of one core; the wires have another."
)


@dataclass(frozen=True)
class Phase:
    """What the wires carried while half of them went down and half up."""

    goodput: list[float]  # by node, as a share of its wire's rate
    seconds: float
    cpu: float  # seconds of this process


@dataclass(frozen=True)
class Figures:
    """What --json prints. Shares are of the wire's rate."""

    nodes: int
    baud: int
    down: list[float]  # goodput by node
    up: list[float]
    worst: float
    median: float
    retransmitted: int
    host_cpu: float  # processor seconds a second
    nodes_a_core: int  # that would take all of one at this cost a wire
    wires_cpu: float


def build(folder: Path) -> Path:
    """Compile the program that emulates the wires. Raises ToolError."""
    (folder / "protocol.h").write_text(protocol_header(), encoding="utf-8")
    path, sources = folder / "wires", map(str, (TARGETS / "wires.c", *SOURCES))
    link = BOARD.training
    flags = ("-O2", *peer_flags(folder, link.mtu, link.window))
    run_tool("gcc", PACKAGES["gcc"], "the wires", *WARNINGS, *flags, *sources, "-o", str(path))
    return path


def go_first() -> None:
    """Have this process and those it starts run before all others of the machine. Raises PermissionError."""
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))


@contextmanager
def wires(program: Path, nodes: int, baud: int) -> Iterator[str]:
    """Run the wires and yield their URL, a wire a connection; they and this process have a core each."""
    cores = sorted(os.sched_getaffinity(0))
    with subprocess.Popen([program, str(nodes), str(baud)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        os.sched_setaffinity(process.pid, {cores[-1]})
        os.sched_setaffinity(0, {cores[0]})
        try:
            yield f"socket://127.0.0.1:{int(process.stdout.readline())}"
            process.wait(5)
        finally:
            process.kill()
            os.sched_setaffinity(0, cores)


async def exchange(url: str, nodes: int, baud: int, seconds: float) -> tuple[list[Phase], int]:
    """Return both phases of at least `seconds`, and the frames that were sent again. Raises LinkError."""
    sessions = [Session(open_port(url, baud)) for _ in range(nodes)]
    blobs = [random.Random(seed).randbytes(BLOB) for seed in range(2)]
    await asyncio.gather(*(session.hello() for session in sessions))
    await asyncio.gather(*(session.send(TransferKind.WEIGHTS, 1, blobs[0]) for session in sessions))
    phases = [await _phase(sessions, blobs, baud, seconds, odd) for odd in range(2)]
    again = sum(session.stats.retransmissions for session in sessions)
    await asyncio.gather(*(session.close() for session in sessions))
    return phases, again


async def _phase(sessions: Sequence[Session], blobs: Sequence[bytes], baud: int, seconds: float, odd: int) -> Phase:
    """Send to each second node, the first or the second, and fetch from the others. The blobs take turns: one that a
    node holds already is not moved again."""
    began, cpu = time.perf_counter(), time.process_time()

    async def keep_going(node: int, session: Session) -> float:
        turn = 0
        while (passed := time.perf_counter() - began) < seconds:
            if node % 2 == odd:
                await session.send(TransferKind.WEIGHTS, 1, blobs[(turn + 1) % 2])
            elif (await session.fetch(1, Encoding.WEIGHTS))[1] not in blobs:
                raise LinkError(f"{session.name}: another blob came back")
            turn += 1
        passed = time.perf_counter() - began
        return turn * BLOB * BITS_A_BYTE / baud / passed

    goodput = await asyncio.gather(*(keep_going(node, session) for node, session in enumerate(sessions)))
    return Phase(goodput, time.perf_counter() - began, time.process_time() - cpu)


def measure(nodes: int, baud: int, seconds: float) -> Figures:
    """Build the wires, serve them, and say how full they were. Raises ToolError and LinkError."""
    with tempfile.TemporaryDirectory() as folder:
        program = build(Path(folder))
        began, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
        with wires(program, nodes, baud) as url:
            phases, again = asyncio.run(exchange(url, nodes, baud, seconds))
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        whole = time.perf_counter() - began
    down, up = ([round(phases[(node + way) % 2].goodput[node], 4) for node in range(nodes)] for way in range(2))
    host_cpu = sum(phase.cpu for phase in phases) / sum(phase.seconds for phase in phases)
    return Figures(
        nodes,
        baud,
        down,
        up,
        worst=min(*down, *up),
        median=round(median((*down, *up)), 4),
        retransmitted=again,
        host_cpu=round(host_cpu, 3),
        nodes_a_core=int(nodes / host_cpu),
        wires_cpu=round(spent / whole, 3),
    )


def main(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
    nodes: Annotated[int, typer.Option(min=1, max=1024, help="How many wires, with a node each.")] = 64,
    baud: Annotated[int, typer.Option(min=9600, help="Bits a second of each.")] = 1_000_000,
    seconds: Annotated[float, typer.Option(min=0.1, help="How long each half is measured.")] = 5.0,
    first: Annotated[bool, typer.Option("--first", help="Run before all else on this machine; needs root.")] = False,
) -> None:
    """Serve emulated wires in real time, and say how full they are."""
    try:
        if first:
            go_first()
        found = measure(nodes, baud, seconds)
    except PermissionError:
        print("error: --first: not permitted; expected root, or leave it out", file=sys.stderr)
        raise typer.Exit(1) from None
    except (ToolError, LinkError) as error:
        print(f"error: {error}", file=sys.stderr)
        raise typer.Exit(1) from None
    if as_json:
        json.dump(asdict(found), sys.stdout, indent=2)
        print()
    else:
        _show(found)


def _show(found: Figures) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("nodes", "baud", "way", "worst wire", "median", "host", "nodes a core", "wires", "sent again")
    for column in table.columns[3:]:
        column.justify = "right"
    whole = [f"{100 * found.host_cpu:.0f} %", str(found.nodes_a_core), f"{100 * found.wires_cpu:.0f} %"]
    for way, shares in (("down", found.down), ("up", found.up)):
        goodput = [f"{100 * share:.1f} %" for share in (min(shares), median(shares))]
        table.add_row(str(found.nodes), f"{found.baud:,}", way, *goodput, *whole, str(found.retransmitted))
    console = Console()
    if not console.is_terminal:
        console = Console(width=120)
    console.print(table)
    console.print(CONDITIONS, markup=False, highlight=False)


if __name__ == "__main__":
    typer.run(main)
