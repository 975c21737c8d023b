"""`coordinator ports`: what is plugged in, what it says it is, and how to flash what says nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from .options import FederationOption, JsonOption, open_federation, print_json, print_table

if TYPE_CHECKING:
    from ..desk import Plugged


def register(app: typer.Typer) -> None:
    """Add the command of this module."""
    app.command("ports")(ports)


def ports(
    ask: Annotated[
        bool, typer.Option(help="Ask each board's port who is there; opening it may reset the board.")
    ] = True,
    federation: FederationOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the ports of this machine, the boards they look like, the nodes that answer, and how to flash the others."""
    import asyncio

    from ..desk import offers, survey
    from ..roster import node_uid

    found = asyncio.run(survey(ask))
    commands: dict[str, str] = {}
    if any(each.silence for each in found):
        settings = open_federation(federation)
        there = {each.uid for each in found}
        missing = [spec for spec in settings.nodes() if node_uid(spec) not in there]
        commands = offers(settings, missing, [each.port.name for each in found if each.silence])
    rows = [_row(each, commands.get(each.port.name, "")) for each in found]
    if as_json:
        print_json(rows)
    elif not rows:
        print("no serial ports; is the cable plugged in, and one that carries data?")
    else:
        print_table(["port", "USB", "looks like", "answers"], [list(row.values())[:4] for row in rows], left=4)
        for port, command in commands.items():
            print(f"\n{port} does not answer as a node; to make it one: {command}")


def _row(plugged: Plugged, flash: str) -> dict[str, Any]:
    hello, port = plugged.hello, plugged.port
    says = plugged.silence
    if hello is not None:
        says = f"{hello.board} {plugged.uid}, tier {hello.tier}, model {hello.model:08x}, {hello.samples} samples"
    looks = " or ".join(plugged.boards) or port.description
    return {"port": port.name, "usb": port.usb, "looks_like": looks, "answers": says, "flash": flash}
