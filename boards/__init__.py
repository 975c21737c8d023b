"""Boards: what hardware there is, read from `boards/<id>.json`.

A board file is PlatformIO's own manifest with one more object, `training`. docs/boards.md says where each number in
them comes from.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

BOARDS_DIR = Path(__file__).resolve().parent
PROJECT_ROOT = BOARDS_DIR.parent

MTU_RANGE = range(74, 249)  # payload bytes of a frame that firmware/link can be built for
WINDOW_RANGE = range(1, 33)  # chunks in flight
KERNELS = ("f32", "fixed")
EMULATIONS = ("native", "simavr", "unicorn")

_ID = re.compile(r"[a-z0-9][a-z0-9_-]*")
_USB = re.compile(r"[0-9a-f]{4}:[0-9a-f]{4}")
_HERTZ = re.compile(r"([0-9]{1,10})L?")
_LARGEST = 2**32 - 1


class BoardError(Exception):
    """A board that is not known, or a board file that cannot be used; one sentence for the user."""


@dataclass(frozen=True)
class Training:
    """What training needs to know of a board, beyond what PlatformIO does.

    `framework_ram` and `framework_flash` are the bytes that the framework and the fixed part of our firmware take: no
    model array, no link buffer, no stack. `static_ram` is how much of the RAM the linker may fill. `bauds` are those
    that the board holds without errors, the first being the one at boot; over native USB the number is nominal.
    `usb` are "vid:pid" in lower-case hex. `env` is the PlatformIO platform that builds for the real board.
    """

    kernel: str
    bauds: tuple[int, ...]
    mtu: int
    window: int
    framework_ram: int
    framework_flash: int
    static_ram: int
    stack: int
    cycles_per_mac: float
    cycles_per_sample: int
    usb: tuple[str, ...]
    emulation: tuple[str, ...]
    env: str


@dataclass(frozen=True)
class Board:
    """A kind of hardware; `ram` and `flash` in bytes, as PlatformIO counts them for the board."""

    id: str
    name: str
    mcu: str
    frequency_hz: int
    ram: int
    flash: int
    training: Training


def board_ids(directory: Path = BOARDS_DIR) -> list[str]:
    """Ids of all boards in the directory, sorted."""
    return sorted(path.stem for path in directory.glob("*.json"))


def load(board_id: str, directory: Path = BOARDS_DIR) -> Board:
    """Read and check one board file. BoardError if there is none of that id, or if it is malformed."""
    known = board_ids(directory)
    if board_id not in known:
        raise BoardError(f'no board "{board_id}" in {directory}; known: {", ".join(known) or "none"}')
    path = directory / f"{board_id}.json"
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise BoardError(f"{path}:{error.lineno}: not JSON ({error.msg}); expected a board manifest") from None
    except (OSError, ValueError, RecursionError) as error:
        raise BoardError(f"{path}: cannot be read ({error}); expected a board manifest in JSON") from None
    return _board(board_id, _Table(path, "", manifest))


def all_boards(directory: Path = BOARDS_DIR) -> list[Board]:
    """Every board, from the least RAM to the most."""
    boards = [load(board_id, directory) for board_id in board_ids(directory)]
    return sorted(boards, key=lambda board: (board.ram, board.flash, board.id))


@dataclass(frozen=True)
class _Table:
    """An object of a board file, with where it stands, so that an error can name it."""

    file: Path
    prefix: str
    values: Any

    def __post_init__(self) -> None:
        if not isinstance(self.values, dict):
            self.fail("", self.values, "an object")

    def fail(self, key: str, found: object, expected: str) -> None:
        where = f"{self.prefix}{key}".rstrip(".") or "the file"
        shown = "missing" if found is None else f"{json.dumps(found)[:60]}"
        raise BoardError(f"{self.file}: {where} is {shown}; expected {expected}")

    def get(self, key: str, valid: Callable[[Any], bool], expected: str, default: object = None) -> Any:
        value = self.values.get(key, default)
        if not valid(value):
            self.fail(key, value, expected)
        return value

    def table(self, key: str) -> _Table:
        return _Table(self.file, f"{self.prefix}{key}.", self.values.get(key))

    def text(self, key: str) -> str:
        return str(self.get(key, lambda v: isinstance(v, str) and 0 < len(v) < 200, "a text"))

    def whole(self, key: str, low: int, high: int, default: int | None = None) -> int:
        def valid(value: Any) -> bool:
            return type(value) is int and low <= value <= high

        return int(self.get(key, valid, f"a whole number from {low} to {high}", default))

    def number(self, key: str) -> float:
        def valid(value: Any) -> bool:
            return type(value) in (int, float) and math.isfinite(value) and 0 < value < 1e6

        return float(self.get(key, valid, "a positive number"))

    def items(self, key: str, valid: Callable[[Any], bool], expected: str) -> tuple[Any, ...]:
        value = self.get(key, lambda v: isinstance(v, list) and all(map(valid, v)), f"a list of {expected}")
        return tuple(value)


def _board(board_id: str, manifest: _Table) -> Board:
    if not _ID.fullmatch(board_id):
        raise BoardError(f"{manifest.file}: the name is the board's id; expected lower-case letters, digits, _ and -")
    build, upload = manifest.table("build"), manifest.table("upload")
    ram = upload.whole("maximum_ram_size", 256, _LARGEST)
    flash = upload.whole("maximum_size", 1024, _LARGEST)
    hertz = build.get("f_cpu", lambda v: isinstance(v, str) and bool(_HERTZ.fullmatch(v)), 'hertz as in "16000000L"')
    for key in ("url", "vendor"):  # PlatformIO refuses a board without them
        manifest.text(key)
    return Board(
        id=board_id,
        name=manifest.text("name"),
        mcu=build.text("mcu"),
        frequency_hz=int(hertz.rstrip("L")),
        ram=ram,
        flash=flash,
        training=_training(manifest.table("training"), ram, flash, manifest.text("platform")),
    )


def _training(table: _Table, ram: int, flash: int, platform: str) -> Training:
    known = set(Training.__dataclass_fields__) - {"env"}
    for key in table.values.keys() - known:
        table.fail(key, table.values[key], f"no such key; known: {', '.join(sorted(known))}")
    bauds = table.items("bauds", lambda v: type(v) is int and 300 <= v <= 12_000_000, "baud rates")
    if not bauds:
        table.fail("bauds", [], "at least one baud rate")
    return Training(
        kernel=table.get("kernel", KERNELS.__contains__, " or ".join(KERNELS)),
        bauds=bauds,
        mtu=table.whole("mtu", MTU_RANGE[0], MTU_RANGE[-1]),
        window=table.whole("window", WINDOW_RANGE[0], WINDOW_RANGE[-1]),
        framework_ram=table.whole("framework_ram", 0, ram),
        framework_flash=table.whole("framework_flash", 0, flash),
        static_ram=table.whole("static_ram", 256, ram, default=ram),
        stack=table.whole("stack", 0, ram),
        cycles_per_mac=table.number("cycles_per_mac"),
        cycles_per_sample=table.whole("cycles_per_sample", 0, _LARGEST),
        usb=table.items("usb", lambda v: isinstance(v, str) and bool(_USB.fullmatch(v)), 'ids as "2341:0042"'),
        emulation=table.items("emulation", EMULATIONS.__contains__, f"any of {', '.join(EMULATIONS)}"),
        env=platform,
    )
