"""Nodes that die, come back or are not what they should be; a coordinator that is killed."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import boards
from coordinator import emulation, runs
from coordinator.emulation import Twins
from coordinator.errors import FirmwareMismatch, RunFailed, RunFileError
from coordinator.events import Event, NodeAnswered, NodeFailed, NodeMissing, NodeProgress, Observer, RoundAggregated
from coordinator.federation import Federation
from coordinator.link.errors import LinkError, LinkTimeout, PortError
from coordinator.results import load
from coordinator.roster import named_uid
from tests.federation.world import World

pytestmark = pytest.mark.e2e


class Once:
    """An observer that does something when a node begins to train in a round."""

    def __init__(self, node: str, number: int, act: Callable[[], object]) -> None:
        self.node, self.number, self.act = node, number, act
        self.done = False

    def __call__(self, event: Event) -> None:
        if isinstance(event, NodeProgress) and event.stage == "training" and not self.done:
            self.done = (event.node, event.round) == (self.node, self.number)
            if self.done:
                self.act()


def killer(twins: Twins, node: str, number: int) -> Once:
    """Kill a twin when it begins to train in a round."""
    return Once(node, number, next(twin.process for twin in twins.twins if twin.name == node).kill)


def rounds(events: list[Event]) -> list[tuple[str, ...]]:
    return [event.answered for event in events if isinstance(event, RoundAggregated)]


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
    assert (failed.node, failed.round) == ("esp32dev-1", 1) and "no answer to " in failed.reason
    assert ["esp32dev-1" in answered for answered in rounds(events)] == [False, True, True]


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


def test_when_too_few_are_left_the_run_says_so(world: World, tmp_path: Path) -> None:
    def all_dead(twins: Twins) -> Observer:
        killers = [killer(twins, twin.name, 1) for twin in twins.twins]

        def observe(event: Event) -> None:
            for each in killers:
                each(event)

        return observe

    with pytest.raises(RunFailed, match=r"no round had 2 answers \(min_nodes\)"):
        world.run(tmp_path, all_dead)


def test_cables_that_are_pulled_cost_no_round(world: World, tmp_path: Path) -> None:
    events: list[Event] = []

    def all_gone_in_the_third(twins: Twins) -> Observer:
        killers = [killer(twins, twin.name, 3) for twin in twins.twins]

        def observe(event: Event) -> None:
            events.append(event)
            for each in killers:
                each(event)

        return observe

    with pytest.raises(RunFailed, match=r"3 rounds in a row had too few answers; .* --resume"):
        world.run(tmp_path, all_gone_in_the_third, rounds=30)
    assert len(rounds(events)) == 5
    resumed, _ = world.run(tmp_path, resume=True, rounds=30)
    whole, _ = world.run(tmp_path / "whole", rounds=30)
    assert resumed.rounds_aggregated == 30
    assert resumed.weights_sha256 == whole.weights_sha256


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


# A twin behind a wire that outlives it


@asynccontextmanager
async def twin_on_tcp(world: World, shard: Path, port: int, uid: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """A twin of the ESP32 that listens on a TCP port."""
    process = await asyncio.create_subprocess_exec(
        world.programs["esp32dev"], "--shard", shard, "--uid", uid, "--tcp", str(port), stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        assert (await process.stdout.readline()).startswith(b"PORT socket://127.0.0.1:")
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


class Wire:
    """A serial cable: the host's end stays open while the board behind it is reset."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.board: asyncio.StreamWriter | None = None
        self.host: asyncio.StreamWriter | None = None

    async def plug(self, board: int) -> None:
        """Connect the board that listens on this port."""
        reader, self.board = await asyncio.open_connection("127.0.0.1", board)
        self.copying = asyncio.create_task(self.copy(reader))

    async def copy(self, reader: asyncio.StreamReader) -> None:
        """From the board to the host, until the board dies."""
        while data := await reader.read(4096):
            if self.host is not None:
                self.host.write(data)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """From the host to the board."""
        self.host = writer
        while data := await reader.read(4096):
            if self.board is not None and not self.board.is_closing():
                self.board.write(data)
        writer.close()


def free_port() -> int:
    import socket

    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


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
    described, events = world.describe(rounds=12), list[Event]()

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
    answered = ["esp32dev-2" in names for names in rounds(events)]
    assert not answered[0] and answered[-1]


# What is refused


async def refused(described: Federation, ports: list[str], folder: Path) -> Exception:
    try:
        await runs.run(described, ports, folder)
    except Exception as error:
        return error
    raise AssertionError("the run was not refused")


def test_firmware_of_another_model_is_refused_with_both_hashes(world: World, tmp_path: Path) -> None:
    other = world.describe(model="other.py")

    async def play() -> Exception:
        async with Twins(world.describe(), world.programs, tmp_path / "shards") as twins:
            return await refused(other, twins.ports, tmp_path / "run")

    error = asyncio.run(play())
    assert isinstance(error, FirmwareMismatch)
    for described in (world.describe(), other):
        assert f"{load(described).plans['megaatmega2560'].model_hash:08x}" in str(error)
    assert f"`TIERFED_FEDERATION={other.path} pio run -e native_megaatmega2560`" in str(error)


def test_two_nodes_of_one_id_are_refused(world: World, tmp_path: Path) -> None:
    async def play() -> Exception:
        emulation.write_shards(world.describe(), tmp_path)
        one, two = free_port(), free_port()
        shard, uid = tmp_path / "esp32dev-1.tfs", "00000000000000aa"
        async with twin_on_tcp(world, shard, one, uid), twin_on_tcp(world, shard, two, uid):
            return await refused(
                world.describe(), [f"socket://127.0.0.1:{one}", f"socket://127.0.0.1:{two}"], tmp_path / "run"
            )

    error = asyncio.run(play())
    assert isinstance(error, LinkError) and "both say they are 00000000000000aa (esp32dev)" in str(error)


def test_a_board_that_the_file_does_not_list_is_refused(world: World, tmp_path: Path) -> None:
    async def play() -> Exception:
        emulation.write_shards(world.describe(), tmp_path)
        shard, places = tmp_path / "esp32dev-1.tfs", [free_port() for _ in range(3)]
        async with (
            twin_on_tcp(world, shard, places[0], "00000000000000a1"),
            twin_on_tcp(world, shard, places[1], "00000000000000a2"),
            twin_on_tcp(world, shard, places[2], "00000000000000a3"),
        ):
            names = [f"socket://127.0.0.1:{place}" for place in places]
            return await refused(world.describe(), names, tmp_path / "run")

    error = asyncio.run(play())
    assert "00000000000000a3 is a esp32dev, for which the federation file has no node left" in str(error)


def test_a_port_that_is_absent_or_no_node(world: World, tmp_path: Path) -> None:
    for _ in range(2):  # it leaves no run behind that would have to be resumed
        error = asyncio.run(refused(world.describe(), ["/dev/ttyUSB99"], tmp_path / "a"))
    assert isinstance(error, PortError) and "/dev/ttyUSB99: there is no such port" in str(error)
    silent, name = os.openpty()
    try:
        error = asyncio.run(refused(world.describe(), [os.ttyname(name)], tmp_path / "b"))
    finally:
        os.close(silent)
        os.close(name)
    assert isinstance(error, LinkTimeout) and "no Tierfed node answers" in str(error)


def test_a_run_of_another_federation_is_not_resumed(world: World, tmp_path: Path) -> None:
    world.run(tmp_path, rounds=1)
    with pytest.raises(RunFileError, match="another federation file, model or data"):
        world.run(tmp_path, resume=True, rounds=1, seed=2)


# A coordinator that is killed


def serve(ports: list[str], described: Federation, folder: Path, *options: str) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "coordinator", "serve", "--federation", str(described.path), "--run", "killed"]
    env = os.environ | {"PYTHONPATH": str(boards.PROJECT_ROOT)}
    return subprocess.Popen(
        [*command, *options, "--ports", *ports], cwd=folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


def wait_for(journal: Path, event: str, number: int, process: "subprocess.Popen[bytes]") -> None:
    """Return when the journal says that `event` has happened in a round."""
    end = time.monotonic() + 60
    while time.monotonic() < end and process.poll() is None:
        text = journal.read_text() if journal.exists() else ""
        if re.search(f'"event":"{event}".*"round":{number}\\b', text):
            return
        time.sleep(0.002)
    raise AssertionError(f"{event} of round {number} did not come: {process.communicate()[0].decode()}")


@pytest.mark.parametrize(("event", "number"), [("node_answered", 2), ("checkpoint_written", 3)])
def test_a_killed_coordinator_ends_in_the_same_bits(world: World, tmp_path: Path, event: str, number: int) -> None:
    """The twins live on, with whatever the killed coordinator left in them."""
    described = world.describe(rounds=5)
    whole, _ = world.run(tmp_path / "whole", rounds=5)
    folder = tmp_path / "runs" / "killed"

    async def play() -> None:
        async with Twins(described, world.programs, tmp_path / "shards") as twins:
            first = serve(twins.ports, described, tmp_path)
            await asyncio.to_thread(wait_for, folder / "journal.jsonl", event, number, first)
            first.send_signal(signal.SIGKILL)
            first.communicate()
            second = serve(twins.ports, described, tmp_path, "--resume")
            output, _ = await asyncio.to_thread(second.communicate)
            assert second.returncode == 0, output.decode()

    asyncio.run(play())
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["weights_sha256"] == whole.weights_sha256
    assert summary["accuracy"] == whole.accuracy
    lines = [json.loads(line) for line in (folder / "journal.jsonl").read_text().splitlines()]
    starts = [line["after_round"] for line in lines if line["event"] == "run_started"]
    assert starts[0] == 0 and starts[1] in (number - 1, number)
