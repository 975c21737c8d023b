"""`coordinator keys new` and `list`: who has a key."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import KeyFileError, UsageError
from .options import FederationOption, JsonOption, open_federation, print_json, print_table

if TYPE_CHECKING:
    from ..federation import Federation

group = typer.Typer(help="The nodes' keys.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.add_typer(group, name="keys")


@group.callback()
def _keys() -> None:
    """Keys by which nodes and coordinator know each other: docs/security.md."""


@group.command("new")
def new(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME]...", help="Nodes. [default: all that have no key]")
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Also in place of a key: its board is locked out until it is flashed again.")
    ] = False,
    federation: FederationOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a key for each node, in keys/ beside the federation file."""
    from ..keys import keyed_nodes, make_keys
    from .flash import node

    settings = open_federation(federation)
    had = keyed_nodes(settings)
    named = [node(settings, name).name for name in names or []]
    twice = [name for name in named if name in had and not force]
    if twice:
        raise UsageError(
            f"{had[twice[0]]} is there already; --force makes a new key, and a board with the old one is locked out "
            f"until `coordinator flash {twice[0]}`"
        )
    missing = named or [spec.name for spec in settings.nodes() if force or spec.name not in had]
    if not missing and not as_json:
        print(f"every node of {settings.path} has a key; a NAME with --force replaces one")
        return
    made = make_keys(settings, missing)
    _show(settings, list(made), as_json)
    if made and not as_json:
        command = shlex.join(["coordinator", "flash", "NAME", "--federation", str(settings.path)])
        print(f"\nA board has its key once it is flashed: `{command}`. Emulated nodes have theirs when they start.")


@group.command("list")
def list_keys(federation: FederationOption = None, as_json: JsonOption = False) -> None:
    """Say which nodes have a key. The fingerprint tells two keys apart; the keys themselves are never shown."""
    settings = open_federation(federation)
    bad = _show(settings, [spec.name for spec in settings.nodes()], as_json)
    raise typer.Exit(KeyFileError.exit_code if bad else 0)


def _show(federation: Federation, nodes: list[str], as_json: bool) -> bool:
    """Print a row a node; return whether a key is not as it should be."""
    from ..keys import fingerprint, key_file, load_key

    rows, bad = [], False
    for name in nodes:
        path = key_file(federation, name)
        row = {"node": name, "fingerprint": "", "file": str(path or "")}
        try:
            row["fingerprint"] = fingerprint(load_key(path)) if path else ""
        except KeyFileError as error:
            row["file"], bad = str(error), True
        rows.append(row)
    if as_json:
        print_json(rows)
    else:
        print_table(["node", "fingerprint", "file"], [[value or "–" for value in row.values()] for row in rows], left=3)
    return bad
