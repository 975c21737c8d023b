"""Twins that do not build, do not start, or do not end. That they work is shown in tests/federation."""

import asyncio
import os
import struct
import time
from pathlib import Path

import numpy as np
import pytest

from boards import PROJECT_ROOT
from coordinator.data import load_dataset
from coordinator.emulation import Twins, build, write_shards
from coordinator.errors import ToolchainError
from coordinator.federation import Federation, load
from coordinator.images import Held

EXAMPLE = PROJECT_ROOT / "examples" / "mnist" / "federation.toml"


@pytest.fixture
def one(tmp_path: Path) -> Federation:
    """A federation of one node with ten samples."""
    np.savez(
        tmp_path / "data.npz", x_train=np.zeros((20, 8, 8), np.uint8), y_train=np.arange(20) % 4,
        x_test=np.zeros((4, 8, 8), np.uint8), y_test=np.arange(4),
    )  # fmt: skip
    path = tmp_path / "one.toml"
    path.write_text(
        'name = "one"\n[model]\npath = "m.py"\n[data]\npath = "data.npz"\nsamples_per_node = 10\n'
        '[[nodes]]\nboard = "esp32dev"\n'
    )
    return load(path)


def program(folder: Path, script: str) -> dict[str, Path]:
    """A program that is not a twin."""
    path = folder / "program"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return {"esp32dev": path}


def start(federation: Federation, programs: dict[str, Path], folder: Path) -> tuple[int, float]:
    """Start and end the twins; returns the process id of the first one, and how long it took to end it."""

    async def play() -> tuple[int, float]:
        async with Twins(federation, programs, folder) as twins:
            begun = time.monotonic()
            assert twins.ports == ["/dev/pts/999"]
        return twins.twins[0].process.pid, time.monotonic() - begun

    return asyncio.run(play())


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_shards_hold_what_was_dealt(tmp_path: Path) -> None:
    federation = load(EXAMPLE)
    shards = write_shards(federation, tmp_path)
    assert list(shards) == [spec.name for spec in federation.nodes()]
    contents = [path.read_bytes() for path in shards.values()]
    assert {content[:20] for content in contents} == {struct.pack("<4sIIII", b"TFS2", 900, 0, 784, 10)}
    images = np.concatenate([np.frombuffer(content, np.uint8, 900 * 784, 20).reshape(-1, 784) for content in contents])
    train = load_dataset(federation.data_path).x_train.reshape(-1, 784)
    assert len(np.unique(images, axis=0)) == len(images) == 11 * 900  # no image twice
    assert len(np.unique(np.concatenate([images, train]), axis=0)) == len(train)  # and all of them from the data set


def test_a_twin_that_minds_sigterm_ends_at_once(one: Federation, tmp_path: Path) -> None:
    pid, seconds = start(one, program(tmp_path, "echo PORT /dev/pts/999; exec sleep 60"), tmp_path)
    assert seconds < 1.5 and not is_alive(pid)


def test_a_twin_that_does_not_is_killed(one: Federation, tmp_path: Path) -> None:
    script = "trap '' TERM; echo PORT /dev/pts/999; while :; do sleep 0.1; done"
    pid, _ = start(one, program(tmp_path, script), tmp_path)
    assert not is_alive(pid)


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("echo out of pens >&2; exit 3", "out of pens"),
        ("echo HELLO; exec sleep 60", "nothing"),
        ("exit 0", "nothing"),
    ],
)
def test_a_twin_that_does_not_start(one: Federation, tmp_path: Path, script: str, said: str) -> None:
    with pytest.raises(ToolchainError, match=f"the twin of esp32dev-1 did not start; it said: {said}"):
        start(one, program(tmp_path, script), tmp_path)


@pytest.mark.parametrize(
    ("script", "told"),
    [
        ("sleep 0.1; echo out of pens >&2; exit 3", "its twin ended (exit code 3); it said: out of pens"),
        ("kill -9 $$", "its twin ended (SIGKILL); it said: nothing"),
        ("exec sleep 60", None),
    ],
)
def test_a_twin_that_ends_by_itself_is_told_of(one: Federation, tmp_path: Path, script: str, told: str | None) -> None:
    heard: list[str] = []

    async def play() -> None:
        programs = program(tmp_path, f"echo PORT /dev/pts/999; {script}")
        async with Twins(one, programs, tmp_path, on_end=heard.append) as twins:
            if told is not None:
                await asyncio.wait_for(twins.all_ended(), 10)

    asyncio.run(play())
    assert heard == ([] if told is None else [f"esp32dev-1: {told}"])


def test_a_node_may_hold_the_first_of_its_samples_only(one: Federation, tmp_path: Path) -> None:
    (whole,) = write_shards(one, tmp_path / "whole").values()
    (part,) = write_shards(one, tmp_path / "part", {"esp32dev-1": Held(3)}).values()
    assert part.read_bytes()[20:212] == whole.read_bytes()[20:212]
    assert struct.unpack_from("<4sI", part.read_bytes()) == (b"TFS2", 3)
    assert part.read_bytes()[212:] == whole.read_bytes()[20 + 640 :][:6]


def test_a_program_that_is_not_there(one: Federation, tmp_path: Path) -> None:
    with pytest.raises(ToolchainError, match="build it with `pio run -e native_esp32dev`"):
        start(one, {"esp32dev": tmp_path / "absent"}, tmp_path)


def test_a_build_that_fails_shows_what_it_said(one: Federation, tmp_path: Path) -> None:
    begun: list[str] = []
    with pytest.raises(ToolchainError, match=r"could not be built(?s:.*)m\.py"):
        build(one, tmp_path / "pio", watch=begun.append)
    assert begun == ["esp32dev"]
