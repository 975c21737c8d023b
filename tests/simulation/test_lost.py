"""Nodes that are lost and found again: compiled nodes, a real coordinator, in virtual time."""

from __future__ import annotations

from pathlib import Path

import pytest

from coordinator.events import NodeBack, NodeLost
from simulation.faults import FOR_EVER, Fault
from simulation.world import World
from tests.simulation.watched import Watched, made

BLINK = 1.5  # seconds for which a cable is out
GREETED = 12  # frames after which the node has answered, at its fastest rate
MEGA, ESP, UNO = "megaatmega2560-1", "esp32dev-1", "uno_r4_minima-1"
ALL = ((MEGA, ESP, UNO),) * 2


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
        assert ending.state.content() == whole.content(), at


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
