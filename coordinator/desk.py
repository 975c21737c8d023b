"""What is plugged in: ports that look like boards, who answers there, and which node of a federation each may be."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import boards
from codegen.protocol import Hello
from coordinator.connection import rates_of
from coordinator.federation import Federation, NodeSpec
from coordinator.link.errors import LinkError
from coordinator.link.ports import PortInfo, list_ports, open_port
from coordinator.link.session import Session
from coordinator.roster import flash_command, node_uid


@dataclass(frozen=True)
class Plugged:
    """A port of this machine. `silence` says why nobody answers there; it is empty if nobody was asked."""

    port: PortInfo
    boards: tuple[str, ...]  # those whose USB id it has
    hello: Hello | None = None
    silence: str = ""

    @property
    def uid(self) -> str | None:
        """The unique id of the node that answers, 16 hexadecimal digits."""
        return self.hello.uid.hex() if self.hello else None


async def survey(ask: bool = True) -> list[Plugged]:
    """Return the ports of this machine; `ask` each that looks like a board who is there, which may reset it."""
    known = boards.all_boards()
    found = [
        Plugged(port, tuple(board.id for board in known if port.usb in board.training.usb)) for port in list_ports()
    ]
    return list(await asyncio.gather(*(_asked(each) if ask and each.boards else _as_it_is(each) for each in found)))


async def _as_it_is(plugged: Plugged) -> Plugged:
    return plugged


async def _asked(plugged: Plugged) -> Plugged:
    rates = rates_of(boards.load(board) for board in plugged.boards)
    try:
        port = await asyncio.to_thread(open_port, plugged.port.name, rates[0])
    except LinkError as error:
        return Plugged(plugged.port, plugged.boards, None, str(error))
    session, said = Session(port), ""  # opened once: each time resets many a board
    try:
        for rate in rates:
            port.set_baud(rate)
            try:
                return Plugged(plugged.port, plugged.boards, await session.hello())
            except LinkError as error:
                said = str(error)
    finally:
        await session.close()
    return Plugged(plugged.port, plugged.boards, None, said)


def places(spec: NodeSpec, specs: Sequence[NodeSpec], plugged: Sequence[Plugged]) -> list[Plugged]:
    """Return where a node may be flashed: the port that answers as this very node, or else, the likeliest first, those
    that answer as its board and those that look like it. A port that answers as another node is that node's."""
    for each in plugged:
        if each.uid == node_uid(spec):
            return [each]
    others = {node_uid(other) for other in specs}
    free = [each for each in plugged if each.uid not in others]
    same = [each for each in free if each.hello and each.hello.board == spec.board]
    return same + [each for each in free if each.hello is None and spec.board in each.boards]


def assign(specs: Sequence[NodeSpec], plugged: Sequence[Plugged]) -> dict[str, Plugged | None]:
    """Return a port for each node, None where there is none left: whoever has been flashed keeps its board."""
    kept = {spec.name: next((each for each in plugged if each.uid == node_uid(spec)), None) for spec in specs}
    taken = [each for each in kept.values() if each]
    for spec in specs:
        if kept[spec.name] is None:
            free = [each for each in places(spec, specs, plugged) if each not in taken]
            kept[spec.name] = free[0] if free else None
            taken += free[:1]
    return kept


def offers(federation: Federation, missing: Sequence[NodeSpec], silent: Sequence[str]) -> dict[str, str]:
    """Return, for each silent port that a missing node's board may be behind, the command that flashes it."""
    commands, left = {}, list(missing)
    for port in (port for port in list_ports() if port.name in silent):
        spec = next((spec for spec in left if port.usb in boards.load(spec.board).training.usb), None)
        if spec is not None:
            left.remove(spec)
            commands[port.name] = flash_command(federation.path, spec.name, port.name)
    return commands
