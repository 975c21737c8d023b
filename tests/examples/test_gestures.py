"""The gestures: the C that records them, held to numpy; the recording; and that hands it never saw are understood."""

import asyncio
import ctypes
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import boards
from boards import PROJECT_ROOT
from codegen.build import generate
from coordinator import emulation, federation, runs
from coordinator.data import load_dataset
from coordinator.emulation import Twins
from coordinator.global_model import global_model
from coordinator.results import Summary
from coordinator.shares import deal
from examples.gestures import simulate
from tests.firmware.conftest import FIRMWARE, CompileProgram, CompileShared, compile_program, compile_shared
from tests.firmware.ports.cores import flags_for

__all__ = ["compile_program", "compile_shared"]

EXAMPLE = PROJECT_ROOT / "examples" / "gestures"
BYTES, BOOT = 192, 2**32 - 3000  # ms: the clock wraps while it records
HELD, WINDOW = 400, 63 * 20  # ms from the press to the LED, and from the LED to the last reading

Array = np.ndarray[Any, np.dtype[Any]]
Reading = Callable[[int], Array | None]  # what the chip has at a millisecond, in g, if it has not been read yet


class Recorder(ctypes.Structure):
    """`struct gestures`."""

    _fields_ = (
        ("state", ctypes.c_int), ("pressed", ctypes.c_bool), ("since", ctypes.c_uint32), ("blinked", ctypes.c_uint32),
        ("begun", ctypes.c_uint32), ("label", ctypes.c_uint16), ("taken", ctypes.c_uint16),
        ("window", ctypes.c_uint8 * BYTES),
    )  # fmt: skip


@dataclass
class Board:
    """The C, called as sensor.cpp calls it, once a millisecond."""

    c: ctypes.CDLL
    recorder: Recorder = field(default_factory=Recorder)
    lit: list[bool] = field(default_factory=list)  # the LED, by the millisecond

    def __post_init__(self) -> None:
        for name in ("gestures_due", "gestures_take", "gestures_led"):
            getattr(self.c, name).restype = ctypes.c_bool
        self.c.gestures_start(ctypes.byref(self.recorder), BOOT)

    def record(self, button: list[bool], reading: Reading) -> Iterator[tuple[int, Array, int]]:
        """Yield time, bytes and label of every window; times are ms since this call."""
        recorder = ctypes.byref(self.recorder)
        for at, pressed in enumerate(button):
            now = ctypes.c_uint32(BOOT + len(self.lit))
            self.c.gestures_button(recorder, now, pressed)
            self.lit.append(self.c.gestures_led(recorder, now))
            felt = reading(at) if self.c.gestures_due(recorder, now) else None
            if felt is not None and self.c.gestures_take(recorder, now, (ctypes.c_float * 3)(*felt)):
                yield at, np.array(self.recorder.window).reshape(64, 3), self.recorder.label


@pytest.fixture
def board(compile_shared: CompileShared) -> Board:
    return Board(compile_shared([EXAMPLE / "sensor" / "gestures.c"]))


def still(_: int) -> Array:
    return np.zeros(3)


def spans(*milliseconds: int) -> list[bool]:
    """A button that is up first, then down, then up …"""
    return [index % 2 == 1 for index, length in enumerate(milliseconds) for _ in range(length)]


TAP, HOLD = (200, 100), (200, 2000)
LIT = 200 + HELD  # ms from the beginning of a HOLD
BUTTONS: dict[str, tuple[tuple[int, ...], list[int]]] = {
    "nothing": ((5000,), []),
    "a hold": (HOLD, [0]),
    "a tap and a hold": ((*TAP, *HOLD), [1]),
    "two taps": ((*TAP, *TAP, *HOLD), [2]),
    "three taps are none": ((*TAP, *TAP, *TAP, *HOLD), [0]),
    "a hold is one window": ((200, 9000), [0]),
    "the label stays": ((*TAP, *HOLD, *HOLD, *TAP, *HOLD), [1, 1, 2]),
    "let go in the middle": ((200, 1000, *HOLD), [0]),
    "bounces are no taps": ((200, 3, 2, 5, 1, 19, *HOLD), [0]),
    "a hold that bounces": ((200, 4, 3, 2000, 5, 4, *HOLD), [0, 0]),
}


@pytest.mark.parametrize("case", BUTTONS)
def test_what_the_button_means(board: Board, case: str) -> None:
    button, labels = BUTTONS[case]
    assert [label for _, _, label in board.record([*spans(*button), *[False] * 100], still)] == labels


def test_the_led_is_lit_while_a_window_is_open(board: Board) -> None:
    ((done, _, _),) = board.record(spans(1000, 3000), still)
    assert done == 1000 + HELD + WINDOW
    assert [at for at, lit in enumerate(board.lit) if lit and at >= 1000] == list(range(1000 + HELD, done + 1))


@pytest.mark.parametrize("taps", [0, 1, 2, 3])
def test_the_led_blinks_the_label(board: Board, taps: int) -> None:
    assert not list(board.record([*spans(*[2000, 100] * taps), *[False] * 3000], still))
    last = board.lit[2100 * taps :]
    assert sum(lit and not before for before, lit in itertools.pairwise([False, *last])) == taps % 3 + 1


@pytest.mark.parametrize("kind", range(3), ids=simulate.KINDS)
def test_windows_are_what_numpy_makes_of_the_readings(board: Board, kind: int) -> None:
    """The newest reading at every 20 ms, rounded to the nearest byte."""
    rng = np.random.default_rng(5)
    times, felt = simulate.readings(simulate.person(rng), kind, rng)
    read = [-1]

    def reading(at: int) -> Array | None:
        newest = int((times <= (at - LIT) / 1000).sum()) - 1
        new, read[0] = newest != read[0], newest
        return felt[newest] if new else None

    ((_, window, _),) = board.record(spans(*HOLD), reading)
    expected = [felt[times <= 0.02 * step][-1] for step in range(64)]
    np.testing.assert_array_equal(window, np.rint((np.array(expected) + 4) * 255 / 8))


@pytest.mark.parametrize(
    ("felt", "byte"),
    [(-4.0, 0), (-4.1, 0), (4.0, 255), (4.1, 255), (0.0, 128), (1.0, 159), (1e30, 255), (np.inf, 255), (-np.inf, 0),
     (np.nan, 0)],
)  # fmt: skip
def test_bytes_at_the_edges(board: Board, felt: float, byte: int) -> None:
    ((_, window, _),) = board.record(spans(*HOLD), lambda _: np.full(3, felt))
    assert set(window.ravel().tolist()) == {byte}


@pytest.mark.parametrize(("pause", "windows"), [(19, 1), (20, 0), (3000, 0)])
def test_a_window_without_rhythm_is_dropped(board: Board, pause: int, windows: int) -> None:
    """The firmware calls nobody while it trains."""
    begins = LIT + 500
    found = list(board.record(spans(200, 5000), lambda at: None if 0 <= at - begins < pause else np.zeros(3)))
    assert len(found) == windows
    assert not board.lit[-1]


def test_the_sensor_compiles_for_the_board(compile_program: CompileProgram, tmp_path: Path) -> None:
    described = federation.load(EXAMPLE / "federation.toml")
    model, settings = global_model(described), described.plan_settings()
    generate(boards.load("nano33ble"), model.graph, model.weights, described.tier_list(), settings, tmp_path)
    flags = (*flags_for("mbed"), f"-I{tmp_path}", f"-I{FIRMWARE}", "-mcpu=cortex-m4", "-mthumb", "-O2")
    (sketch,) = (EXAMPLE / "sensor").glob("*.cpp")
    compile_program([sketch], (*flags, "-c"), "arm-none-eabi-g++")
    compile_program([EXAMPLE / "sensor" / "gestures.c"], (*flags, "-c"), "arm-none-eabi-gcc")


# The recording


def test_the_recording_is_what_the_simulation_makes(tmp_path: Path) -> None:
    simulate.main(tmp_path / "again.npz")
    with np.load(EXAMPLE / "recording.npz") as kept, np.load(tmp_path / "again.npz") as made:
        assert sorted(kept) == sorted(made)
        for key in kept:
            assert np.abs(kept[key].astype(int) - made[key]).max() <= 1, key  # a sine's last bit is the machine's


def test_the_bytes_are_taken_back_to_themselves(board: Board) -> None:
    """What a twin trains on, felt by the chip, becomes the same bytes."""
    data = load_dataset(EXAMPLE / "recording.npz", (-4.0, 4.0))
    for window in data.x_test[::20]:
        felt = data.decode(window)
        ((_, found, _),) = board.record(spans(*HOLD), lambda at, felt=felt: felt[(at - LIT) // 20])  # type: ignore[misc]
        np.testing.assert_array_equal(found, window)


def test_a_person_is_a_node() -> None:
    described = federation.load(EXAMPLE / "federation.toml")
    with np.load(EXAMPLE / "recording.npz") as recording:
        for person, share in enumerate(deal(described).values()):
            own = recording["x_train"][recording["owner_train"] == person]
            assert sorted(window.tobytes() for window in share.x) == sorted(window.tobytes() for window in own)


@pytest.mark.e2e
def test_strangers_are_understood(tmp_path: Path) -> None:
    described = federation.load(EXAMPLE / "federation.toml")
    programs = emulation.build(described, tmp_path / "pio")

    async def play() -> Summary:
        async with Twins(described, programs, tmp_path / "shards") as twins:
            return await runs.run(described, twins.ports, tmp_path)

    summary = asyncio.run(play())
    assert summary.rounds_aggregated == described.training.rounds
    assert min(summary.accuracy.values()) > 0.9
