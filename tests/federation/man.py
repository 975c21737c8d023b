"""A man in the middle: on every cable between a coordinator and its nodes he reads whole frames, and puts what he likes
on the wire, with CRCs that hold."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from codegen.protocol import BY_TYPE, Message, Setup
from coordinator.events import Event, NodeFailed, NodeRefused
from coordinator.link.errors import LinkError
from coordinator.link.frames import Decoder, Frame, encode
from coordinator.roster import assemble
from coordinator.rounds import run_round
from coordinator.runs import round_settings
from coordinator.state import State
from simulation.cable import Cable, Piece, Way
from simulation.clock import run_virtually
from simulation.node import SimulatedNode
from simulation.world import World

T = TypeVar("T")
Attack = Callable[["Man", str, Way, Frame], Iterable[Frame]]  # a frame of a node: what goes on instead of it


class Man:
    """Does to all frames what `attack` says, and remembers what he saw."""

    def __init__(self, cables: dict[str, Cable], attack: Attack) -> None:
        self.acts = 0  # frames that he changed, withheld or made up
        self.seen: list[tuple[str, Way, Frame]] = []
        self._cables = cables
        self._attack = attack
        for name, cable in cables.items():
            cable.mischief = _Tap(self, name)

    def pass_on(self, node: str, way: Way, frame: Frame) -> bytes:
        """Return what goes on instead of a frame."""
        self.seen.append((node, way, frame))
        sent = list(self._attack(self, node, way, frame))
        self.acts += sent != [frame]
        return b"".join(b"\0" + encode(*each) for each in sent)

    def tell_node(self, node: str, *frames: Frame) -> None:
        """Send a node something of his own."""
        self._soon(self._cables[node].node.hear, frames)

    def tell_host(self, node: str, *frames: Frame) -> None:
        """Send the coordinator something of his own, in the name of a node."""
        self._soon(self._cables[node].say, frames)

    def _soon(self, hear: Callable[[bytes], None], frames: Iterable[Frame]) -> None:
        for frame in frames:
            self.acts += 1
            asyncio.get_running_loop().call_soon(hear, b"\0" + encode(*frame))

    def later(self, seconds: float, act: Callable[[], None]) -> None:
        """Do something in a while."""
        asyncio.get_running_loop().call_later(seconds, act)

    def round(self, node: str) -> int:
        """Return the round that a node was told to begin last; 0: none."""
        return max((read(frame).round for frame in self.passed(node, "down", Setup)), default=0)

    def answers(self, node: str, request: Frame) -> list[Frame]:
        """Return what a node answered to the first request of this kind."""
        mine = [(way, frame) for who, way, frame in self.seen if who == node]
        asked = next(frame for way, frame in mine if way == "down" and frame.type == request.type)
        return [frame for way, frame in mine if way == "up" and frame.transfer == asked.transfer][:1]

    def passed(self, node: str, way: Way, message: type[Message]) -> list[Frame]:
        """Return the frames of one kind that he saw."""
        return [frame for who, where, frame in self.seen if (who, where, frame.type) == (node, way, message.type)]


class _Tap:
    """One cable's mischief."""

    def __init__(self, man: Man, node: str) -> None:
        self._man, self._node = man, node
        self._decoders: dict[Way, Decoder] = {"down": Decoder(), "up": Decoder()}

    def __call__(self, way: Way, data: bytes) -> list[Piece]:
        frames = self._decoders[way].feed(data)
        return [(b"".join(self._man.pass_on(self._node, way, frame) for frame in frames), None)]


def read(frame: Frame) -> Any:
    """Return the message in a frame."""
    return BY_TYPE[frame.type].decode(frame.payload)


def changed(frame: Frame, **fields: object) -> Frame:
    """Return a frame with other values in its message."""
    return frame._replace(payload=replace(read(frame), **fields).encode())


def made(message: Message, transfer: int = 0, chunk: int = 0) -> Frame:
    """Return a frame of his own."""
    return Frame(message.type, transfer, chunk, message.encode())


def other_crc(crc: int, change: bytes) -> int:
    """Return the CRC-32 of a blob after these bits of it have been flipped; CRCs are linear."""
    return crc ^ zlib.crc32(change) ^ zlib.crc32(bytes(len(change)))


@dataclass
class Outcome:
    """What became of a run under attack."""

    state: State
    answered: tuple[tuple[str, ...], ...]  # by round
    failures: dict[tuple[str, int], str]  # by node and round: why it gave nothing
    refused: dict[str, str]  # by node: why it took no part


async def hold(
    world: World,
    nodes: Sequence[SimulatedNode],
    attack: Attack,
    state: State | None = None,
    rounds: int | None = None,
    asked: Sequence[str] = (),
) -> tuple[Outcome, Man]:
    """Hold a run on nodes that have power, with him on the cables. state: to begin with; asked: if not all nodes."""
    cables = {node.name: Cable(node.name, node) for node in nodes}
    man, events = Man(cables, attack), list[Event]()
    state = state or State(world.inputs.weights)
    answered: list[tuple[str, ...]] = []
    try:
        roster = await assemble(
            world.federation, world.inputs.plans, list(cables), events.append,
            open_port=lambda name, baud: cables[name].open(baud),
        )  # fmt: skip
    except LinkError as error:
        return Outcome(state, (), {}, {name: str(error) for name in cables}), man
    refused = {name: str(error) for name, error in roster.refused.items()}
    settings = replace(round_settings(world.federation), plausible=False)  # what is implausible would be refused anyway
    wanted = [node for node in roster.nodes if not asked or node.name in asked]
    for number in range(1, (rounds or world.federation.training.rounds) + 1):
        outcome = await run_round(number, world.inputs.graph, state, wanted, settings, events.append)
        state = outcome.state
        answered.append(outcome.answered if outcome.aggregated else ())
    await roster.close()
    failures = {(each.node, each.round): each.reason for each in events if isinstance(each, NodeFailed | NodeRefused)}
    return Outcome(state, tuple(answered), failures, refused), man


def powered(world: World, folder: Path, play: Callable[[list[SimulatedNode]], Awaitable[T]]) -> T:
    """Run `play` in virtual time on nodes fresh from power-on."""

    async def run() -> T:
        nodes = world.nodes(folder)
        for node in nodes:
            node.start()
        try:
            return await play(nodes)
        finally:
            for node in nodes:
                node.stop()

    return run_virtually(run)


def attacked(world: World, folder: Path, attack: Attack) -> tuple[Outcome, Man]:
    """Hold a run with him on the cables."""
    return powered(world, folder, lambda nodes: hold(world, nodes, attack))
