"""A run that distils and rehearses, killed and resumed: all that its rounds begin with is in the checkpoints."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from simulation.faults import Fault
from simulation.judge import COMPLETED, RESUMED, judge
from simulation.world import World

pytestmark = pytest.mark.e2e

SETTINGS = """
name = "distilled"
[model]
path = "model.py"
[tiers]
wide = 1.0
half = 0.5
[data]
path = "data.npz"
samples_per_node = 8
split = "shards"
[training]
rounds = 3
batch = 4
[proxy]
images = 24
epochs = 2
[aggregation]
server = "adam"
average = 0.5
[[nodes]]
board = "esp32dev"
count = 2
"""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    yield World(tmp_path_factory.mktemp("distilled"), SETTINGS)


def test_a_run_that_distils_is_completed(world: World, tmp_path: Path) -> None:
    ending = world.play((), tmp_path)
    assert judge(world, ending, tmp_path) == COMPLETED
    state = ending.state
    assert state.targets is not None and len(state.server) == 2 and state.average is not None


def test_a_run_that_distils_is_resumed_to_the_bit(world: World, tmp_path: Path) -> None:
    for at in range(3, world.extent.disk, 5):
        folder = tmp_path / str(at)
        folder.mkdir()
        assert judge(world, world.play([Fault("kill", at, share=0.5)], folder), folder) == RESUMED, at
