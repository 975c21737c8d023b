"""What can befall a run: faults, drawn from a seed, each at one place that comes up in every run of the federation."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

from simulation.cable import Cable, Piece, Way

Unit = Literal["byte", "frame", "step", "disk"]
BYTES = ("flip", "drop", "double", "reorder", "insert")  # kinds that spoil bytes on the wire
CABLE = ("unplug", "silence", "reset", "hang")  # that befall a node or its cable, at a frame
DISK = ("kill", "full", "read-only")  # that befall the coordinator
KINDS = (*BYTES, *CABLE, "reset in a step", "hang in a step", *DISK)
FOR_EVER = 1e9  # seconds


@dataclass(frozen=True)
class Fault:
    """One fault. `at` counts from 1, in units: bytes that go one `way`, frames either way, samples trained, operations
    of the disk."""

    kind: str
    at: int
    node: int = 0
    way: Way = "down"
    share: float = 0.0  # of a frame that gets through, of a write that is kept
    size: int = 1  # bytes, disk operations
    seconds: float = 0.0

    @property
    def unit(self) -> Unit:
        """What `at` counts."""
        if self.kind in BYTES:
            return "byte"
        if self.kind in DISK:
            return "disk"
        return "step" if self.kind.endswith("step") else "frame"


@dataclass(frozen=True)
class Extent:
    """How much of everything there is in an undisturbed run, by node where that matters."""

    down: tuple[int, ...]  # bytes
    up: tuple[int, ...]  # bytes
    frames: tuple[int, ...]
    steps: tuple[int, ...]
    disk: int


def draw(seed: int, extent: Extent) -> tuple[Fault, ...]:
    """Return the faults of a seed: one to four of any kinds, at places that an undisturbed run passes."""
    source = random.Random(seed)
    return tuple(_draw_one(source, extent) for _ in range(source.choice((1, 1, 1, 2, 2, 3, 4))))


def _draw_one(source: random.Random, extent: Extent) -> Fault:
    kind = source.choice(KINDS)
    node = source.randrange(len(extent.frames))
    way: Way = source.choice(("down", "up"))
    units = {
        "byte": (extent.down if way == "down" else extent.up)[node],
        "frame": extent.frames[node],
        "step": extent.steps[node],
        "disk": extent.disk,
    }
    unit = Fault(kind, 0).unit
    return Fault(
        kind,
        source.randint(1, units[unit]),
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

    def __init__(self, cable: Cable, faults: list[Fault], on_fault: Callable[[Fault], None], seed: int) -> None:
        self.bytes: dict[Way, int] = {"down": 0, "up": 0}
        self.frames = 0
        self._cable = cable
        self._faults = faults
        self._on_fault = on_fault
        self._source = random.Random(seed)
        cable.mischief = self._pass
        cable.node.on_step = self._stepped

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
            self._befall(fault)

    def _befall(self, fault: Fault) -> None:
        cable = self._cable
        if fault.kind.startswith("reset"):
            cable.node.reset(fault.seconds)
        elif fault.kind.startswith("hang"):
            cable.node.hang(fault.seconds)
        elif fault.kind == "unplug":
            cable.pull()
            self._later(fault.seconds, cable.plug)
        else:
            cable.silent = True
            self._later(fault.seconds, cable.speak)

    def _later(self, seconds: float, act: Callable[[], None]) -> None:
        asyncio.get_running_loop().call_later(seconds, act)
