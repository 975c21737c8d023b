"""Real twins with keys, and what is said to those who have none, another one, or too many."""

from __future__ import annotations

import asyncio
import re
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from coordinator import federation, runs
from coordinator.emulation import Twins
from coordinator.errors import exit_code
from coordinator.events import Event, PortRefused
from coordinator.federation import Federation
from coordinator.keys import keyed_nodes, load_key, make_keys
from coordinator.link.errors import AuthenticationError
from coordinator.results import Summary
from tests.federation.support import free_port, twin_on_tcp
from tests.federation.world import World

pytestmark = pytest.mark.e2e
NAMES = ["megaatmega2560-1", "esp32dev-1", "esp32dev-2", "uno_r4_minima-1"]


def described(world: World, folder: Path, least: int = 4) -> Federation:
    """Return the federation in a folder of its own, whose keys are nobody else's."""
    folder.mkdir()
    for name in ("model.py", "data.npz"):
        shutil.copy(world.folder / name, folder)
    return federation.load(Path(shutil.copy(world.describe(rounds=1, min_nodes=least).path, folder / "f.toml")))


@asynccontextmanager
async def twins(world: World, of: Federation, folder: Path) -> AsyncIterator[list[str]]:
    """Start a twin of every node; yield the ports."""
    async with Twins(of, world.programs, folder / "shards") as started:
        yield started.ports


async def run(world: World, of: Federation, folder: Path) -> Summary:
    async with twins(world, of, folder) as ports:
        return await runs.run(of, ports, folder / "run")


def test_some_have_keys_and_the_bits_are_the_same(world: World, tmp_path: Path) -> None:
    mine = described(world, tmp_path / "f")
    without = asyncio.run(run(world, mine, tmp_path / "without"))
    keys = make_keys(mine, NAMES[:3])
    summary = asyncio.run(run(world, mine, tmp_path / "with"))
    assert [node.rounds_answered for node in summary.nodes] == [1, 1, 1, 1]
    assert summary.weights_sha256 == without.weights_sha256
    written = b"".join(path.read_bytes() for path in (tmp_path / "with").rglob("*") if path.is_file())
    for path in keys.values():
        secret = load_key(path)
        assert secret not in written and secret.hex().encode() not in written.lower()


def one_key(mine: Federation) -> None:
    make_keys(mine, ["esp32dev-1"])


def no_key(mine: Federation) -> None:
    for path in keyed_nodes(mine).values():
        path.unlink()


Act = Callable[[Federation], None]
REFUSED: list[tuple[str, Act, Act, str]] = [
    ("no key", no_key, one_key, r"it says that it is [0-9a-f]{16}, and does not prove it \(the node refused: it does "
     r"not know CHALLENGE.*\); esp32dev-1 has a key: flash it with that, `coordinator flash esp32dev-1 "),
    ("another key", one_key, one_key, r"its proof is wrong; esp32dev-1 has a key: flash it with that"),
    ("a key too many", one_key, no_key, r"esp32dev-1 was built with a key, and .*/keys has none for it; put "
     r"esp32dev-1\.key back there, or `coordinator flash esp32dev-1 .*` builds it without"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("before", "after", "words"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED]
)
def test_who_is_refused_and_what_it_is_told(world: World, tmp_path: Path, before: Act, after: Act, words: str) -> None:
    mine = described(world, tmp_path / "f")

    async def play() -> Exception:
        before(mine)
        async with twins(world, mine, tmp_path) as ports:
            after(mine)
            with pytest.raises(AuthenticationError) as refusal:
                await runs.run(mine, ports, tmp_path / "run")
            return refusal.value

    error = asyncio.run(play())
    assert re.search(r"^/dev/pts/\d+: .*" + words, str(error)), error
    assert exit_code(error) == 14


def test_who_is_not_believed_ends_no_run(world: World, tmp_path: Path) -> None:
    mine, place = described(world, tmp_path / "f", least=3), free_port()
    make_keys(mine, ["esp32dev-1"])
    events: list[Event] = []

    async def play() -> Summary:
        async with (
            twins(world, mine, tmp_path) as ports,
            twin_on_tcp(world, tmp_path / "shards" / "esp32dev-1.tfs", place, "00000000000000aa"),
        ):
            ports[1] = f"socket://127.0.0.1:{place}"
            return await runs.run(mine, ports, tmp_path / "run", observer=events.append)

    assert [node.rounds_answered for node in asyncio.run(play()).nodes] == [1, 0, 1, 1]
    told = [event.reason for event in events if isinstance(event, PortRefused)]
    assert "00000000000000aa is no board of esp32dev-1, which has a key; flash it with that" in told[0]
