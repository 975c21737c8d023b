"""One fault at every place there is in a run: no frame, step or write may be the wrong one."""

from pathlib import Path

import pytest

from coordinator.events import NodeMissing
from simulation.faults import Fault
from simulation.judge import COMPLETED, LOST, RESUMED, judge
from simulation.play import Ending
from simulation.world import World

pytestmark = pytest.mark.e2e

NODES = range(3)  # an AVR in fixed point; float boards that change their rate, and that do not


def hold(small: World, folder: Path, fault: Fault) -> tuple[Ending, str]:
    """Hold a run with one fault alone; return its end, judged."""
    place = folder / str(fault.at)
    place.mkdir()
    try:
        ending = small.play([fault], place)
        assert ending.injected == [fault]
        return ending, judge(small, ending, place)
    except BaseException as error:
        error.add_note(str(fault))
        raise


def frames(small: World, kind: str, node: int, seconds: float) -> list[Fault]:
    """Return that kind of fault at every frame, at its begin, in its middle, at its end."""
    return [Fault(kind, at, node, share=at % 3 / 2, seconds=seconds) for at in range(1, small.extent.frames[node] + 1)]


@pytest.mark.parametrize("node", NODES)
def test_the_cable_out_and_in_at_every_frame(small: World, tmp_path: Path, node: int) -> None:
    """Within a round nothing is lost; a node that cannot be greeted at the start is missed in words."""
    for fault in frames(small, "unplug", node, 0.3):
        ending, outcome = hold(small, tmp_path, fault)
        missing = any(isinstance(event, NodeMissing) for event in ending.events)
        assert outcome == (LOST if missing else COMPLETED), (fault, ending)


@pytest.mark.parametrize("node", NODES)
def test_a_reset_at_every_frame(small: World, tmp_path: Path, node: int) -> None:
    for fault in frames(small, "reset", node, 0.1):
        assert hold(small, tmp_path, fault)[1] == COMPLETED, fault


@pytest.mark.parametrize("node", NODES)
def test_a_reset_at_every_step(small: World, tmp_path: Path, node: int) -> None:
    for at in range(1, small.extent.steps[node] + 1):
        assert hold(small, tmp_path, Fault("reset in a step", at, node, seconds=0.1))[1] == COMPLETED, at


@pytest.mark.parametrize(("kind", "share"), [("kill", 0.5), ("power cut", 0.0), ("power cut", 0.5)])
def test_the_end_of_a_coordinator_at_every_write(small: World, tmp_path: Path, kind: str, share: float) -> None:
    for at in range(1, small.extent.disk + 1):
        assert hold(small, tmp_path, Fault(kind, at, share=share))[1] == RESUMED, at
