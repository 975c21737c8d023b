"""Nodes that are lost and found again: compiled nodes, a real coordinator, in virtual time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from coordinator.events import Event, NodeBack, NodeLost
from coordinator.journal import weights_sha256
from simulation.clock import run_virtually
from simulation.faults import FOR_EVER, Fault
from simulation.play import Ending, Play
from simulation.world import World

BLINK = 1.5  # seconds for which a cable is out
GREETED = 12  # frames after which the node has answered, at its fastest rate
MEGA, ESP, UNO = "megaatmega2560-1", "esp32dev-1", "uno_r4_minima-1"
ALL = ((MEGA, ESP, UNO),) * 2


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

    def hold(self) -> Ending:
        return run_virtually(self.run)

    def later(self, seconds: float, act: Callable[[], None]) -> None:
        self._loop.call_later(seconds, act)


@pytest.mark.parametrize(
    ("kind", "stride", "resumed"), [("unplug", 5, True), ("silence", 4, True), ("reset", 5, False), ("hang", 6, True)]
)
def test_at_every_frame_the_node_comes_back(
    small: World, tmp_path: Path, kind: str, stride: int, resumed: bool
) -> None:
    """Whoever resumes trains nothing twice; who was reset trains once more; the weights are the same to the bit."""
    whole = small.reference(ALL, tmp_path)
    steps = small.extent.steps[1]
    for at in range(GREETED, small.extent.frames[1] + 1, stride):
        ending = small.play((Fault(kind, at, 1, share=0.5, seconds=BLINK),), made(tmp_path / str(at)))
        told = [event for event in ending.events if isinstance(event, NodeLost | NodeBack)]
        assert ending.answered == ALL, at
        assert all(event.resumed == resumed for event in told if isinstance(event, NodeBack)), at
        assert [type(event) for event in told] in ([], [NodeLost], [NodeLost, NodeBack]), at
        assert ending.extent.steps[1] == steps if resumed else ending.extent.steps[1] <= steps + steps // 2, at
        assert weights_sha256(ending.weights) == weights_sha256(whole), at


@pytest.mark.parametrize("kind", ["unplug", "silence"])
def test_a_cut_wire_is_known_within_a_second(small: World, tmp_path: Path, kind: str) -> None:
    """While the node owes something: in its own part of a round, which a cable that is out for good ends."""
    for at in range(GREETED, small.extent.frames[1] // 2, 3):
        play = Watched(small, made(tmp_path / str(at)), Fault(kind, at, 1, share=0.5, seconds=FOR_EVER))
        ending = play.hold()
        (cut,) = play.cuts
        lost = next(time for time, event in play.times if isinstance(event, NodeLost))
        assert lost - cut <= 1.0, at
        assert [len(names) for names in ending.answered] == [2, 2]
