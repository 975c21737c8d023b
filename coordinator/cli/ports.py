"""`coordinator ports`: what is plugged in, and what it says it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from .options import JsonOption, print_json, print_table

if TYPE_CHECKING:
    from ..link.ports import PortInfo


def register(app: typer.Typer) -> None:
    """Add the command of this module."""
    app.command("ports")(ports)


def ports(
    ask: Annotated[
        bool, typer.Option(help="Ask each board's port who is there; opening it may reset the board.")
    ] = True,
    as_json: JsonOption = False,
) -> None:
    """List the ports of this machine, the boards they look like, and the nodes that answer."""
    import asyncio

    rows = asyncio.run(_ports(ask))
    if as_json:
        print_json(rows)
    elif not rows:
        print("no serial ports; is the cable plugged in, and one that carries data?")
    else:
        print_table(["port", "USB", "looks like", "answers"], [list(row.values()) for row in rows], left=4)


async def _ports(ask: bool) -> list[dict[str, Any]]:
    import asyncio

    import boards

    from ..link.ports import list_ports

    known: dict[str, list[str]] = {}
    for board in boards.all_boards():
        for usb in board.training.usb:
            known.setdefault(usb, []).append(board.id)
    found = list_ports()
    answers = await asyncio.gather(*(_ask(port) if ask and port.usb in known else _silence() for port in found))
    return [
        {"port": port.name, "usb": port.usb, "looks_like": _looks(port, known), "answers": answer}
        for port, answer in zip(found, answers, strict=True)
    ]


def _looks(port: PortInfo, known: dict[str, list[str]]) -> str:
    return " or ".join(known.get(port.usb, ())) or port.description


async def _silence() -> str:
    return ""


async def _ask(port: PortInfo) -> str:
    """Return what the node behind a port says of itself, or why it says nothing."""
    import asyncio

    import boards

    from ..link.errors import LinkError
    from ..link.ports import open_port
    from ..link.session import Session
    from ..roster import rates_of

    rates = rates_of(board for board in boards.all_boards() if port.usb in board.training.usb)
    for rate in rates:
        try:
            session = Session(await asyncio.to_thread(open_port, port.name, rate))
        except LinkError as error:
            return str(error)
        try:
            hello = await session.hello()
            return (
                f"{hello.board} {hello.uid.hex()}, tier {hello.tier}, model {hello.model:08x}, {hello.samples} samples"
            )
        except LinkError as error:
            last = str(error)
        finally:
            await session.close()
    return last
