"""`coordinator data fetch` and `coordinator report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

group = typer.Typer(help="Data sets.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.add_typer(group, name="data")
    app.command("report")(report)


@group.callback()
def _data() -> None:
    """Data sets."""


@group.command("fetch")
def fetch(
    name: Annotated[str, typer.Argument(help="mnist is the one that can be fetched.")],
    to: Annotated[Path | None, typer.Option("--to", help="The .npz to write. [default: NAME.npz]")] = None,
) -> None:
    """Fetch a data set, check it, and write it as .npz."""
    from ..fetch import fetch as fetch_data

    path = to or Path(f"{name}.npz")
    source = fetch_data(name, path)
    print(f"{path}: {name}, from {source}, checked")


def report(
    run: Annotated[Path, typer.Argument(help="A run's folder, or its name below runs/.")],
    pictures: Annotated[
        Path | None, typer.Option("--pictures", help="Also write live.svg and accuracy.svg here.")
    ] = None,
) -> None:
    """Make a run's report.html anew from what it journaled."""
    from ..report import write_pictures, write_report

    folder = run if run.is_dir() else Path("runs") / run
    print(write_report(folder))
    for path in write_pictures(folder, pictures) if pictures else ():
        print(path)
