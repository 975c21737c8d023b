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
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from boards import PROJECT_ROOT

from ..errors import RunFileError, ToolchainError, UsageError
from .options import FederationOption, JsonOption, ManyPorts, open_federation, print_json, print_table

if TYPE_CHECKING:
    from ..federation import Federation
    from ..live import Watcher
    from ..results import Summary

RUNS = Path("runs")
SHARDS = Path(".tierfed") / "shards"  # of twins that run on their own
EMULATOR_PACE = 10.0  # times slower than its chip that an emulator may be before its node is given up


class Emulate(StrEnum):
    """What stands in for the boards."""

    NATIVE = "native"
    ISA = "isa"


EmulateOption = Annotated[
    Emulate,
    typer.Option(
        "--emulate",
        help="native: each board's twin, a process of this machine. isa: the real image, in an emulator of its chip, "
        "where there is one. [default federation with isa: the example's chips.toml]",
    ),
]
NameOption = Annotated[str | None, typer.Option("--run", help="Name of the run: its folder below runs/.")]
ResumeOption = Annotated[bool, typer.Option("--resume", help="Go on after the last round that the run journaled.")]


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command("demo")(demo)
    app.command("serve", cls=ManyPorts)(serve)
    app.command("emulate")(emulate)


def demo(
    federation: FederationOption = None,
    emulate: EmulateOption = Emulate.NATIVE,
    run: Annotated[str, typer.Option("--run", help="Name of the run: its folder below runs/.")] = "demo",
    resume: ResumeOption = False,
    as_json: JsonOption = False,
) -> None:
    """Build a twin of every board, start one for each node, and run the federation on them."""
    import asyncio

    settings = open_example(federation, emulate)
    folder = run_folder(run)
    if not resume:
        set_aside(folder)
    built = build_twins(settings, folder / "shards", emulate)
    _finish(asyncio.run(_demo(settings, built, folder, resume, as_json)), folder, as_json)


def serve(
    ports: Annotated[
        list[str] | None,
        typer.Option("--ports", metavar="PORT...", help="Devices, ptys, socket:// or rfc2217:// URLs; or auto."),
    ] = None,
    federation: FederationOption = None,
    run: NameOption = None,
    resume: ResumeOption = False,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Believe nodes without a key behind socket:// and rfc2217://.")
    ] = False,
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
    _finish(asyncio.run(_serve(settings, ports, folder, resume, as_json, insecure)), folder, as_json)


def emulate(
    federation: FederationOption = None, emulate: EmulateOption = Emulate.NATIVE, as_json: JsonOption = False
) -> None:
    """Start a twin for every node, print their ports, and keep them running until Ctrl-C."""
    import asyncio

    settings = open_example(federation, emulate)
    folder = SHARDS / settings.name
    asyncio.run(_emulate(settings, build_twins(settings, folder, emulate), folder, as_json))


async def _demo(federation: Federation, built: Built, folder: Path, resume: bool, quiet: bool) -> Summary:
    from ..emulation import Twins
    from ..events import TwinEnded

    with _watching(folder, quiet) as watcher:
        ended = lambda text: watcher(TwinEnded(text))  # noqa: E731
        async with Twins(federation, built.programs, folder / "shards", built.images, on_end=ended) as twins:
            watcher.view.how = {twin.name: twin.how for twin in twins.twins} if built.images else {}
            pace = EMULATOR_PACE if built.images else 1.0
            return await _run(federation, twins.ports, folder, resume, watcher, pace)


async def _serve(
    federation: Federation, ports: Sequence[str], folder: Path, resume: bool, quiet: bool, insecure: bool
) -> Summary:
    with _watching(folder, quiet) as watcher:
        return await _run(federation, ports, folder, resume, watcher, insecure=insecure)


def _watching(folder: Path, quiet: bool) -> Watcher:
    """Return what shows the run; `quiet` leaves stdout to the JSON."""
    from rich.console import Console

    from ..live import Watcher
    from ..report import LIVE_PICTURE

    return Watcher(Console(stderr=quiet, highlight=False), folder / LIVE_PICTURE)


async def _run(
    federation: Federation,
    ports: Sequence[str],
    folder: Path,
    resume: bool,
    watcher: Watcher,
    pace: float = 1.0,
    insecure: bool = False,
) -> Summary:
    from ..runs import run

    return await run(federation, ports, folder, resume=resume, observer=watcher, pace=pace, insecure=insecure)


async def _emulate(federation: Federation, built: Built, folder: Path, as_json: bool) -> None:
    from ..emulation import Twins

    def ended(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    async with Twins(federation, built.programs, folder, built.images, on_end=ended) as twins:
        rows = [
            {"name": twin.name, "board": twin.board, "runs_in": twin.how, "uid": twin.uid, "port": twin.port}
            for twin in twins.twins
        ]
        if as_json:
            print_json(rows)
        else:
            print_table(["node", "board", "runs in", "uid", "port"], [list(row.values()) for row in rows], left=5)
            print(
                f"\ncoordinator serve --federation {shlex.quote(str(federation.path))} --ports {' '.join(twins.ports)}",
                flush=True,
            )
        await twins.all_ended()
    raise ToolchainError("no twin runs any more; what each said when it ended is above")


@dataclass(frozen=True)
class Built:
    """What there is to start: native twins by kind of node, and by node the images that run in emulators."""

    programs: dict[str, Path]
    images: dict[str, Path]


def open_example(federation: Path | None, emulate: Emulate) -> Federation:
    """Return the federation that the user named, or the nearest default; for emulators the example made for them."""
    if federation is None and emulate is Emulate.ISA:
        federation = PROJECT_ROOT / "examples" / "mnist" / "chips.toml"
    return open_federation(federation)


def build_twins(federation: Federation, shards: Path, emulate: Emulate = Emulate.NATIVE) -> Built:
    """Build the native twins of the federation's boards and, to be emulated, the images of its nodes, PlatformIO made
    ready first.

    What the run would refuse is refused before: a build says it less well, and takes longer.
    """
    from ..emulation import build, build_images, emulator_of
    from ..evaluation import preload
    from ..platformio import seed
    from ..results import load

    inputs = load(federation)
    seed()
    threading.Thread(target=preload, daemon=True).start()  # the import of TensorFlow hides behind the build
    isa = emulate is Emulate.ISA
    nodes = federation.nodes()
    emulated = {node.board for node in nodes if isa and emulator_of(node.board)}
    native = sorted({node.kind for node in nodes if node.board not in emulated})
    programs: dict[str, Path] = {}
    if native:
        with counting("building the twins", len(native)) as watch:
            programs = build(federation, watch=watch, only=native)
    if not isa:
        return Built(programs, {})
    with counting("building the images", sum(node.board in emulated for node in nodes)) as watch:
        return Built(programs, build_images(federation, inputs.plans, shards / "images", watch=watch))


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


def latest_run() -> Path:
    """Return the folder of the run that wrote its journal last. Raises RunFileError if there is none."""
    journals = sorted(RUNS.glob("*/journal.jsonl"), key=lambda path: path.stat().st_mtime)
    if not journals:
        raise RunFileError(f"{RUNS}: no run is here; `coordinator demo` makes one")
    return journals[-1].parent


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
    if summary.best is not None:
        print(f"the best by the validation images is round {summary.best.round}: global.keras holds it")
    print(f"{folder / 'summary.json'}  {folder / 'report.html'}  {folder / 'global.keras'}")
