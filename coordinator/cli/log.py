"""`coordinator log`: what a board said in a run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import RunFileError, UsageError
from .options import JsonOption, print_json
from .run import latest_run, run_folder

if TYPE_CHECKING:
    from ..boardlog import Said


def register(app: typer.Typer) -> None:
    """Add the command of this module."""
    app.command("log")(log)


def _completions(incomplete: str) -> list[str]:
    """Return the names in the latest run that begin so."""
    try:
        return [name for name in known(latest_run()) if name.startswith(incomplete)]
    except (RunFileError, OSError):
        return []


def log(
    name: Annotated[
        str,
        typer.Argument(metavar="NAME", help="A node of the run, or a port that spoke.", autocompletion=_completions),
    ],
    run: Annotated[
        str | None, typer.Option("--run", help="Name of the run: its folder below runs/. [default: the latest]")
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", help="Go on with the lines that come, until Ctrl-C.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Print what a board has said in a run: its own log lines, with their time and round."""
    from dataclasses import asdict

    from ..boardlog import follow as following
    from ..boardlog import log_file, read

    folder = latest_run() if run is None else run_folder(run)
    names = known(folder)
    if name not in names and log_file(folder, name).stem not in names:
        there = f"there are {', '.join(names)}" if names else "nobody is, and nothing was said"
        raise UsageError(f"{name}: no node of the run in {folder}; {there}")
    if as_json and follow:
        raise UsageError("--json prints what has been said, --follow what comes; expected one of them")
    if as_json:
        print_json([asdict(line) for line in read(folder, name)])
        return
    for line in following(folder, name) if follow else read(folder, name):
        print(_shown(line), flush=follow)


def known(folder: Path) -> list[str]:
    """Return the nodes of a run and the ports that spoke in it. Raises RunFileError if it is no run."""
    from ..boardlog import names
    from ..events import RunStarted
    from ..journal import of_kind, read_journal

    journal = folder / "journal.jsonl"
    if not journal.is_file():
        raise RunFileError(f"{folder}: no journal.jsonl; expected the folder of a run")
    nodes = [node for line in of_kind(read_journal(journal)[0], RunStarted) for node in line["nodes"]]
    return list(dict.fromkeys([*nodes, *names(folder)]))


def _shown(line: Said) -> str:
    return f"{line.time.replace('T', ' ')}  round {line.round}  {line.text}"
