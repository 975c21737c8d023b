"""A coordinator that is killed."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import boards
from coordinator.emulation import Twins
from coordinator.federation import Federation
from tests.federation.world import World

pytestmark = pytest.mark.e2e


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
