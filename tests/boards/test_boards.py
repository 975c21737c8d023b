"""Board files: what vendors say, what PlatformIO needs, and what a bad file gets."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from platformio.platform.board import PlatformBoardConfig
from platformio.project.config import ProjectConfig

import boards
from boards import BoardError

KIB = 1024
# id: MCU, MHz, RAM and flash as PlatformIO's official platforms give them (without bootloader or SoftDevice), platform
VENDORS = {
    "uno": ("atmega328p", 16, 2 * KIB, 32_256, "atmelavr"),
    "megaatmega2560": ("atmega2560", 16, 8 * KIB, 253_952, "atmelavr"),
    "uno_r4_minima": ("ra4m1", 48, 32 * KIB, 256 * KIB, "renesas-ra"),
    "nrf52_dk": ("nrf52832", 64, 64 * KIB, 512 * KIB, "nordicnrf52"),
    "nrf52840_dk": ("nrf52840", 64, 256 * KIB, 1024 * KIB, "nordicnrf52"),
    "nrf52_dk_bare": ("nrf52832", 64, 64 * KIB, 512 * KIB, "nordicnrf52"),
    "nrf52840_dk_bare": ("nrf52840", 64, 256 * KIB, 1024 * KIB, "nordicnrf52"),
    "nano33ble": ("nrf52840", 64, 256 * KIB, 960 * KIB, "nordicnrf52"),
    "adafruit_feather_nrf52840": ("nrf52840", 64, 243 * KIB, 796 * KIB, "nordicnrf52"),
    "esp32dev": ("esp32", 240, 320 * KIB, 4096 * KIB, "espressif32"),
    "esp32-s3-devkitc-1": ("esp32s3", 240, 320 * KIB, 8192 * KIB, "espressif32"),
    "esp32-c3-devkitm-1": ("esp32c3", 160, 320 * KIB, 4096 * KIB, "espressif32"),
}
BARE = {"nrf52_dk_bare": "nrf52_dk", "nrf52840_dk_bare": "nrf52840_dk"}  # without a framework: the kit with one
# what the official platforms' build scripts read without a default, or with one that is wrong for the board
BUILDER_KEYS = {
    "atmelavr": ("build.core", "build.variant", "build.extra_flags", "upload.protocol", "upload.speed"),
    "nordicnrf52": ("build.core", "build.variant", "build.cpu", "build.arduino.ldscript", "upload.protocol"),
    "espressif32": ("build.core", "build.variant", "build.arduino.ldscript", "build.flash_mode", "build.f_flash"),
    "renesas-ra": ("build.core", "build.variant", "build.cpu", "build.arduino.ldscript", "upload.offset_address"),
    "bare": ("build.cpu", "build.ldscript", "upload.protocol", "debug.jlink_device"),
}
MEMORY = re.compile(r"(flash|ram) \((?:rx|rwx)\) *: ORIGIN = (0x[0-9A-F]{8}), LENGTH = (\d+)([KM])")


@pytest.fixture(scope="module")
def config() -> ProjectConfig:
    return ProjectConfig(str(boards.PROJECT_ROOT / "platformio.ini"), parse_extra=False)


def test_every_board_is_in_the_table() -> None:
    assert boards.board_ids() == sorted(VENDORS)
    assert [board.ram for board in boards.all_boards()] == sorted(board.ram for board in boards.all_boards())


@pytest.mark.parametrize("board_id", VENDORS)
def test_facts_are_the_vendors(board_id: str) -> None:
    board = boards.load(board_id)
    found = (board.mcu, board.frequency_hz // 10**6, board.ram, board.flash, board.training.env)
    assert found == VENDORS[board_id]
    training = board.training
    assert training.framework_ram < training.static_ram <= board.ram
    assert training.framework_ram + training.stack < board.ram


@pytest.mark.parametrize("board_id", VENDORS)
def test_platformio_reads_the_manifest(board_id: str) -> None:
    manifest = PlatformBoardConfig(str(boards.BOARDS_DIR / f"{board_id}.json"))
    board, brief = boards.load(board_id), manifest.get_brief_data()
    assert (brief["ram"], brief["rom"], brief["fcpu"]) == (board.ram, board.flash, board.frequency_hz)
    assert (brief["mcu"], brief["platform"]) == (board.mcu.upper(), board.training.env)
    assert (board_id in BARE) == ("arduino" not in brief["frameworks"])
    for key in BUILDER_KEYS["bare" if board_id in BARE else board.training.env]:
        assert manifest.get(key), key


@pytest.mark.parametrize("board_id", VENDORS)
def test_platformio_has_the_board_and_its_twin(board_id: str, config: ProjectConfig) -> None:
    real, twin = f"env:{board_id}", f"env:native_{board_id}"
    assert config.get(real, "board") == board_id
    assert config.get(real, "platform") == boards.load(board_id).training.env
    assert config.get(real, "framework", []) == ([] if board_id in BARE else ["arduino"])
    assert (config.get(twin, "platform"), config.get(twin, "custom_board")) == ("native", board_id)
    for section, port in ((real, "nrf52" if board_id in BARE else "arduino"), (twin, "native")):
        assert f"+<ports/{port}/>" in config.get(section, "build_src_filter")[0]


@pytest.mark.parametrize("board_id", BARE)
def test_a_linker_script_has_the_chips_memories(board_id: str) -> None:
    board, path = boards.load(board_id), json.loads((boards.BOARDS_DIR / f"{board_id}.json").read_text())["build"]
    script = (boards.PROJECT_ROOT / path["ldscript"]).read_text()
    memories = {
        name: (int(origin, 16), int(length) * {"K": KIB, "M": KIB * KIB}[unit])
        for name, origin, length, unit in MEMORY.findall(script)
    }
    assert memories == {"flash": (0, board.flash), "ram": (0x20000000, board.ram)}


@pytest.mark.parametrize(("board_id", "kit"), BARE.items())
def test_a_kit_is_the_same_with_and_without_a_framework(board_id: str, kit: str) -> None:
    bare, arduino = boards.load(board_id).training, boards.load(kit).training
    assert (bare.bauds, bare.usb, bare.kernel) == (arduino.bauds, arduino.usb, arduino.kernel)


def test_default_environments_are_twins(config: ProjectConfig) -> None:
    defaults = config.get("platformio", "default_envs")
    assert set(defaults) == {f"native_{board_id}" for board_id in VENDORS}


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("training", None, r"training is missing; expected an object"),
        ("training", [1], r"training is \[1\]; expected an object"),
        ("build.f_cpu", 16_000_000, r"build.f_cpu is 16000000; expected hertz as in \"16000000L\""),
        ("build.mcu", "", r"build.mcu is \"\"; expected a text"),
        ("upload.maximum_ram_size", True, r"upload.maximum_ram_size is true; expected a whole number from 256"),
        ("upload.maximum_ram_size", 1e400, r"maximum_ram_size is Infinity; expected a whole number"),
        ("upload.maximum_size", None, r"upload.maximum_size is missing"),
        ("platform", None, r"platform is missing; expected a text"),
        ("url", None, r"url is missing"),
        ("training.kernel", "f64", r"training.kernel is \"f64\"; expected f32 or fixed"),
        ("training.kernel", {}, r"training.kernel is {}; expected f32 or fixed"),
        ("training.mtu", 249, r"training.mtu is 249; expected a whole number from 74 to 248"),
        ("training.window", 0, r"training.window is 0; expected a whole number from 1 to 32"),
        ("training.bauds", [], r"training.bauds is \[\]; expected at least one baud rate"),
        ("training.bauds", ["fast"], r"training.bauds is \[\"fast\"\]; expected a list of baud rates"),
        ("training.framework_ram", 9000, r"training.framework_ram is 9000; expected a whole number from 0 to 8192"),
        ("training.static_ram", -1, r"training.static_ram is -1"),
        ("training.cycles_per_mac", float("nan"), r"training.cycles_per_mac is NaN; expected a positive number"),
        ("training.usb", ["2341:42"], r"training.usb .* expected a list of ids as \"2341:0042\""),
        ("training.emulation", ["qemu"], r"training.emulation .* expected a list of any of native"),
        ("training.framework_rom", 1, r"training.framework_rom is 1; expected no such key; known: bauds"),
    ],
)
def test_a_wrong_field_is_named(tmp_path: Path, path: str, value: Any, message: str) -> None:
    manifest = json.loads((boards.BOARDS_DIR / "megaatmega2560.json").read_text())
    *parents, last = path.split(".")
    table = manifest
    for key in parents:
        table = table[key]
    if value is None:
        del table[last]
    else:
        table[last] = value
    (tmp_path / "mine.json").write_text(json.dumps(manifest))
    with pytest.raises(BoardError, match=rf"mine\.json: .*{message}"):
        boards.load("mine", tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"mine.json:1: not JSON"),
        (b'{\n"name": }', r"mine.json:2: not JSON"),
        (b"\xff\xfe", r"mine.json: cannot be read .* expected a board manifest in JSON"),
        (b"[" * 100_000, r"mine.json: cannot be read"),
        (b"9" * 5000, r"mine.json: "),
        (b"null", r"mine.json: the file is missing; expected an object"),
        (b"[]", r"mine.json: the file is \[\]; expected an object"),
    ],
)
def test_a_file_that_is_no_manifest(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "mine.json").write_bytes(content)
    with pytest.raises(BoardError, match=message):
        boards.load("mine", tmp_path)


@pytest.mark.parametrize("board_id", ["", "unknown", "../boards/uno", "uno.json", "Uno"])
def test_an_unknown_board_lists_the_known(board_id: str) -> None:
    with pytest.raises(BoardError, match=r"no board .*; known: .*megaatmega2560.*uno"):
        boards.load(board_id)


def test_an_id_is_plain(tmp_path: Path) -> None:
    (tmp_path / "My Board.json").write_text((boards.BOARDS_DIR / "uno.json").read_text())
    with pytest.raises(BoardError, match="expected lower-case letters"):
        boards.load("My Board", tmp_path)
