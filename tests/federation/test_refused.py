"""Ports, boards and runs that are refused, in words."""

import asyncio
import fcntl
import os
import termios
import tty
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from coordinator import emulation, runs
from coordinator.emulation import Twins
from coordinator.errors import FirmwareMismatch, RunFileError
from coordinator.events import Event, PortLog, PortRefused
from coordinator.federation import Federation
from coordinator.link.errors import LinkError, LinkTimeout, PortError
from coordinator.results import load
from tests.federation.support import free_port, rounds, twin_on_tcp
from tests.federation.world import World

pytestmark = pytest.mark.e2e


@contextmanager
def pty_that_says(text: bytes) -> Iterator[str]:
    """A port behind which something that is no node answers whatever it hears with this."""
    ours, theirs = os.openpty()
    tty.setraw(theirs)

    def talk() -> None:
        os.read(ours, 4096)
        os.write(ours, text)

    asyncio.get_running_loop().add_reader(ours, talk)
    try:
        yield os.ttyname(theirs)
    finally:
        asyncio.get_running_loop().remove_reader(ours)
        os.close(ours)
        os.close(theirs)


@contextmanager
def busy_pty() -> Iterator[str]:
    """A port that another program has open."""
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCEXCL)
    fcntl.flock(theirs, fcntl.LOCK_EX | fcntl.LOCK_NB)
    try:
        yield os.ttyname(theirs)
    finally:
        os.close(ours)
        os.close(theirs)


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


def test_ports_that_are_refused_leave_the_others_to_run(world: World, tmp_path: Path) -> None:
    """A board that no node stands for, a port that is absent, one that is busy, one that speaks garbage."""
    events: list[Event] = []

    async def play() -> None:
        emulation.write_shards(world.describe(), tmp_path)
        shard, places = tmp_path / "esp32dev-1.tfs", [free_port() for _ in range(3)]
        async with (
            twin_on_tcp(world, shard, places[0], "00000000000000a1"),
            twin_on_tcp(world, shard, places[1], "00000000000000a2"),
            twin_on_tcp(world, shard, places[2], "00000000000000a3"),
        ):
            names = [f"socket://127.0.0.1:{place}" for place in places]
            with pty_that_says(b"ets Jul 29 2019 12:21:46\r\n" * 20) as talking, busy_pty() as busy:
                await runs.run(
                    world.describe(), ["/dev/ttyUSB99", talking, busy, *names], tmp_path / "run",
                    observer=events.append, insecure=True,
                )  # fmt: skip

    asyncio.run(play())
    told = {event.port: event.reason for event in events if isinstance(event, PortRefused)}
    assert len(told) == 4
    said = "\n".join(told.values())
    assert "00000000000000a3 is a esp32dev, for which the federation file has no node left" in said
    for words in ("there is no such port", "busy: another program has it open", "(it sends something else)"):
        assert words in said
    logged = {event.text for event in events if isinstance(event, PortLog)}
    assert logged == {"ets Jul 29 2019 12:21:46"}
    assert rounds(events) == [("esp32dev-1", "esp32dev-2")] * 2
    assert '"event":"port_refused"' in (tmp_path / "run" / "journal.jsonl").read_text()


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
