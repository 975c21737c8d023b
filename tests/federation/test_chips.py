"""Real images in emulators of their chips: what they train is what their native twins train, bit by bit."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

import boards
from coordinator import desk, emulation, emulators, flashing, platformio
from coordinator.cli import main
from coordinator.emulation import Twins
from coordinator.events import NodeFailed
from coordinator.federation import Federation
from coordinator.images import Held, images_held
from coordinator.link.ports import PortInfo
from coordinator.results import Inputs, load
from coordinator.roster import assemble, node_uid
from coordinator.rounds import Node, Order, Update, run_round
from coordinator.runs import round_settings
from coordinator.state import State
from tests.federation.world import World

pytestmark = pytest.mark.e2e
OPTIBOOT = Path("/usr/share/arduino/hardware/arduino/avr/bootloaders/optiboot")


class Recorder:
    """A node whose update is kept."""

    def __init__(self, node: Node) -> None:
        self.node, self.name, self.plan, self.label_counts = node, node.name, node.plan, node.label_counts
        self.update: Update | None = None
        self.lost = None

    async def settle(self, order: Order) -> None:
        await self.node.settle(order)

    async def train(self, order: Order) -> Update:
        self.update = await self.node.train(order)
        return self.update


@dataclass(frozen=True)
class Chips:
    """A federation of boards that can be emulated, built."""

    federation: Federation
    inputs: Inputs
    programs: dict[str, Path]
    images: dict[str, Path]
    workspace: Path

    @property
    def held(self) -> dict[str, Held]:
        return images_held(self.federation, self.inputs.plans)

    async def first_round(self, images: dict[str, Path], shards: Path) -> tuple[dict[str, Update], list[str]]:
        """Return the updates of the first round by node, and how each node was emulated."""
        federation, inputs = self.federation, self.inputs
        failed: list[object] = []
        async with Twins(federation, self.programs, shards, images, self.held) as twins:
            roster = await assemble(federation, inputs.plans, twins.ports, lambda _: None, pace=10)
            recorders = [Recorder(node) for node in roster.nodes]
            try:
                settings = round_settings(federation)
                await run_round(
                    1, inputs.graph, State(inputs.weights), recorders, settings,
                    lambda event: failed.append(event) if isinstance(event, NodeFailed) else None,
                )  # fmt: skip
            finally:
                await roster.close()
            assert not failed
            updates = {each.name: each.update for each in recorders if each.update}
            return updates, [twin.how for twin in twins.twins]


@pytest.fixture(scope="module")
def chips(world: World, tmp_path_factory: pytest.TempPathFactory) -> Chips:
    described, folder = world.describe(nodes="chips"), tmp_path_factory.mktemp("chips")
    inputs = load(described)
    programs = emulation.build(described, folder / "pio")
    images = emulation.build_images(described, inputs.plans, folder / "shards", folder / "pio")
    return Chips(described, inputs, programs, images, folder / "pio")


def test_the_first_update_of_every_chip_is_its_twins_to_the_bit(chips: Chips, tmp_path: Path) -> None:
    assert set(chips.images) == {spec.name for spec in chips.federation.nodes()}
    real, how = asyncio.run(chips.first_round(chips.images, tmp_path / "real"))
    native, twins = asyncio.run(chips.first_round({}, tmp_path / "native"))
    assert set(twins) == {"native"} and "native" not in how
    assert set(real) == set(native) == set(chips.images)
    for name, update in real.items():
        twin = native[name]
        assert (update.samples, update.loss, update.saturated) == (twin.samples, twin.loss, twin.saturated)
        assert [delta.tobytes() for delta in update.delta] == [delta.tobytes() for delta in twin.delta]
        assert max(np.abs(delta).max() for delta in update.delta) > 0


# Flashing, through avrdude and a boot loader


@pytest.fixture(scope="module")
def boot_loader(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Optiboot, from its source: Debian's compiler makes it larger than the 512 bytes that it is linked to."""
    folder = tmp_path_factory.mktemp("optiboot")
    flags = ["-mmcu=atmega328p", "-Os", "-fno-split-wide-types", "-mrelax", "-nostartfiles", "-nostdlib"]
    defines = ["-DF_CPU=16000000L", "-DLED_START_FLASHES=3", "-DBAUD_RATE=115200"]
    place = ["-Wl,--section-start=.text=0x7c00", "-Wl,--relax"]
    command = ["avr-gcc", *flags, *defines, *place, str(OPTIBOOT / "optiboot.c"), "-o", "boot.elf"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    command = ["avr-objcopy", "-j", ".text", "-j", ".data", "-O", "ihex", "boot.elf", "boot.hex"]
    subprocess.run(command, cwd=folder, check=True)
    return folder / "boot.hex"


@contextmanager
def empty_boards(count: int, boot_loader: Path) -> Iterator[list[str]]:
    """Unos with nothing in flash but the boot loader, which waits a second by the wall; yields their ports."""
    command = emulators.command("simavr", boot_loader, boards.load("uno"), "0" * 16, pace=True)
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) for _ in range(count)]
    try:
        yield [process.stdout.readline().decode().split()[1] for process in processes if process.stdout]
    finally:
        for process in processes:
            process.terminate()
            process.communicate()


def flash(arguments: Sequence[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, list[dict[str, object]], str]:
    with pytest.raises(SystemExit) as ended:
        main(["flash", *arguments, "--json"])
    out, err = capsys.readouterr()
    assert isinstance(ended.value.code, int)
    return ended.value.code, json.loads(out) if out else [], err


def test_a_board_is_flashed_and_answers_as_its_node(
    chips: Chips, boot_loader: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(platformio, "WORKSPACE", chips.workspace)
    spec = next(spec for spec in chips.federation.nodes() if spec.board == "uno")
    federation = ["--federation", str(chips.federation.path)]
    with empty_boards(2, boot_loader) as ports:
        plugged = [PortInfo(port, "", "2341:0043") for port in ports]
        for module in (desk, flashing):
            monkeypatch.setattr(module, "list_ports", lambda: plugged)
        with pytest.raises(SystemExit):
            main(["ports", "--json", *federation])
        offered = [row["flash"] for row in json.loads(capsys.readouterr().out)]
        assert offered == [f"coordinator flash {spec.name} --port {ports[0]} --federation {chips.federation.path}", ""]

        code, rows, err = flash(["uno", "--port", ports[1], *federation], capsys)
        assert code == 0, err
        held = chips.held[spec.name].samples
        expected = {"node": spec.name, "port": ports[1], "uid": node_uid(spec), "samples": held}
        assert {key: rows[0][key] for key in expected} == expected
        assert "building" in err and "uploaded" in err

        # with --all, whoever has been flashed keeps its board, and the other board is nobody's
        code, rows, err = flash(["--all", *federation], capsys)
        assert code == 7  # for the first of the others
        assert {row["node"]: row["port"] for row in rows if row["port"]} == {spec.name: ports[1]}, err
        assert all("no port looks like a free" in str(row["result"]) for row in rows if not row["port"])


@pytest.mark.parametrize(
    ("port", "code", "said"),
    [
        ("no-such-port", 11, "no-such-port: uno-1 could not be flashed"),
        ("no-such-port", 11, "avrdude"),
        ("/no/such/port", 7, "/no/such/port: there is no such port"),  # nothing was built
    ],
)
def test_an_upload_that_fails_says_why(
    chips: Chips,
    port: str,
    code: int,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(platformio, "WORKSPACE", chips.workspace)
    ended, rows, err = flash(["uno", "--port", port, "--federation", str(chips.federation.path)], capsys)
    assert (ended, rows) == (code, [])
    assert said in err
