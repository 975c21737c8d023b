"""Nodes that die, hang, or come back."""

import asyncio
import re
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from coordinator import runs
from coordinator.emulation import Twins
from coordinator.errors import RunFailed
from coordinator.events import Event, NodeAnswered, NodeBack, NodeFailed, NodeLost, NodeMissing, Observer
from coordinator.results import load
from coordinator.roster import named_uid
from tests.federation.support import Once, Wire, free_port, killer, rounds, twin_on_tcp
from tests.federation.world import World

pytestmark = pytest.mark.e2e


def test_a_twin_killed_while_it_trains(world: World, tmp_path: Path) -> None:
    summary, events = world.run(tmp_path, lambda twins: killer(twins, "esp32dev-2", 2), rounds=3)
    answered = rounds(events)
    assert len(answered[0]) == 4
    assert answered[1] == answered[2] == ("megaatmega2560-1", "esp32dev-1", "uno_r4_minima-1")
    failed = [(event.round, event.node) for event in events if isinstance(event, NodeFailed)]
    assert failed == [(2, "esp32dev-2"), (3, "esp32dev-2")]
    assert all(re.search(r"/dev/pts/\d+", event.reason) for event in events if isinstance(event, NodeFailed))
    assert [node.rounds_answered for node in summary.nodes] == [3, 3, 1, 3]


def test_a_twin_that_hangs_is_given_up_and_taken_back(world: World, tmp_path: Path) -> None:
    def hang(twins: Twins) -> Observer:
        process = next(twin.process for twin in twins.twins if twin.name == "esp32dev-1")
        once = Once("esp32dev-1", 1, lambda: process.send_signal(signal.SIGSTOP))

        def observe(event: Event) -> None:
            once(event)
            if isinstance(event, NodeFailed):
                process.send_signal(signal.SIGCONT)

        return observe

    _, events = world.run(tmp_path, hang, rounds=3)
    (failed,) = [event for event in events if isinstance(event, NodeFailed)]
    assert (failed.node, failed.round) == ("esp32dev-1", 1) and "nothing has come for " in failed.reason
    (back,) = [event for event in events if isinstance(event, NodeBack)]
    assert (back.node, back.round) == ("esp32dev-1", 2)
    assert ["esp32dev-1" in answered for answered in rounds(events)] == [False, True, True]


def test_a_twin_that_was_only_slow_costs_nothing(world: World, tmp_path: Path) -> None:
    whole, _ = world.run(tmp_path / "whole")

    def pause(twins: Twins) -> Observer:
        process = next(twin.process for twin in twins.twins if twin.name == "esp32dev-1")
        once = Once("esp32dev-1", 1, lambda: process.send_signal(signal.SIGSTOP))

        def observe(event: Event) -> None:
            once(event)
            if isinstance(event, NodeLost):
                process.send_signal(signal.SIGCONT)

        return observe

    summary, events = world.run(tmp_path / "paused", pause)
    told = [type(event) for event in events if isinstance(event, NodeLost | NodeBack | NodeFailed)]
    assert told == [NodeLost, NodeBack]
    assert summary.weights_sha256 == whole.weights_sha256


def test_training_that_diverges_is_said(world: World, tmp_path: Path) -> None:
    events: list[Event] = []
    with pytest.raises(RunFailed):
        world.run(tmp_path, lambda _: events.append, rate=1e9, rounds=1)
    reasons = {event.node: event.reason for event in events if isinstance(event, NodeFailed)}
    assert set(reasons) == {"esp32dev-1", "esp32dev-2", "uno_r4_minima-1"}
    assert all("became NaN or infinite" in reason and "learning rate" in reason for reason in reasons.values())
    (held,) = [event for event in events if isinstance(event, NodeAnswered)]
    assert held.node == "megaatmega2560-1" and held.saturated > 0  # fixed point knows no infinity


def test_what_diverges_is_named_and_leaves_no_trace(world: World, tmp_path: Path) -> None:
    """At this rate only the smallest board stays finite, for it trains in fixed point."""
    import keras

    changes: dict[str, Any] = {"rate": 4, "rounds": 1, "min_nodes": 1}
    _, events = world.run(tmp_path, **changes)
    assert rounds(events) == [("megaatmega2560-1",)]
    failed = [event for event in events if isinstance(event, NodeFailed)]
    assert {event.node for event in failed} == {"esp32dev-1", "esp32dev-2", "uno_r4_minima-1"}
    for event in failed:
        sample = re.search(r"became NaN or infinite at sample (\d+); lower the learning rate$", event.reason)
        assert sample and int(sample[1]) < 60
    before = load(world.describe(**changes)).weights
    after = keras.models.load_model(tmp_path / "global.keras").get_weights()
    assert all(np.isfinite(tensor).all() for tensor in after)
    for kernel, held in ((0, 2), (2, 32)):  # past the channels that the smallest board has, nobody taught
        np.testing.assert_array_equal(after[kernel][..., held:], before[kernel][..., held:])
        assert (after[kernel][..., :held] != before[kernel][..., :held]).any()


def test_a_run_that_can_have_no_round_does_not_begin(world: World, tmp_path: Path) -> None:
    async def play() -> None:
        described = world.describe()
        async with Twins(described, world.programs, tmp_path / "shards") as twins:
            await runs.run(described, twins.ports[:1], tmp_path)

    with pytest.raises(RunFailed, match=r"1 of 4 nodes are there and a round needs 2 .*esp32dev-1, esp32dev-2, uno_r4"):
        asyncio.run(play())
    assert (tmp_path / "journal.jsonl").read_text() == ""


def test_the_run_goes_on_without_a_node_that_is_not_there(world: World, tmp_path: Path) -> None:
    events: list[Event] = []

    async def play() -> None:
        described = world.describe()
        async with Twins(described, world.programs, tmp_path / "shards") as twins:
            await runs.run(described, twins.ports[1:], tmp_path, observer=events.append)

    asyncio.run(play())
    assert [event.node for event in events if isinstance(event, NodeMissing)] == ["megaatmega2560-1"]
    assert rounds(events) == [("esp32dev-1", "esp32dev-2", "uno_r4_minima-1")] * 2


def test_a_board_reset_while_it_trains_is_sent_everything_again(world: World, tmp_path: Path) -> None:
    described, events = world.describe(rounds=2), list[Event]()
    whole, _ = world.run(tmp_path / "whole", rounds=2)

    async def play() -> str:
        async with Twins(described, world.programs, tmp_path / "shards") as twins:
            uid, first, second = named_uid("esp32dev-2"), free_port(), free_port()
            shard, wire = tmp_path / "shards" / "esp32dev-2.tfs", Wire(free_port())
            async with (
                twin_on_tcp(world, shard, first, uid) as dying,
                twin_on_tcp(world, shard, second, uid),
                await asyncio.start_server(wire.serve, "127.0.0.1", wire.port),
            ):
                await wire.plug(first)
                tasks: list[asyncio.Task[None]] = []

                def reset() -> None:
                    dying.kill()
                    tasks.append(asyncio.create_task(wire.plug(second)))

                once = Once("esp32dev-2", 1, reset)

                def observe(event: Event) -> None:
                    events.append(event)
                    once(event)

                ports = [twin.port for twin in twins.twins if twin.name != "esp32dev-2"]
                ports.append(f"socket://127.0.0.1:{wire.port}")
                summary = await runs.run(described, ports, tmp_path / "run", observer=observe, insecure=True)
                if wire.host is not None:
                    wire.host.close()
                return summary.weights_sha256

    digest = asyncio.run(play())
    assert not [event for event in events if isinstance(event, NodeFailed)]
    assert [len(answered) for answered in rounds(events)] == [4, 4]
    assert digest == whole.weights_sha256


def test_a_port_that_comes_back_is_used_again(world: World, tmp_path: Path) -> None:
    described, events = world.describe(), list[Event]()

    async def play() -> None:
        async with Twins(described, world.programs, tmp_path / "shards") as twins:
            uid, port = named_uid("esp32dev-2"), free_port()
            shard = tmp_path / "shards" / "esp32dev-2.tfs"
            tasks: list[asyncio.Task[None]] = []

            async def restart(before: asyncio.subprocess.Process) -> None:
                await before.wait()
                async with twin_on_tcp(world, shard, port, uid):
                    await asyncio.Event().wait()

            async with twin_on_tcp(world, shard, port, uid) as dying:

                def replace() -> None:
                    dying.kill()
                    tasks.append(asyncio.create_task(restart(dying)))

                once = Once("esp32dev-2", 1, replace)

                def observe(event: Event) -> None:
                    events.append(event)
                    once(event)

                ports = [twin.port for twin in twins.twins if twin.name != "esp32dev-2"]
                ports.append(f"socket://127.0.0.1:{port}")
                await runs.run(described, ports, tmp_path / "run", observer=observe, insecure=True)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(play())
    assert rounds(events)[0] == rounds(events)[-1] and "esp32dev-2" in rounds(events)[0]
    (back,) = [event for event in events if isinstance(event, NodeBack)]
    assert (back.node, back.resumed) == ("esp32dev-2", False)
