"""Where samples come from changes nothing of what is learnt: the same shares, from flash, a stream and a sensor."""

import asyncio
import re
from pathlib import Path

import pytest

from coordinator import emulation, runs
from coordinator.emulation import Twins
from coordinator.errors import FirmwareMismatch
from coordinator.events import Event, NodeAnswered, NodeConnected
from coordinator.federation import Federation
from coordinator.results import Summary
from tests.federation.world import World

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def programs(world: World) -> dict[str, Path]:
    """The twins of a federation with all three sources."""
    return emulation.build(world.describe(nodes="sources"), world.folder / "pio-sources")


def play(described: Federation, programs: dict[str, Path], folder: Path) -> tuple[Summary, list[Event]]:
    """Run a federation on twins."""
    events: list[Event] = []

    async def main() -> Summary:
        async with Twins(described, programs, folder / "shards") as twins:
            return await runs.run(described, twins.ports, folder, observer=events.append)

    return asyncio.run(main()), events


def test_three_sources_learn_what_flash_alone_learns(world: World, programs: dict[str, Path], tmp_path: Path) -> None:
    mixed, events = play(world.describe(nodes="sources"), programs, tmp_path / "sources")
    flash, _ = play(world.describe(nodes="flash"), world.programs, tmp_path / "flash")
    assert mixed.weights_sha256 == flash.weights_sha256
    assert mixed.rounds_aggregated == 2
    assert [event.samples for event in events if isinstance(event, NodeConnected)] == [60] * 3
    assert len([event for event in events if isinstance(event, NodeAnswered)]) == 6


def test_a_twin_with_another_source_is_refused(world: World, tmp_path: Path, programs: dict[str, Path]) -> None:
    wrong = programs | {"esp32dev": world.programs["esp32dev"]}
    sentence = "was built for samples from flash, the federation file says stream; rebuild it: `TIERFED_FEDERATION="
    with pytest.raises(FirmwareMismatch, match=re.escape(sentence)):
        play(world.describe(nodes="sources"), wrong, tmp_path)
