"""A simulated run that a test takes part in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from coordinator.events import Event, NodeProgress
from simulation.clock import run_virtually
from simulation.faults import Fault
from simulation.play import Ending, Play
from simulation.world import World


def made(folder: Path) -> Path:
    folder.mkdir()
    return folder


class Told(list[Fault]):
    """A list that tells when something is appended."""

    def __init__(self, tell: Callable[[], None]) -> None:
        super().__init__()
        self._tell = tell

    def append(self, fault: Fault) -> None:
        super().append(fault)
        self._tell()


class Watched(Play):
    """A run in which something else happens when an event comes; it knows when everything was."""

    def __init__(self, world: World, folder: Path, *faults: Fault) -> None:
        super().__init__(world, faults, folder, 1, self._told)
        self.cables = self._cables
        self.act: Callable[[Event], None] = lambda _: None
        self.times: list[tuple[float, Event]] = []
        self.cuts: list[float] = []  # when each fault happened
        self._injected = Told(lambda: self.cuts.append(self._loop.time()))

    def _told(self, time: float, event: Event) -> None:
        self.times.append((time, event))
        self.act(event)

    def when_training(self, node: str, act: Callable[[], None]) -> None:
        """Do something once, when a node has begun to train."""

        def once(event: Event) -> None:
            if isinstance(event, NodeProgress) and (event.node, event.stage) == (node, "training"):
                self.act = lambda _: None
                act()

        self.act = once

    def hold(self) -> Ending:
        return run_virtually(self.run)

    def later(self, seconds: float, act: Callable[[], None]) -> None:
        self._loop.call_later(seconds, act)
