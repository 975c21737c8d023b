"""The images that are flashed: what is planned is what the linker maps, and they train to their native twin's bits."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

import boards
from boards import PROJECT_ROOT, Board, seed
from codegen.linked import Linked
from codegen.planner import Plan, best
from codegen.prebuild import firmware_hash
from codegen.weights import pack, unpack
from coordinator import emulators, federation
from coordinator.data import load_dataset, write_shard
from coordinator.emulators import Measured, read_measured
from coordinator.global_model import global_model
from coordinator.link.ports import open_port
from coordinator.link.session import Session
from tests.firmware.conftest import CompileProgram
from tests.firmware.node.harness import KEYED, NATIVE
from tests.firmware.rounds import hold_round

EXAMPLE = PROJECT_ROOT / "examples" / "mnist" / "federation.toml"
UID = "00000000000000a1"
SAMPLES = 4
TOLERANCE = 0.02
SPARE = 128  # bytes between stack and data that nothing ever touches
AVR, BARE = ("uno", "megaatmega2560"), ("nrf52_dk_bare", "nrf52840_dk_bare")
OTHER = ("megaatmega2560:f32", "nrf52_dk_bare:fixed")  # each in the arithmetic of the other
PARTS = ("boards", "codegen", "coordinator", "examples", "firmware", "platformio.ini")  # what a build reads
RAM = 0x20000000  # where a Cortex-M has it


@dataclass(frozen=True)
class Image:
    """An image as `pio run` leaves it."""

    board: Board
    plan: Plan
    plain: Path  # the image without samples
    elf: Path  # the image with a few samples compiled in
    generated: Path  # model.h, protocol.h, shard.h
    shard: Path  # the same samples as the twin reads them
    weights: bytes  # to begin with

    @property
    def linked(self) -> Linked:
        """What the linker made of the image without samples."""
        return Linked(self.plain, self.board.training.env)


@pytest.fixture(scope="module")
def core(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """PlatformIO's directory with the platforms of our own: the compilers are then the same everywhere."""
    root = tmp_path_factory.mktemp("core")
    with pytest.MonkeyPatch.context() as patch:
        for variable, folder in (("XDG_CONFIG_HOME", ".config"), ("XDG_CACHE_HOME", ".cache")):
            patch.setenv(variable, os.environ.get(variable) or str(Path.home() / folder))
        patch.setenv("HOME", str(root / "home"))
        patch.delenv("PLATFORMIO_CORE_DIR", raising=False)
        seed.seed(root, ("registry.invalid",))
    return root / ".platformio"


@pytest.fixture(scope="module", params=[*AVR, *BARE])
def image(request: pytest.FixtureRequest, core: Path, tmp_path_factory: pytest.TempPathFactory) -> Image:
    folder = tmp_path_factory.mktemp("image")
    name, _, kernel = request.param.partition(":")
    root = with_kernel(name, kernel, folder / "project") if kernel else PROJECT_ROOT
    board, path = boards.load(name, root / "boards"), root / EXAMPLE.relative_to(PROJECT_ROOT)
    described = federation.load(path)
    model = global_model(described)
    plan = best(board, model.graph, described.tier_list(), described.plan_settings())
    dataset = load_dataset(described.data_path, described.data.range)
    samples, labels = dataset.x_train[:SAMPLES], dataset.y_train[:SAMPLES]
    write_shard(folder / "shard.tfs", samples, labels, dataset.classes)
    weights = pack(plan, plan.sub_model.cut(model.weights))
    plain = folder / "plain.elf"
    shutil.copyfile(run_pio(root, path, board, folder, core), plain)
    elf = run_pio(root, path, board, folder, core, folder / "shard.tfs")
    return Image(board, plan, plain, elf, elf.parent / "generated", folder / "shard.tfs", weights)


def with_kernel(name: str, kernel: str, root: Path) -> Path:
    """Make a copy of the project in which a board has another arithmetic; return its folder."""
    for part in PARTS:
        source, target = PROJECT_ROOT / part, root / part
        (shutil.copytree if source.is_dir() else shutil.copyfile)(source, target)
    (root / ".venv").symlink_to(sys.prefix)
    path = root / "boards" / f"{name}.json"
    manifest = json.loads(path.read_text(encoding="utf-8"))
    assert manifest["training"]["kernel"] != kernel
    manifest["training"]["kernel"] = kernel
    path.write_text(json.dumps(manifest), encoding="utf-8")
    return root


def run_pio(
    root: Path, described: Path, board: Board, folder: Path, core: Path, shard: Path | None = None, key: str = ""
) -> Path:
    """Build a board's image for a federation in `folder` from the project in `root`; return the ELF file."""
    env = os.environ | {
        "PLATFORMIO_CORE_DIR": str(core),
        "PLATFORMIO_WORKSPACE_DIR": str(folder),
        "TIERFED_FEDERATION": str(described),
        "TIERFED_SHARD": str(shard or ""),
        "TIERFED_KEY": key,
    }
    command = [sys.executable, "-m", "platformio", "run", "--project-dir", str(root), "-e", board.id]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "build" / board.id / "program.elf"


def test_every_planned_array_is_a_symbol_of_its_size(image: Image) -> None:
    symbols = image.linked.symbols
    planned = {array.name: array.bytes for array in image.plan.arrays}
    assert {name: symbols.get(name) for name in planned} == planned


def test_planned_ram_and_flash_are_what_the_linker_maps(image: Image) -> None:
    assert image.plan.ram - image.board.training.stack == pytest.approx(image.linked.ram, rel=TOLERANCE)
    assert image.plan.flash == pytest.approx(image.linked.flash, rel=TOLERANCE)


@pytest.mark.parametrize("name", ["megaatmega2560", "nrf52840_dk_bare"])
def test_what_streaming_and_rehearsing_take_is_planned(name: str, core: Path, tmp_path: Path) -> None:
    text = EXAMPLE.read_text(encoding="utf-8")
    for file in ("model.py", "mnist-10k.npz"):
        text = text.replace(f'"{file}"', f'"{EXAMPLE.with_name(file)}"')
    path = tmp_path / "federation.toml"
    text = text[: text.index("[aggregation]")] + "[proxy]\nimages = 200\n"
    path.write_text(text + f'[[nodes]]\nboard = "{name}"\nsource = "stream"\n')
    described, board = federation.load(path), boards.load(name)
    plan = best(board, global_model(described).graph, described.tier_list(), described.plan_settings())
    linked = Linked(run_pio(PROJECT_ROOT, path, board, tmp_path, core), board.training.env)
    assert linked.symbols["model_targets"] == 10 * plan.proxy > 0
    assert plan.flash == pytest.approx(linked.flash, rel=TOLERANCE)
    assert plan.ram - board.training.stack == pytest.approx(linked.ram, rel=TOLERANCE)


@pytest.mark.parametrize("image", BARE, indirect=True)
def test_a_cortex_starts_at_reset_with_its_stack_at_the_end_of_its_ram(image: Image, tmp_path: Path) -> None:
    path = tmp_path / "flash.bin"
    subprocess.run(["arm-none-eabi-objcopy", "-O", "binary", image.plain, path], check=True)
    stack, reset, *vectors = np.frombuffer(path.read_bytes()[:256], np.uint32).tolist()
    assert stack == RAM + image.board.ram
    thumb = {name: address | 1 for name, address in image.linked.addresses.items()}
    assert reset == thumb["reset"]
    own = {16 + 2: thumb["uart_interrupt"], 16 + 8: thumb["chip_timer_interrupt"]}
    reserved = dict.fromkeys((7, 8, 9, 10, 13), 0)
    expected = own | reserved
    assert vectors == [expected.get(number, thumb["restart"]) for number in range(2, 64)]


@contextmanager
def running(command: list[str]) -> Iterator[tuple[str, list[str]]]:
    """Start a twin or an emulator; yield its port, and a list that its last words are in afterwards."""
    said: list[str] = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            word, port = process.stdout.readline().split()
            assert word == "PORT"
            yield port, said
        finally:
            process.terminate()
            said += process.stdout.read().splitlines()


async def one_round(port: str, board: Board, classes: int, weights: bytes, key: bytes | None = None) -> bytes:
    """Hold a round as a coordinator does, having been through all of the board's rates; return the update."""
    session = Session(open_port(port, board.training.bauds[0]))
    try:
        hello = await session.hello() if key is None else await session.authenticate(key)
        assert (hello.board, hello.uid.hex(), hello.samples) == (board.id, UID, SAMPLES)
        for baud in sorted(board.training.bauds)[1:]:
            await session.set_baud(baud)
            assert await session.hello() == hello
        return await hold_round(session, hello, classes, weights)
    finally:
        await session.close()


def round_of(command: list[str], image: Image) -> tuple[bytes, list[str]]:
    """Return the update of whatever `command` starts, and its last words."""
    with running(command) as (port, said):
        update = asyncio.run(one_round(port, image.board, image.plan.sub_model.graph.classes, image.weights))
    return update, said


@pytest.mark.parametrize("image", [*AVR, *BARE, *OTHER], indirect=True)
def test_a_round_on_the_chip_is_the_twins_to_the_bit(image: Image, compile_program: CompileProgram) -> None:
    training = image.board.training
    defines = {
        "LINK_MTU": training.mtu, "LINK_WINDOW": training.window, "FIRMWARE_HASH": f"{firmware_hash(PROJECT_ROOT)}UL",
    }  # fmt: skip
    flags = [f"-D{name}={value}" for name, value in defines.items()]
    twin = compile_program(NATIVE, (KEYED, "-O2", f"-I{image.generated}", f"-I{PROJECT_ROOT / 'firmware'}", *flags))
    expected, _ = round_of([str(twin), "--shard", str(image.shard), "--uid", UID], image)
    actual, said = round_of(emulators.command(image.board.training.emulation[-1], image.elf, image.board, UID), image)
    before, after = (
        np.concatenate([tensor.ravel() for tensor in unpack(image.plan, blob)]) for blob in (image.weights, expected)
    )
    assert np.isfinite(after).all() and (before != after).mean() > 0.5
    assert actual == expected
    check_measured(read_measured(said[-1]), image)


def check_measured(measured: Measured, image: Image) -> None:
    """The stack stays within its reserve, and nothing was lost on the wire."""
    assert measured.overruns == 0
    assert measured.stack <= image.board.training.stack
    assert measured.untouched >= max(SPARE, image.board.ram - image.plan.ram)


@pytest.mark.parametrize("name", ["uno", "nrf52840_dk_bare"])
def test_an_image_with_a_key_is_as_planned_and_its_stack_holds_the_macs(name: str, core: Path, tmp_path: Path) -> None:
    described, board = federation.load(EXAMPLE), boards.load(name)
    settings = replace(described.plan_settings(), keyed=frozenset({name}))
    model, dataset = global_model(described), load_dataset(described.data_path, described.data.range)
    plan = best(board, model.graph, described.tier_list(), settings)
    shard, key = tmp_path / "shard.tfs", tmp_path / "node.key"
    write_shard(shard, dataset.x_train[:SAMPLES], dataset.y_train[:SAMPLES], dataset.classes)
    key.write_text("5a" * 32 + "\n")
    elf = run_pio(PROJECT_ROOT, EXAMPLE, board, tmp_path, core, shard, str(key))
    linked = Linked(elf, board.training.env)
    assert plan.ram - board.training.stack == pytest.approx(linked.ram, rel=TOLERANCE)
    assert plan.flash == pytest.approx(linked.flash - SAMPLES * (plan.sub_model.graph.features + 2), rel=TOLERANCE)
    weights, classes = pack(plan, plan.sub_model.cut(model.weights)), plan.sub_model.graph.classes
    with running(emulators.command(board.training.emulation[-1], elf, board, UID)) as (port, said):
        assert asyncio.run(one_round(port, board, classes, weights, bytes.fromhex(key.read_text()))) != weights
    measured = read_measured(said[-1])
    assert (measured.overruns, measured.untouched >= board.ram - plan.ram) == (0, True)
    assert measured.stack <= board.training.stack
