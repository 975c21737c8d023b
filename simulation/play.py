"""One run in virtual time: real coordinators, one after the other, on compiled nodes, and what a plan of faults does to
them all."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from codegen.tiers import SubModel
from coordinator.aggregation import Weights
from coordinator.errors import exit_code, sentence
from coordinator.evaluation import Confusion
from coordinator.events import Event, RoundAggregated
from coordinator.journal import Journal, of_kind
from coordinator.runs import Part
from coordinator.state import State
from simulation.cable import Cable
from simulation.disk import NO_ROOM, READ_ONLY, Cut, Disk
from simulation.faults import Extent, Fault, Mischief

if TYPE_CHECKING:
    from simulation.world import World

LONGEST = 3600.0  # seconds of virtual time that one coordinator may take
KILLED = "killed"
PARTS = 8  # coordinators that a run may take

Show = Callable[[float, Event], None]  # the virtual time, and what happens


def ignore(_time: float, _event: Event) -> None:
    """Show nothing."""


class Violation(AssertionError):  # noqa: N818 - it says what was done to a promise
    """Something that must never happen did; the message says what."""


@dataclass
class Ending:
    """What became of a run."""

    state: State
    answered: tuple[tuple[str, ...], ...]  # by round; nobody where it was not aggregated
    parts: list[str]  # how each coordinator's part of it ended, a sentence; the last one completed it: ""
    injected: list[Fault]  # those whose place was passed
    events: list[Event]
    seconds: float  # of virtual time
    extent: Extent


class Play:
    """One run; `run` may be called once."""

    def __init__(self, world: World, faults: Sequence[Fault], folder: Path, seed: int, show: Show) -> None:
        """`folder` is empty; `seed` is that of bytes which faults make up."""
        self._world = world
        self._faults = faults
        self._folder = folder / "run"
        self._seed = seed
        self._injected: list[Fault] = []
        self._swallowed: list[BaseException] = []
        self._events: list[Event] = []
        self._show = show
        self._cables = {f"sim{at}": Cable(f"sim{at}", node) for at, node in enumerate(world.nodes(folder))}
        self._cuts = {_cut(fault): fault for fault in faults if fault.unit == "disk"}
        self._disk = Disk(self._folder, list(self._cuts), self._killed)

    async def run(self) -> Ending:
        """Hold the run. Raises Violation."""
        self._loop = asyncio.get_running_loop()
        self._loop.set_exception_handler(self._unheard)
        mischiefs = []
        cables = list(self._cables.values())
        nodes = [cable.node for cable in cables]
        for at, cable in enumerate(cables):
            mine = [fault for fault in self._faults if fault.unit != "disk" and fault.node == at]
            other = cables[(at + 1) % len(cables)]
            mischiefs.append(Mischief(cable, other, mine, self._injected.append, self._seed))
            cable.node.start()
        parts: list[str] = []
        try:
            with self._disk.mounted():
                while not parts or parts[-1]:
                    if len(parts) == PARTS:
                        raise Violation(f"no end after {PARTS} coordinators: {parts}")
                    parts.append(await self._part())
        finally:
            for node in nodes:
                node.stop()
        self._injected += [fault for cut, fault in self._cuts.items() if cut.happened]
        extent = Extent(
            tuple(mischief.bytes["down"] for mischief in mischiefs),
            tuple(mischief.bytes["up"] for mischief in mischiefs),
            tuple(mischief.frames for mischief in mischiefs),
            tuple(node.steps for node in nodes),
            tuple(at for at, node in enumerate(nodes) if node.plan.kernel == "f32"),
            self._disk.operations,
        )
        return self._ending(parts, extent)

    async def _part(self) -> str:
        """Run one coordinator to its end; return how it ended, "" if it completed the run."""
        self._disk.restart()
        self._dead = self._loop.create_future()
        task = asyncio.create_task(self._coordinate())
        await asyncio.wait((task, self._dead), timeout=LONGEST, return_when=asyncio.FIRST_COMPLETED)
        if not task.done() and not self._dead.done():
            raise Violation(f"the coordinator still runs after {LONGEST:g} s")
        if self._dead.done():
            await self._bury(task)
            return KILLED
        error = task.exception()
        if self._swallowed:
            raise Violation(f"an error that nobody is told: {self._swallowed[0]!r}") from self._swallowed[0]
        if error is None:
            return ""
        if exit_code(error) is None:
            raise Violation(f"an error that is no user's: {error!r}") from error
        for cable in self._cables.values():
            cable.repair()
        return sentence(error)

    async def _coordinate(self) -> None:
        inputs = self._world.inputs
        with Journal(self._folder, resume=True) as journal:
            part = Part(inputs, journal, {"test": _judge}, self._observe)
            state = await part.train(list(self._cables), open_port=lambda name, baud: self._cables[name].open(baud))
            part.end(state.result)
            self._state, self._lines = state, list(journal.lines)

    def _observe(self, event: Event) -> None:
        if not self._dead.done():
            self._events.append(event)
            self._show(self._loop.time(), event)

    def _killed(self) -> None:
        self._dead.set_result(None)
        for cable in self._cables.values():
            cable.abandon()

    def _unheard(self, _loop: object, context: dict[str, Any]) -> None:
        """An exception ended in the event loop: a user would see a traceback."""
        error = context.get("exception")
        if error is not None and not self._dead.done():
            self._swallowed.append(error)

    async def _bury(self, task: asyncio.Task[None]) -> None:
        """End what is left of a coordinator that was killed: the disk and the cables no longer hear it."""
        mine = asyncio.all_tasks() - {asyncio.current_task()} | {task}
        for task in mine:
            task.cancel()
        await asyncio.gather(*mine, return_exceptions=True)

    def _ending(self, parts: list[str], extent: Extent) -> Ending:
        rounds = {line["round"]: line for line in of_kind(self._lines, RoundAggregated)}
        answered = tuple(
            tuple(rounds[number]["answered"]) if rounds[number]["aggregated"] else () for number in sorted(rounds)
        )
        return Ending(self._state, answered, parts, self._injected, self._events, self._loop.time(), extent)


def _judge(cuts: Sequence[SubModel], _weights: Weights) -> dict[str, Confusion]:
    """Stand in for Keras, which a simulation has no time for."""
    return {cut.tier.name: np.ones((2, 2), np.int64) for cut in cuts}


def _cut(fault: Fault) -> Cut:
    error = {"full": NO_ROOM, "read-only": READ_ONLY}.get(fault.kind, 0)
    return Cut(fault.at, fault.share, error, fault.kind == "power cut", fault.size)
