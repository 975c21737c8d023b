"""Coordinators killed one after the other, disks that fail or take their time: the same bits in the end."""

import asyncio
import errno
import os
import resource
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from pathlib import Path

import pytest

from coordinator.errors import HINTS, RunFileError, exit_code
from coordinator.events import NodeFailed, NodeLost
from coordinator.state import State
from simulation.clock import VirtualLoop, run_virtually
from simulation.faults import Fault
from simulation.judge import judge
from simulation.play import KILLED, Ending, Play
from simulation.world import World

FOR_GOOD = 1_000_000  # disk operations: until somebody makes room and types --resume
WRITES = ("journal.jsonl", "federation.json", "round-001.npz", "round-002.npz", "summary.json", "report.html")


@pytest.fixture(scope="module")
def undisturbed(small: World, tmp_path_factory: pytest.TempPathFactory) -> State:
    """The weights of a run that nobody kills."""
    return small.play((), tmp_path_factory.mktemp("undisturbed")).state


def played(small: World, undisturbed: State, folder: Path, *faults: Fault) -> Ending:
    """Hold a run with these faults; everybody has answered in every round, and the weights are the same to the bit."""
    folder.mkdir()
    ending = small.play(faults, folder)
    judge(small, ending, folder)
    assert ending.answered == (tuple(small.names),) * 2
    assert ending.state.content() == undisturbed.content()
    return ending


def test_a_kill_of_each_coordinator_that_takes_over(small: World, undisturbed: State, tmp_path: Path) -> None:
    for first in range(1, small.extent.disk + 1, 5):
        faults = [Fault("kill", first + more, share=0.5) for more in (0, 3, 10)]
        ending = played(small, undisturbed, tmp_path / str(first), *faults)
        assert ending.parts == [KILLED] * 3 + [""], first


@pytest.mark.parametrize(("kind", "error", "every"), [("full", errno.ENOSPC, 1), ("read-only", errno.EROFS, 3)])
def test_a_disk_that_fails_at_any_write_is_said_of_the_file(
    small: World, undisturbed: State, tmp_path: Path, kind: str, error: int, every: int
) -> None:
    said = set()
    for at in range(1, small.extent.disk + 1, every):
        ending = played(small, undisturbed, tmp_path / str(at), Fault(kind, at, share=0.5, size=FOR_GOOD))
        sentence, last = ending.parts
        assert last == ""
        name, _, why = sentence.removeprefix(f"{tmp_path / str(at) / 'run'}/").partition(": ")
        assert why == os.strerror(error) + HINTS[error]
        said.add(name)
    assert said == set(WRITES)
    assert exit_code(OSError(error, os.strerror(error))) == RunFileError.exit_code == 10


class OnDisk(Play):
    """A run whose first coordinator has a disk of another kind."""

    def __init__(self, small: World, folder: Path, disk: Callable[[], AbstractContextManager[None]]) -> None:
        folder.mkdir()
        super().__init__(small, (), folder, 0, lambda _time, _event: None)
        self._kind = disk

    async def _part(self) -> str:
        with self._kind():
            self._kind = nullcontext
            return await super()._part()


@contextmanager
def room_for(size: int) -> Iterator[None]:
    """No file of this process may grow larger: the kernel cuts a write off there and refuses the next one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_write_that_the_kernel_cuts_off(small: World, undisturbed: State, tmp_path: Path) -> None:
    """Nothing is made up here but the size: a line of the journal is left that has no end."""
    said = set()
    for size in range(100, 5000, 397):
        folder = tmp_path / str(size)
        ending = run_virtually(OnDisk(small, folder, partial(room_for, size)).run)
        judge(small, ending, folder)
        assert ending.state.content() == undisturbed.content()
        said |= {part.removeprefix(f"{folder / 'run'}/") for part in ending.parts}
    assert {f"journal.jsonl: {os.strerror(errno.EFBIG)}", ""} <= said


@contextmanager
def syncing_takes(seconds: float) -> Iterator[None]:
    """All stands still while the disk is busy, as it does in a process of one thread."""
    sync, loop = os.fsync, asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)

    def slowly(descriptor: int) -> None:
        loop.stand_still(seconds)
        sync(descriptor)

    os.fsync = slowly  # type: ignore[assignment]
    try:
        yield
    finally:
        os.fsync = sync


@pytest.mark.parametrize("seconds", [0.3, 2.0, 8.0])
def test_a_disk_that_takes_its_time_loses_no_node(
    small: World, undisturbed: State, tmp_path: Path, seconds: float
) -> None:
    ending = run_virtually(OnDisk(small, tmp_path / "slow", partial(syncing_takes, seconds)).run)
    judge(small, ending, tmp_path / "slow")
    assert ending.seconds > seconds * len(ending.events) / 10
    assert ending.parts == [""]
    assert [event for event in ending.events if isinstance(event, NodeFailed | NodeLost)] == []
    assert ending.state.content() == undisturbed.content()
