"""What the Arduino port does on every core, on this machine: the port and a node, above cores that behave as the real
ones do towards a host (board.cpp), in a time of their own (world.h)."""

from __future__ import annotations

import ctypes
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from codegen.prebuild import shard_header
from codegen.protocol import Commit, FrameType, Hello, HelloRequest, Message, State, Status, StatusRequest, Train
from coordinator.link.frames import Decoder, Frame, encode
from tests.firmware.conftest import FIRMWARE, CompileProgram
from tests.firmware.node.harness import (
    NODE,
    SAMPLES,
    Build,
    begin_of,
    build,
    decode,
    fixed_weights,
    frame_of,
    setup,
    shard,
)  # fmt: skip
from tests.firmware.ports.cores import CORES, PORT, RATES, flags_for

HERE = Path(__file__).parent
UARTS = ("nrf5", "esp32")
NEEDS_DTR = ("adafruit", "mbed", "esp32-usbcdc")
IDENTITIES = {  # the chip's own as board.cpp has them: the first byte is the least significant
    "esp32": "1122334455660000", "nrf5": "1122334455667788", "adafruit": "1122334455667788", "mbed": "1122334455667788",
    "renesas": "8d651496197b5f9b",  # FNV-1a of all sixteen bytes
}  # fmt: skip
MEASURES = ("lost", "hung", "begins", "ends", "rate", "yields", "longest_ms", "now_ms", "coming")
ECHO = FrameType.DATA


class Board:
    """A core with the port and a node on it, not yet set up. Each is a copy of its own, as after a reset."""

    def __init__(self, library: Path) -> None:
        self.library = ctypes.CDLL(str(library))
        self.library.world_receive.restype = ctypes.c_uint32
        self.library.port_read.restype = ctypes.c_int16
        self.library.port_boot_id.restype = ctypes.c_uint32
        self.library.port_baud_supported.restype = ctypes.c_bool
        self._decoder = Decoder()

    def host(self, *, reads: bool = True, patient: bool = False, dtr: bool = True) -> None:
        """Say whether the host reads, whether it first wants to get rid of its own, and whether it raises DTR."""
        self.library.world_host(reads, patient, dtr)

    def start(self) -> None:
        self._sketch("setup")()

    def loop(self, turns: int = 1) -> None:
        turn = self._sketch("loop")
        for _ in range(turns):
            turn()

    def _sketch(self, name: str) -> Callable[[], None]:
        """Return setup or loop: most cores declare them as C's, Espressif's as C++'s."""
        mangled = f"_Z{len(name)}{name}v"
        function: Callable[[], None] = getattr(self.library, mangled if hasattr(self.library, mangled) else name)
        return function

    def measure(self, name: str) -> int:
        values = (ctypes.c_uint32 * len(MEASURES))()
        self.library.world_measure(values)
        return values[MEASURES.index(name)]

    def send(self, data: bytes) -> None:
        """Let the host send."""
        self.library.world_send(data, len(data))

    def take(self) -> bytes:
        """Return what the host has read."""
        self.library.world_advance(100_000)
        room = ctypes.create_string_buffer(1 << 16)
        count = self.library.world_receive(room, len(room))
        return room.raw[:count]

    def frames(self) -> list[Frame]:
        return self._decoder.feed(self.take())

    def write(self, data: bytes) -> None:
        """Let the node write."""
        self.library.port_write(data, ctypes.c_uint16(len(data)))

    def read(self) -> bytes:
        """Let the node read all there is."""
        taken = bytearray()
        while (byte := self.library.port_read()) >= 0 or self.measure("coming"):
            taken += bytes([byte]) if byte >= 0 else b""
            self.library.world_advance(10)
        return bytes(taken)

    def ask(self, message: Message, transfer: int = 1) -> Message:
        """Let the host send a request, and return the answer to it."""
        self.send(frame_of(message, transfer))
        for _ in range(1000):
            self.loop()
            for frame in self.frames():
                if frame.transfer == transfer:
                    return decode(frame)
        raise AssertionError(f"no answer to {message}")


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Build:
    folder = tmp_path_factory.mktemp("arduino")
    (folder / "shard.h").write_text(shard_header(shard(), "shard"))
    return replace(build("fixed", folder), rates=RATES)


@pytest.fixture(params=CORES)
def core(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def board(core: str, built: Build, compile_program: CompileProgram, tmp_path: Path) -> Board:
    sources = (*NODE, *sorted((FIRMWARE / "ports" / "common").glob("*.c")))
    flags = ("-O2", "-fPIC", *built.flags)
    node = compile_program(sources, (*flags, "-r", "-nostdlib"))
    parts = (*PORT, HERE / "board.cpp", HERE / "world.cpp", node)
    flags = ("-O1", "-fPIC", "-shared", "-DSTAND_IN_RUNS", *built.flags, *flags_for(core))
    library = compile_program(parts, flags, "g++")
    return Board(Path(shutil.copy(library, tmp_path / "board.so")))


def test_a_host_that_reads_nothing_is_taken_for_gone_until_it_reads(board: Board) -> None:
    board.host()
    board.start()
    board.host(reads=False)
    for number in range(20):
        board.write(encode(ECHO, number, 0, bytes(60)))
    assert not board.measure("hung")
    assert board.measure("now_ms") < 2500  # one second of patience, not one a frame
    board.host(reads=True)
    board.take()
    last = encode(ECHO, 99, 0, b"after all")
    board.write(last)
    board.loop(3)
    assert board.frames()[-1].payload == b"after all"


@pytest.mark.parametrize("patient", [False, True], ids=["reads", "sends-first"])
def test_what_comes_while_it_writes_is_kept(board: Board, patient: bool) -> None:
    board.host()
    board.start()
    board.host(patient=patient)
    coming, frame = bytes(index % 251 for index in range(240)), encode(ECHO, 1, 0, bytes(72))
    board.send(coming)
    for _ in range(4):
        board.write(frame)
    assert board.read() == coming
    assert not board.measure("lost") and not board.measure("hung")
    board.loop(3)
    assert len(board.frames()) == 4


def test_it_starts_without_a_host_and_answers_as_soon_as_it_can(core: str, board: Board) -> None:
    board.host(dtr=False)
    board.start()
    assert board.measure("now_ms") < 100
    if core in NEEDS_DTR:  # the host raises it after a silence
        board.send(frame_of(HelloRequest(1), 1))
        board.loop(10)
        assert not board.frames()
        board.host(dtr=True)
    assert isinstance(board.ask(HelloRequest(1)), Hello)


def test_a_rate_is_a_uarts(core: str, board: Board) -> None:
    board.host()
    board.start()
    assert board.measure("begins") == 1
    assert not board.library.port_baud_supported(57600)
    assert board.library.port_baud_supported(460800)
    board.library.port_set_baud(460800)
    if core in UARTS:
        assert (board.measure("ends"), board.measure("begins"), board.measure("rate")) == (1, 2, 460800)
        board.library.port_set_baud(0)
        assert board.measure("rate") == 115200
    else:
        assert (board.measure("ends"), board.measure("begins")) == (0, 1)


def test_a_board_is_known_by_its_chip_and_its_boot(core: str, board: Board) -> None:
    board.host()
    board.start()
    hello = board.ask(HelloRequest(1))
    assert isinstance(hello, Hello)
    assert hello.uid.hex() == IDENTITIES[core.split("-")[0]]
    assert hello.boot != 0
    again = board.ask(HelloRequest(1), 2)
    assert again == hello


def test_other_tasks_run_while_a_round_trains(board: Board, built: Build) -> None:
    """At least once a second, though a sample takes 0.3 s: an ESP32's watchdog waits five for the idle task."""
    board.host()
    board.start()
    blob = fixed_weights(built.plan)
    board.ask(setup(epochs=2), 1)
    board.ask(begin_of(blob), 9)
    for chunk in range(-(-len(blob) // 72)):
        board.send(encode(FrameType.DATA, 9, chunk, blob[72 * chunk : 72 * (chunk + 1)]))
        board.loop(100)
    board.frames()
    assert isinstance(board.ask(Commit(5), 9), Status)
    board.ask(Train(5), 10)
    for _ in range(2 * SAMPLES):
        board.loop()
        board.library.world_advance(300_000)
    done = board.ask(StatusRequest(), 11)
    assert isinstance(done, Status) and (done.state, done.done) == (State.DONE, 2 * SAMPLES)
    assert board.measure("longest_ms") <= 1000
