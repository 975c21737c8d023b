"""What can befall a run: faults, drawn from a seed, each at one place that comes up in every run of the federation."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

from simulation.cable import Cable, Piece, Way
from simulation.hostile import COUNTS, FLIPPED, IDENTITIES, SCALES, TWIN, Liar
from simulation.node import BOOT_TEXT

Unit = Literal["byte", "frame", "step", "disk", "round", "start"]
BYTES = ("flip", "drop", "double", "reorder", "insert")  # kinds that spoil bytes on the wire
DISK = ("kill", "power cut", "full", "read-only")  # that befall the coordinator
LIES = (*SCALES, *COUNTS)  # of a node that is hostile from a round on
START = (*IDENTITIES, TWIN, "busy port")  # that are there from the start
KINDS: dict[str, Unit] = {
    **dict.fromkeys(BYTES, "byte"),
    "unplug": "frame",
    "power": "frame",  # the cable out, and the board without power
    "swapped cables": "frame",
    "silence": "frame",  # all bytes vanish
    "garbage": "frame",
    "reset": "frame",
    "reset in a step": "step",
    "hang": "frame",
    "hang in a step": "step",
    "straggler": "step",
    **dict.fromkeys(LIES, "round"),
    **dict.fromkeys(START, "start"),
    **dict.fromkeys(DISK, "disk"),
}
DRAWN = tuple(kind for kind in KINDS if kind != FLIPPED)  # three nodes are too few to tell whose sign is wrong
FOR_EVER = 1e9  # seconds


@dataclass(frozen=True)
class Fault:
    """One fault. `at` counts from 1, in units: bytes that go one `way`, frames either way, samples trained, rounds,
    operations of the disk."""

    kind: str
    at: int = 1
    node: int = 0
    way: Way = "down"
    share: float = 0.0  # of a frame that gets through, of a write that is kept
    size: int = 1  # bytes, disk operations
    seconds: float = 0.0

    @property
    def unit(self) -> Unit:
        """What `at` counts."""
        return KINDS[self.kind]


@dataclass(frozen=True)
class Extent:
    """How much of everything there is in an undisturbed run, by node where that matters."""

    down: tuple[int, ...]  # bytes
    up: tuple[int, ...]  # bytes
    frames: tuple[int, ...]
    steps: tuple[int, ...]
    floats: tuple[int, ...]  # the nodes that train in float32
    disk: int


def draw(seed: int, extent: Extent) -> tuple[Fault, ...]:
    """Return the faults of a seed: one to four of any kinds, at places that an undisturbed run passes."""
    source = random.Random(seed)
    return tuple(_draw_one(source, extent) for _ in range(source.choice((1, 1, 1, 2, 2, 3, 4))))


def _draw_one(source: random.Random, extent: Extent) -> Fault:
    kind = source.choice(DRAWN)
    node = source.choice(extent.floats if kind in SCALES else range(len(extent.frames)))
    way: Way = source.choice(("down", "up"))
    places: dict[Unit, int] = {
        "byte": (extent.down if way == "down" else extent.up)[node],
        "frame": extent.frames[node],
        "step": extent.steps[node],
        "disk": extent.disk,
        "round": 2,
        "start": 1,
    }
    return Fault(
        kind,
        source.randint(1, places[KINDS[kind]]),
        node,
        way,
        source.random(),
        source.choice((1, 1, 2, 4, 30)),
        source.choice((0.01, 0.3, 1.5, 5.0, 20.0, FOR_EVER)),
    )


def spoil(fault: Fault, data: bytes, at: int, source: random.Random) -> bytes:
    """Return bytes with a fault of the wire at index `at`."""
    before, hit, after = data[:at], data[at : at + fault.size], data[at + fault.size :]
    if fault.kind == "flip":
        return before + bytes(byte ^ 1 << source.randrange(8) for byte in hit) + after
    if fault.kind == "drop":
        return before + after
    if fault.kind == "double":
        return before + hit + hit + after
    if fault.kind == "insert":
        return before + source.randbytes(fault.size) + hit + after
    return before + after[: fault.size] + hit + after[fault.size :]


class Mischief:
    """Does to one cable and its node what the faults say, and counts what passes."""

    def __init__(
        self, cable: Cable, other: Cable, faults: list[Fault], on_fault: Callable[[Fault], None], seed: int
    ) -> None:
        """`other`: the cable that it may be swapped with, and whose node's id is taken."""
        self.bytes: dict[Way, int] = {"down": 0, "up": 0}
        self.frames = 0
        self._cable = cable
        self._other = other
        self._node = cable.node
        self._faults = faults
        self._on_fault = on_fault
        self._source = random.Random(seed)
        cable.mischief = self._pass
        cable.node.on_step = self._stepped
        for fault in [fault for fault in faults if fault.unit in ("round", "start")]:
            self._begin(fault)

    def _begin(self, fault: Fault) -> None:
        """What is there from the start, even if it shows later."""
        if fault.kind == "busy port":
            self._on_fault(fault)
            self._cable.busy_until = fault.seconds
            return
        told = list[Fault]()

        def on_lie() -> None:
            if not told:
                told.append(fault)
                self._on_fault(fault)

        self._node.forge = Liar(fault.kind, fault.at, self._node.update, bytes.fromhex(self._other.node.uid), on_lie)

    def _due(self, unit: Unit, first: int, last: int, way: Way = "down") -> list[Fault]:
        """Take out and return the faults whose place is among these."""
        due = [
            fault
            for fault in self._faults
            if fault.unit == unit and first <= fault.at <= last and (unit != "byte" or fault.way == way)
        ]
        for fault in due:
            self._faults.remove(fault)
            self._on_fault(fault)
        return due

    def _pass(self, way: Way, data: bytes) -> list[Piece]:
        first, before = self.bytes[way], self.frames
        self.bytes[way] += len(data)
        ends = [0, *(at + 1 for at in range(1, len(data)) if data[at] == 0 and data[at - 1] != 0)]
        self.frames += len(ends) - 1
        cuts = []
        for fault in self._due("frame", before + 1, self.frames):
            begin, end = ends[fault.at - before - 1], ends[fault.at - before]
            cuts.append((begin + round(fault.share * (end - begin)), fault))
        pieces, done = list[Piece](), 0
        for at, fault in sorted(cuts, key=lambda cut: cut[0]):
            pieces.append((data[done:at], partial(self._befall, fault)))
            done = at
        rest = data[done:]
        for fault in self._due("byte", first + 1, first + len(data), way):
            rest = spoil(fault, rest, max(fault.at - first - 1 - done, 0), self._source)
        return [*pieces, (rest, None)]

    def _stepped(self, steps: int) -> None:
        for fault in self._due("step", steps, steps):
            if fault.kind == "straggler":
                self._node.slowness = fault.seconds / self._node.plan.step_seconds
            elif fault.kind == "hang in a step":
                self._node.hang(fault.seconds)
            else:
                self._node.reset(fault.seconds)

    def _befall(self, fault: Fault) -> None:
        cable, other = self._cable, self._other
        if fault.kind == "reset":
            cable.node.reset(fault.seconds)
        elif fault.kind == "hang":
            cable.node.hang(fault.seconds)
        elif fault.kind == "garbage":
            cable.babble(BOOT_TEXT + self._source.randbytes(100 * fault.size))
        elif fault.kind == "silence":
            cable.silent = True
            self._later(fault.seconds, cable.speak)
        else:
            cable.pull()
            self._later(fault.seconds, cable.plug)
        if fault.kind == "power":
            cable.node.reset(fault.seconds)
        elif fault.kind == "swapped cables":
            other.pull()
            cable.swap(other)
            self._later(fault.seconds, other.plug)

    def _later(self, seconds: float, act: Callable[[], None]) -> None:
        asyncio.get_running_loop().call_later(seconds, act)
