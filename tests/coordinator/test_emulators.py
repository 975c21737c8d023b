"""What emulated chips do to bytes and to time, seen with tiny images. tests/firmware/test_image.py trains on them."""

from __future__ import annotations

import json
import math
import os
import signal
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import serial

import boards
from boards import Board
from coordinator import emulators
from coordinator.emulators import Measured, read_measured

UID = "0123456789abcdef"
SOURCES = Path(__file__).with_name("emulated")
KINDS = {  # how it is emulated: a board, the rate of its image, and what compiles that
    "simavr": ("uno", 250_000, ["avr-gcc", "-mmcu=atmega328p"]),
    "unicorn": (
        "nrf52840_dk_bare",
        1_000_000,
        ["arm-none-eabi-gcc", "-mcpu=cortex-m4", "-mthumb", "-mfpu=fpv4-sp-d16", "-mfloat-abi=hard", "-nostartfiles",
         "-Wl,-e0", "-Wl,--section-start=.vectors=0", "-Wl,-Ttext=0x100", "-Wl,-Tbss=0x20000000"],
    ),
}  # fmt: skip
DEPTH, DUG = 500, 60  # bytes of the stack that `d` takes, and what calls take besides


class Chip:
    """A running emulator, and a host at its rate."""

    def __init__(self, command: list[str], board: Board, baud: int) -> None:
        self.begun = time.monotonic()
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        word, name = self.line().split()
        assert word == "PORT"
        self.board, self.baud = board, baud
        self.port = serial.Serial(name, baud, timeout=10)
        assert self.ask(b"A") == b"B"  # it hears what was sent before it had started

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline()

    def ask(self, sent: bytes, count: int = 1) -> bytes:
        self.port.write(sent)
        return self.port.read(count)

    def measured(self) -> Measured:
        self.process.send_signal(signal.SIGUSR1)
        return read_measured(self.line())

    def seconds(self) -> float:
        """Emulated time."""
        return self.measured().cycles / self.board.frequency_hz

    def end(self) -> tuple[str, str, int]:
        """Return the last words, what went to stderr, and the status."""
        self.port.close()
        self.process.terminate()
        said, complaint = self.process.communicate(timeout=10)
        return said, complaint, self.process.returncode


Start = Callable[..., Chip]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder, built = tmp_path_factory.mktemp("images"), {}
    for kind, (board, _, compiler) in KINDS.items():
        source, built[kind] = SOURCES / f"{boards.load(board).mcu}.c", folder / f"{kind}.elf"
        defined = f"-DF_CPU={boards.load(board).frequency_hz}"
        subprocess.run([*compiler, "-O2", "-Wall", "-Werror", defined, source, "-o", built[kind]], check=True)
    return built


@pytest.fixture
def start(images: dict[str, Path]) -> Iterator[Start]:
    """Start the image of a kind; what is still running afterwards is killed."""
    started: list[Chip] = []

    def begin(kind: str, pace: bool = False) -> Chip:
        board = boards.load(KINDS[kind][0])
        chip = Chip(emulators.command(kind, images[kind], board, UID, pace), board, KINDS[kind][1])
        started.append(chip)
        return chip

    yield begin
    for chip in started:
        chip.port.close()
        chip.process.kill()
        chip.process.communicate()


both = pytest.mark.parametrize("kind", KINDS)


@both
def test_at_another_rate_there_is_only_noise(start: Start, kind: str) -> None:
    chip = start(kind)
    for rate, is_heard in ((0.97, True), (1.03, True), (0.9, False), (1.1, False), (1.0, True)):
        chip.port.baudrate = round(chip.baud * rate)
        assert (chip.ask(b"\x11") == b"\x12") == is_heard, rate


@both
def test_it_says_what_it_measures_when_asked_and_when_it_ends(start: Start, kind: str) -> None:
    chip = start(kind)
    first = chip.measured()
    assert chip.ask(b"d") == b"e"
    second = chip.measured()
    assert 0 < first.awake < first.cycles < second.cycles
    assert first.stack < DEPTH <= second.stack <= DEPTH + DUG
    assert first.stack + first.untouched == second.stack + second.untouched
    assert second.overruns == 0
    said, complaint, status = chip.end()
    last = read_measured(said)
    assert last.cycles >= second.cycles and replace(last, cycles=0, awake=0) == replace(second, cycles=0, awake=0)
    assert (complaint, status) == ("", 0)


@both
def test_paced_it_is_never_ahead_of_the_wall(start: Start, kind: str) -> None:
    chip = start(kind, pace=True)
    for command in (b"A", b"b"):  # b: it works for ever
        chip.port.write(command)
        for _ in range(20):
            time.sleep(0.01)
            assert 0 < chip.seconds() <= time.monotonic() - chip.begun


@both
@pytest.mark.parametrize("pace", [False, True])
def test_asleep_it_leaves_the_host_alone(start: Start, kind: str, pace: bool) -> None:
    chip = start(kind, pace)
    before, since = processor_time(chip.process.pid), chip.seconds()
    time.sleep(0.5)
    assert processor_time(chip.process.pid) - before < 0.1
    assert chip.seconds() - since > 0.3
    assert chip.ask(b"A") == b"B"


def processor_time(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().split()
    return sum(map(int, fields[13:15])) / os.sysconf("SC_CLK_TCK")


@both
def test_bytes_that_nobody_takes_in_time_are_counted(start: Start, kind: str) -> None:
    chip = start(kind)
    kept = {"simavr": 2, "unicorn": 6}[kind]  # as many as the UART has room for
    sent = bytes(range(0x10, 0x1A))
    assert chip.ask(b"h" + sent, 2)[:1] == b"i"
    while chip.measured().overruns < len(sent) - kept:
        time.sleep(0.01)
    assert chip.measured().overruns == len(sent) - kept


def test_a_chip_that_resets_itself_keeps_its_id_and_its_ram(start: Start) -> None:
    chip = start("unicorn")
    uid, starts = struct.unpack("<8sI", chip.ask(b"i", 12))
    assert uid.hex() == UID
    chip.port.write(b"r")
    assert struct.unpack("<8sI", chip.ask(b"i", 12)) == (uid, (starts + 1) % 2**32)


def test_an_interrupt_disturbs_no_float(start: Start) -> None:
    chip = start("unicorn")
    alone = chip.ask(b"f", 4)
    disturbed = [chip.ask(b"f" + b"n" * 200, 4) for _ in range(3)]
    assert math.isfinite(struct.unpack("<f", alone)[0])
    assert disturbed == [alone] * 3


def test_what_is_not_emulated_is_named(start: Start) -> None:
    chip = start("unicorn")
    chip.port.write(b"u")
    assert chip.process.wait(timeout=10) == 2
    _, complaint, _ = chip.end()
    assert "4 bytes, 0x1, are written to 0x40010504, which is not emulated; pc 0x" in complaint


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nrf52840"], "usage: nrf52 IMAGE nrf52832|nrf52840"),
        (["IMAGE", "nrf51822"], "chip is nrf51822; expected nrf52832 or nrf52840"),
        (["IMAGE", "nrf52840", "--uid", "12"], "--uid is 12; expected 16 hexadecimal digits"),
        (["IMAGE", "nrf52840", "--fast"], "usage:"),
        (["/dev/null", "nrf52840"], "/dev/null is no ELF file for ARM"),
        (["AVR", "nrf52840"], "is no ELF file for ARM"),
    ],
)
def test_what_it_is_told_wrongly(images: dict[str, Path], arguments: list[str], said: str) -> None:
    files = {"IMAGE": str(images["unicorn"]), "AVR": str(images["simavr"])}
    command = [str(emulators.build("unicorn")), *(files.get(argument, argument) for argument in arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr


def test_measured_is_a_line_of_json() -> None:
    values = {"cycles": 5, "awake": 4, "stack": 3, "untouched": 2, "overruns": 1}
    assert read_measured(json.dumps(values)) == Measured(**values)
