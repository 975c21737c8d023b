"""`coordinator demo`, `serve` and `emulate`: run a federation, on boards or on their twins."""

from __future__ import annotations

import fcntl
import itertools
import re
import shlex
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import RunFileError, ToolchainError, UsageError
from .options import FederationOption, JsonOption, ManyPorts, open_federation, print_json, print_table

if TYPE_CHECKING:
    from ..federation import Federation
    from ..results import Summary

RUNS = Path("runs")
SHARDS = Path(".tierfed") / "shards"  # of twins that run on their own

NameOption = Annotated[str | None, typer.Option("--run", help="Name of the run: its folder below runs/.")]
ResumeOption = Annotated[bool, typer.Option("--resume", help="Go on after the last round that the run journaled.")]


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command("demo")(demo)
    app.command("serve", cls=ManyPorts)(serve)
    app.command("emulate")(emulate)


def demo(
    federation: FederationOption = None,
    run: Annotated[str, typer.Option("--run", help="Name of the run: its folder below runs/.")] = "demo",
    resume: ResumeOption = False,
    as_json: JsonOption = False,
) -> None:
    """Build a twin of every board, start one for each node, and run the federation on them."""
    import asyncio

    settings = open_federation(federation)
    folder = run_folder(run)
    if not resume:
        set_aside(folder)
    programs = build_twins(settings)
    _finish(asyncio.run(_demo(settings, programs, folder, resume, as_json)), folder, as_json)


def serve(
    ports: Annotated[
        list[str] | None,
        typer.Option("--ports", metavar="PORT...", help="Devices, ptys, socket:// or rfc2217:// URLs; or auto."),
    ] = None,
    federation: FederationOption = None,
    run: NameOption = None,
    resume: ResumeOption = False,
    as_json: JsonOption = False,
) -> None:
    """Run the federation on nodes that are already there."""
    import asyncio

    if not ports:
        raise UsageError("--ports says where the nodes are: names, URLs, or auto; `coordinator ports` lists them")
    if "auto" in ports and len(ports) > 1:
        raise UsageError("--ports auto looks for nodes by itself; expected it alone, or ports by name")
    settings = open_federation(federation)
    folder = run_folder(run or settings.name)
    _finish(asyncio.run(_serve(settings, ports, folder, resume, as_json)), folder, as_json)


def emulate(federation: FederationOption = None, as_json: JsonOption = False) -> None:
    """Start a twin for every node, print their ports, and keep them running until Ctrl-C."""
    import asyncio

    settings = open_federation(federation)
    asyncio.run(_emulate(settings, build_twins(settings), as_json))


async def _demo(
    federation: Federation, programs: Mapping[str, Path], folder: Path, resume: bool, quiet: bool
) -> Summary:
    from ..emulation import Twins

    async with Twins(federation, programs, folder / "shards") as twins:
        return await _serve(federation, twins.ports, folder, resume, quiet)


async def _serve(federation: Federation, ports: Sequence[str], folder: Path, resume: bool, quiet: bool) -> Summary:
    """Run the federation and show it; `quiet` leaves stdout to the JSON."""
    from rich.console import Console

    from ..live import Watcher
    from ..report import LIVE_PICTURE
    from ..runs import run

    with Watcher(Console(stderr=quiet, highlight=False), folder / LIVE_PICTURE) as watcher:
        return await run(federation, ports, folder, resume=resume, observer=watcher)


async def _emulate(federation: Federation, programs: Mapping[str, Path], as_json: bool) -> None:
    import asyncio

    from ..emulation import Twins

    async with Twins(federation, programs, SHARDS / federation.name) as twins:
        rows = [{"name": twin.name, "board": twin.board, "uid": twin.uid, "port": twin.port} for twin in twins.twins]
        if as_json:
            print_json(rows)
        else:
            print_table(["node", "board", "uid", "port"], [list(row.values()) for row in rows], left=4)
            print(
                f"\ncoordinator serve --federation {shlex.quote(str(federation.path))} --ports {' '.join(twins.ports)}",
                flush=True,
            )
        await asyncio.Event().wait()


def build_twins(federation: Federation) -> dict[str, Path]:
    """Build the native twins of the federation's boards, PlatformIO made ready first; returns programs by board.

    What the run would refuse is refused before: a build says it less well, and takes longer.
    """
    from boards.seed import SeedError, seed

    from ..emulation import build
    from ..evaluation import preload
    from ..results import load

    load(federation)
    try:
        seed()
    except SeedError as error:
        raise ToolchainError(str(error)) from error
    threading.Thread(target=preload, daemon=True).start()  # the import of TensorFlow hides behind the build
    with counting("building the twins", len({node.board for node in federation.nodes()})) as watch:
        return build(federation, watch=watch)


@contextmanager
def counting(what: str, total: int) -> Iterator[Callable[[str], None]]:
    """Show on stderr how far something with `total` parts is; what it gives is called as each part begins."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    console = Console(stderr=True, highlight=False)
    if not console.is_terminal:
        console.print(f"{what}: {total} …")
    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=total)
        begun = itertools.count()
        yield lambda part: progress.update(task, description=part, completed=next(begun))


def run_folder(name: str) -> Path:
    """Return the folder of the run `name`; raises UsageError if it is no name."""
    from ..federation_errors import FILE_NAME, PATTERNS

    if not re.fullmatch(FILE_NAME, name):
        raise UsageError(f"--run {name}: expected {PATTERNS[FILE_NAME]}")
    return RUNS / name


def set_aside(folder: Path) -> Path | None:
    """Move an earlier run of this name to NAME-<when>, without its shards, which can be made again."""
    journal = folder / "journal.jsonl"
    if not journal.is_file():
        return None
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise RunFileError(f"{folder}: another coordinator is using this run; give this one --run") from error
        when = time.strftime("%Y%m%d-%H%M%S", time.localtime(journal.stat().st_mtime))
        aside = folder.with_name(f"{folder.name}-{when}")
        shutil.rmtree(folder / "shards", ignore_errors=True)
        folder.rename(aside)
    print(f"the run that was in {folder} is now in {aside}", file=sys.stderr)
    return aside


def _finish(summary: Summary, folder: Path, as_json: bool) -> None:
    from ..live import shares

    if as_json:
        from dataclasses import asdict

        print_json(asdict(summary))
        return
    print(f"{summary.rounds} rounds in {summary.seconds:.1f} s: {shares(summary.accuracy)}")
    print(f"{folder / 'summary.json'}  {folder / 'report.html'}  {folder / 'global.keras'}")
