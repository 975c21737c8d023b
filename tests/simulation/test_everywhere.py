"""One fault at every place there is in a run: no frame, step or write may be the wrong one."""

from collections import Counter
from pathlib import Path

import pytest

from simulation.faults import Fault
from simulation.judge import judge
from simulation.world import World

pytestmark = pytest.mark.e2e

NODES = range(3)  # an AVR in fixed point; float boards that change their rate, and that do not


def endings(small: World, folder: Path, faults: list[Fault]) -> Counter[str]:
    """Hold a run with each fault alone; return what they ended in, and how often."""
    found = Counter[str]()
    for number, fault in enumerate(faults):
        place = folder / str(number)
        place.mkdir()
        try:
            ending = small.play([fault], place, number)
            assert ending.injected == [fault]
            found[judge(small, ending, place)] += 1
        except BaseException as error:
            error.add_note(str(fault))
            raise
    return found


@pytest.mark.parametrize("node", NODES)
def test_the_cable_out_and_in_at_every_frame(small: World, tmp_path: Path, node: int) -> None:
    places = range(1, small.extent.frames[node] + 1)
    endings(small, tmp_path, [Fault("unplug", at, node, share=at % 3 / 2, seconds=0.3) for at in places])


@pytest.mark.parametrize("node", NODES)
def test_a_reset_at_every_frame(small: World, tmp_path: Path, node: int) -> None:
    places = range(1, small.extent.frames[node] + 1)
    endings(small, tmp_path, [Fault("reset", at, node, share=at % 3 / 2, seconds=0.1) for at in places])


@pytest.mark.parametrize("node", NODES)
def test_a_reset_at_every_step(small: World, tmp_path: Path, node: int) -> None:
    places = range(1, small.extent.steps[node] + 1)
    endings(small, tmp_path, [Fault("reset in a step", at, node, seconds=0.1) for at in places])


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_a_kill_at_every_write(small: World, tmp_path: Path, share: float) -> None:
    faults = [Fault("kill", at, share=share) for at in range(1, small.extent.disk + 1)]
    assert endings(small, tmp_path, faults) == {"killed, resumed to the bit": small.extent.disk}
