"""docs/porting.md, followed to the letter in a copy of the project: its files are built, and hold a round."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import re
import shutil
import subprocess
import sys
import tty
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import boards
from boards import PROJECT_ROOT, seed
from codegen.planner import Plan, best
from codegen.prebuild import firmware_hash
from codegen.weights import pack, unpack
from coordinator import federation
from coordinator.data import load_dataset, write_shard
from coordinator.global_model import global_model
from coordinator.link.ports import open_port
from coordinator.link.session import Session
from tests.firmware.rounds import hold_round

GUIDE = (PROJECT_ROOT / "docs" / "porting.md").read_text(encoding="utf-8")
ACME = Path(__file__).with_name("acme")
PARTS = ("boards", "codegen", "coordinator", "firmware", "examples", "platformio.ini")
FEDERATION = Path("examples/gestures/federation.toml")
UID, SAMPLES = "00000000000000a1", 6  # as acme.c has it; of the shard


def block(language: str) -> str:
    """Return the guide's only block of code in a language."""
    (found,) = re.findall(rf"^```{language}\n(.*?)^```$", GUIDE, re.MULTILINE | re.DOTALL)
    return str(found)


def named(folder: str) -> str:
    """Return the path in `folder` that the guide tells to write."""
    (found,) = set(re.findall(rf"^`({folder}/[^`]*)`", GUIDE, re.MULTILINE))
    return str(found)


def commands(word: str) -> list[str]:
    """Return the guide's commands that hold a word."""
    return [line.split("#")[0].strip() for line in re.findall(rf"^    (.*{re.escape(word)}.*)$", GUIDE, re.MULTILINE)]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project with the guide's files, on a machine where PlatformIO knows Acme's platform."""
    root = tmp_path_factory.mktemp("porting")
    for part in PARTS:
        source, target = PROJECT_ROOT / part, root / part
        (shutil.copytree if source.is_dir() else shutil.copyfile)(source, target)
    (root / ".venv").symlink_to(sys.prefix)
    with pytest.MonkeyPatch.context() as patch:
        for variable, folder in (("XDG_CONFIG_HOME", ".config"), ("XDG_CACHE_HOME", ".cache")):
            patch.setenv(variable, os.environ.get(variable) or str(Path.home() / folder))
        patch.setenv("HOME", str(root / "home"))
        patch.delenv("PLATFORMIO_CORE_DIR", raising=False)
        seed.seed(root, ("registry.invalid",))
    platform = root / ".platformio" / "platforms" / "acme"
    shutil.copytree(ACME, platform)
    meta = json.loads((platform.parent / "native" / ".piopm").read_text())
    meta |= {"name": "acme", "version": "1.0.0", "spec": meta["spec"] | {"name": "acme"}}
    (platform / ".piopm").write_text(json.dumps(meta))

    (root / named("boards")).write_text(block("json"))
    with (root / "platformio.ini").open("a") as environments:
        environments.write("\n" + block("ini"))
    port = root / named("firmware/ports")
    port.parent.mkdir()
    port.write_text(block("c"))
    return root


def run(project: Path, command: str) -> str:
    """Run one of the guide's commands there; return what it says."""
    names = {"pio": "platformio", "coordinator": "coordinator"}
    assignments = [word.split("=") for word in command.split() if "=" in word]
    program, *arguments = [word for word in command.split() if "=" not in word]
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PLATFORMIO_", "TIERFED_"))}
    done = subprocess.run(
        [sys.executable, "-m", names[program], *arguments], cwd=project, capture_output=True, text=True, timeout=120,
        env={**kept, "TIERFED_FEDERATION": str(FEDERATION), **dict(assignments)},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@contextmanager
def twin(project: Path) -> Iterator[str]:
    """Start the twin; yield its port."""
    program = project / ".pio" / "build" / "native_pebble" / "program"
    command: list[str | Path] = [program, "--shard", project / "pebble.tfs", "--uid", UID]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().split()[1]
        finally:
            process.terminate()


@contextmanager
def image(project: Path) -> Iterator[str]:
    """Start the image with a pty for its UART; yield the pty's name."""
    ours, theirs = pty.openpty()
    tty.setraw(theirs)
    program = project / ".pio" / "build" / "pebble" / "program"
    with subprocess.Popen([program], stdin=ours, stdout=ours) as process:
        os.close(ours)
        try:
            yield os.ttyname(theirs)
        finally:
            process.terminate()
            os.close(theirs)


async def one_round(port: str, baud: int, classes: int, weights: bytes, firmware: int) -> bytes:
    """Hold a round as a coordinator does; return the update."""
    session = Session(open_port(port, baud))
    try:
        hello = await session.hello()
        assert (hello.board, hello.uid.hex(), hello.samples) == ("pebble", UID, SAMPLES)
        assert hello.firmware == firmware
        return await hold_round(session, hello, classes, weights)
    finally:
        await session.close()


def check_rounds(project: Path, plan: Plan, weights: list[np.ndarray]) -> None:
    """Hold a round with twin and image: they have the samples of pebble.tfs, and end in the same bits."""
    blob, classes = pack(plan, plan.sub_model.cut(weights)), plan.sub_model.graph.classes
    updates = []
    for start in (twin, image):
        with start(project) as port:
            rate, firmware = plan.board.training.bauds[0], firmware_hash(project)
            updates.append(asyncio.run(one_round(port, rate, classes, blob, firmware)))
    assert updates[0] == updates[1] != blob
    assert all(np.isfinite(tensor).all() for tensor in unpack(plan, updates[0]))


def test_the_guide_leads_to_a_board_that_trains_as_its_twin_does(project: Path) -> None:
    described = federation.load(PROJECT_ROOT / FEDERATION)
    dataset = load_dataset(described.data_path, described.data.range)
    write_shard(project / "pebble.tfs", dataset.x_train[:SAMPLES], dataset.y_train[:SAMPLES], dataset.classes)
    (plan_command,), (twin_command, image_command) = commands("--board pebble"), commands("pio run")
    assert "pebble" in run(project, plan_command)
    run(project, twin_command)
    run(project, image_command.replace(" -t upload", ""))
    board, model = boards.load("pebble", project / "boards"), global_model(described)
    plan = best(board, model.graph, described.tier_list(), described.plan_settings())
    check_rounds(project, plan, model.weights)


SENSOR = """
#include "model.h"
#include "node/sensor.h"

static uint8_t made;

void sensor_begin(void)
{
    made = 0;
}

bool sensor_capture(uint8_t *features, uint16_t *label)
{
    if (made == 6) {
        return false;
    }
    for (uint32_t i = 0; i < MODEL_FEATURES; i++) {
        features[i] = (uint8_t)(37U * made + 11U * i);
    }
    *label = made++ % MODEL_CLASSES;
    return true;
}
"""


@pytest.mark.e2e
def test_a_board_with_a_sensor_trains_as_a_twin_that_replays_it(project: Path, tmp_path: Path) -> None:
    """The federation's own sensor_capture is compiled into the board's image, and not into the twin."""
    for name in ("model.py", "recording.npz"):
        shutil.copyfile((PROJECT_ROOT / FEDERATION).with_name(name), tmp_path / name)
    (tmp_path / "sensor").mkdir()
    (tmp_path / "sensor" / "made_up.c").write_text(SENSOR)
    text = (PROJECT_ROOT / FEDERATION).read_text()
    (tmp_path / "federation.toml").write_text(text.replace('board = "nano33ble"', 'board = "pebble"'))
    features, classes = 192, 3
    made = np.arange(SAMPLES)
    samples = (37 * made[:, None] + 11 * np.arange(features)).astype(np.uint8)
    write_shard(project / "pebble.tfs", samples, made % classes, classes)
    for env in ("native_pebble", "pebble"):
        run(project, f"TIERFED_FEDERATION={tmp_path / 'federation.toml'} pio run -e {env}")
    described = federation.load(PROJECT_ROOT / FEDERATION)
    settings = replace(described.plan_settings(), sources={"pebble": "sensor"})
    board, model = boards.load("pebble", project / "boards"), global_model(described)
    check_rounds(project, best(board, model.graph, described.tier_list(), settings), model.weights)


def test_the_port_is_of_four_functions() -> None:
    """Those that the guide names are what port.h asks of every port; the others have a default."""
    header = (PROJECT_ROOT / "firmware" / "node" / "port.h").read_text()
    declared = re.findall(r"\b(port_\w+)\(", re.sub(r"/\*.*?\*/", "", header, flags=re.DOTALL))
    common = "".join(path.read_text() for path in (PROJECT_ROOT / "firmware" / "ports" / "common").glob("*.c"))
    defaults = set(re.findall(r"^DEFAULT .*?\b(port_\w+)\(", common, re.MULTILINE))
    required = [name for name in declared if name not in defaults]
    assert re.findall(r"^\w.*\b(port_\w+)\(", block("c"), re.MULTILINE) == required
    assert len(required) == 4
    assert re.findall(r"^\| `(port_\w+)`", GUIDE, re.MULTILINE) == declared
